//! Commands to a running node, and what they say when there is none.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::Value;

use crate::process::{Finished, Program, Running};

/// A port at which nobody listens.
fn nobody() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The port of the management API.
pub(crate) fn console_of(ready: &Value) -> String {
    let url = ready["console_url"].as_str().unwrap();
    url.rsplit(':').next().unwrap().to_owned()
}

/// Runs a command that talks to the node at `port`.
pub(crate) fn command(port: &str, arguments: &[&str]) -> Finished {
    Program::new(arguments.iter().chain(&["--console", port])).run()
}

fn idle_node() -> (Running, String) {
    let running = Program::node(&[]).start();
    let port = console_of(&running.event("ready"));
    (running, port)
}

#[test]
fn without_a_node_every_command_says_so() {
    let port = nobody().to_string();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--watch"],
        &["invite"],
        &["invites"],
        &["revoke", "0102030405060708"],
        &["leave"],
        &["load", "starter"],
        &["drop", "starter"],
    ] {
        let run = command(&port, arguments);
        let expected = format!(
            "error: no node answers on port {port} of this machine\nhint: start one with \
             `mesh-llm --model starter`, or name its port with --console\n"
        );
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(1), ""),
            "{arguments:?}"
        );
        assert_eq!(run.stderr, expected, "{arguments:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anybody_is_asked() {
    let check = |arguments: &[&str], message: &str| {
        let run = Program::new(arguments).run();
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}"
        );
        assert!(
            run.stderr.starts_with(message),
            "{arguments:?}: {}",
            run.stderr
        );
    };
    check(
        &["join", "hello"],
        "error: not a ticket: tickets begin with `mesh1`\nhint: paste the whole word",
    );
    check(
        &["--join", "mesh1abc"],
        "error: the ticket is cut off at the end\nhint: copy it again",
    );
    check(
        &["revoke", "x"],
        "error: invalid value 'x' for '<ID>': not a ticket id: expected 16 hexadecimal digits",
    );
    check(
        &["invite", "--role", "king"],
        "error: invalid value 'king' for '--role <ROLE>': no role is called `king`",
    );
    check(
        &["invite", "--expires", "soon"],
        "error: invalid value 'soon' for '--expires <TIME>': ",
    );
    check(
        &["invite", "--expires", "20years"],
        "error: invalid value '20years' for '--expires <TIME>': it must be between a second and ten years, or `never`",
    );
    check(
        &["invite", "--uses", "0"],
        "error: invalid value '0' for '--uses <N>': 0 is not in 1..=1000",
    );
    // The port of the tests' other nodes: none.
    check(&["status"], "error: port 0 names no running node\nhint: ");
    check(
        &["status", "--config", "/nowhere/c.toml"],
        "error: can't read /nowhere/c.toml: ",
    );
    let off = Program::new(["status"])
        .env("MESH_LLM_CONSOLE", "")
        .config("no_console = true");
    let run = off.run();
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr
            .starts_with("error: the settings say no_console\nhint: "),
        "{}",
        run.stderr
    );
}

/// Something else listens at the port.
#[test]
fn another_server_is_no_node() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "220 mail.example ESMTP\r\n",
        "",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let run = command(&port, &["status"]);
        server.join().unwrap();
        assert_eq!(run.code, Some(1), "{answer}");
        let start = format!("error: port {port} of this machine does not answer like mesh-llm: ");
        assert!(run.stderr.starts_with(&start), "{}", run.stderr);
        assert!(run.stderr.contains("\nhint: "), "{}", run.stderr);
    }
}

#[test]
fn the_state_of_a_node_is_shown() {
    let (running, port) = idle_node();
    let run = command(&port, &["status"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.starts_with("node"), "{}", run.stdout);
    assert!(run.stdout.contains("idle, version"), "{}", run.stdout);
    let run = command(&port, &["status", "--json"]);
    let status: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(status["schema"], 1);
    assert_eq!(status["node"]["role"], "idle");
    assert_eq!(status["mesh"], Value::Null);
    // By the variable as well.
    let by_variable = Program::new(["status", "--json"])
        .env("MESH_LLM_CONSOLE", &port)
        .run();
    assert_eq!(by_variable.code, Some(0), "{}", by_variable.stderr);
    running.signal("TERM");
    assert_eq!(running.finish().code, Some(0));
}

#[test]
fn a_node_is_watched_until_it_stops() {
    let (running, port) = idle_node();
    let watching = Program::new(["status", "--watch", "--json", "--console", &port]).start();
    let snapshot = watching.event("snapshot");
    assert_eq!(snapshot["data"]["node"]["stopping"], false);
    running.signal("TERM");
    let node = watching.event("node");
    assert_eq!(node["data"]["stopping"], true);
    let run = watching.finish();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(running.finish().code, Some(0));
}

#[test]
fn refusals_of_the_node_are_told() {
    let (_running, port) = idle_node();
    let check = |arguments: &[&str], message: &str| {
        let run = command(&port, arguments);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(1), ""),
            "{arguments:?}"
        );
        assert!(
            run.stderr.starts_with(message),
            "{arguments:?}: {}",
            run.stderr
        );
    };
    let nowhere = "error: this node is in no mesh\nhint: join one with `mesh-llm join TICKET`";
    check(&["leave"], nowhere);
    check(&["invite"], nowhere);
    check(&["invites"], nowhere);
    check(&["revoke", "0102030405060708"], nowhere);
    check(
        &["drop", "nonesuch"],
        "error: this node does not serve `nonesuch`",
    );
}

#[test]
fn a_node_with_a_key_wants_it() {
    let running = Program::node(&["--api-key", "secret"]).start();
    let port = console_of(&running.event("ready"));
    let run = command(&port, &["status"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr
            .starts_with("error: the node wants another key\nhint: set MESH_LLM_API_KEY"),
        "{}",
        run.stderr
    );
    let run = command(&port, &["status", "--api-key", "secret"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let variable = Program::new(["status", "--console", &port]).env("MESH_LLM_API_KEY", "secret");
    assert_eq!(variable.run().code, Some(0));
}

/// Whether the usual port of the console is free or not, each node gets one.
#[test]
fn two_nodes_get_a_console_each() {
    let start = || Program::node(&[]).env("MESH_LLM_CONSOLE", "").start();
    let (first, second) = (start(), start());
    let (first, second) = (first.event("ready"), second.event("ready"));
    assert_ne!(console_of(&first), console_of(&second));
}

#[test]
fn a_console_port_that_was_asked_for_must_be_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run = Program::new(["--port=0", "--console", &port]).run();
    assert_eq!(run.code, Some(4));
    let message = format!("error: can't open port {port}: it is in use\nhint: ");
    assert!(run.stderr.starts_with(&message), "{}", run.stderr);
    let off = Program::node(&["--no-console"]).start();
    assert_eq!(off.event("ready")["console_url"], Value::Null);
}

#[test]
fn the_key_is_rotated_but_not_under_a_running_node() {
    let running = Program::node(&[]).start();
    running.ready();
    let home = running.home.path().join(".mesh-llm");
    let rotate = || {
        Program::new(["rotate-key", "--log-format=json"])
            .env("MESH_LLM_HOME", &home)
            .run()
    };
    let run = rotate();
    assert_eq!(run.code, Some(1));
    let refused = run.events().pop().unwrap();
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.starts_with("a node runs with the key in "),
        "{message}"
    );
    assert!(!home.join("key").exists());
    running.signal("TERM");
    // The folder goes with the run; the key must survive it here.
    let keys = tempfile::tempdir().unwrap();
    assert_eq!(running.finish().code, Some(0));

    let rotate = || {
        let program = Program::new(["rotate-key", "--log-format=json"]);
        let run = program.env("MESH_LLM_HOME", keys.path()).run();
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        (
            run.events().pop().unwrap(),
            std::fs::read(keys.path().join("key")).unwrap(),
        )
    };
    let ((first, old_key), (second, new_key)) = (rotate(), rotate());
    assert_eq!(first["old_node_id"], Value::Null);
    assert_eq!(second["old_node_id"], first["node_id"]);
    assert_ne!(second["node_id"], first["node_id"]);
    assert_ne!(old_key, new_key);
}

/// Two nodes with one key would take each other's connections.
#[test]
fn a_second_node_in_the_same_folder_gets_a_key_of_its_own() {
    let first = Program::serving(&[]).start();
    first.ready();
    let home = first.home.path().join(".mesh-llm");
    let second = Program::serving(&[]).env("MESH_LLM_HOME", &home).start();
    let warning = second.event("warning");
    assert_eq!(warning["code"], "key_of_this_run");
    assert!(
        warning["hint"].as_str().unwrap().contains("MESH_LLM_HOME"),
        "{warning}"
    );
    second.ready();
    let run = Program::new(["--port=0", "--rejoin"])
        .env("MESH_LLM_HOME", &home)
        .run();
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr
            .starts_with("error: another mesh-llm runs with the key in "),
        "{}",
        run.stderr
    );
}
