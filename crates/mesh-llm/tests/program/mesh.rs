//! Several nodes as one, by the commands that a user types. Real processes, real QUIC, loopback.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

use crate::commands::{command, console_of};
use crate::process::{Program, Running};

/// Longest wait for what the members tell each other; it takes moments.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A running node and where it is.
struct Member {
    running: Running,
    ready: Value,
    console: String,
}

impl Member {
    fn of(program: Program) -> Self {
        let running = program.start();
        let ready = running.event("ready");
        let console = console_of(&ready);
        Self {
            running,
            ready,
            console,
        }
    }

    /// One that serves the starter model in a mesh of its own, and the ticket to it.
    fn first() -> (Self, String) {
        let first = Self::of(Program::serving(&["--node-name=first"]));
        let event = first.running.event("ticket");
        assert_eq!(event["mesh_id"], first.ready["mesh_id"]);
        (first, event["ticket"].as_str().unwrap().to_owned())
    }

    fn status(&self) -> Value {
        let run = command(&self.console, &["status", "--json"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Waits until the state is as wished.
    fn until(&self, is_wished: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let status = self.status();
            if is_wished(&status) {
                return status;
            }
            assert!(started.elapsed() < WAIT_MAX, "{status:#}");
        }
    }

    /// A command that must work; gives what it printed.
    fn order(&self, arguments: &[&str]) -> String {
        let run = command(&self.console, arguments);
        assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
        run.stdout
    }

    /// Asks this node for an answer of `model`.
    async fn chat(&self, model: &str) -> (u16, Value) {
        let url = self.ready["api_url"].as_str().unwrap();
        let body = json!({
            "model": model,
            "messages": [{ "role": "user", "content": "Hello" }],
            "max_tokens": 4,
            "temperature": 0,
        });
        let request = Client::new().post(format!("{url}/chat/completions"));
        let response = request.json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    fn stop(self) {
        self.running.signal("TERM");
        let run = self.running.finish();
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    }
}

fn peers(status: &Value) -> Vec<&Value> {
    status["peers"].as_array().unwrap().iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_and_a_standby_node_use_the_model_of_the_first() {
    let (first, ticket) = Member::first();
    let client = Member::of(Program::node(&["--client", "--join", &ticket]));
    assert_eq!(client.ready["mesh_id"], first.ready["mesh_id"]);
    assert_ne!(client.ready["node_id"], first.ready["node_id"]);
    // A client keeps nothing.
    assert!(!client.running.home.path().join(".mesh-llm/key").exists());
    let second = Member::of(Program::node(&["--join", &ticket, "--node-name=second"]));
    let came = first.running.event("peer_came");
    assert_eq!(came["name"], "second");
    for member in [&client, &second] {
        member.until(|status| !status["targets"].as_array().unwrap().is_empty());
        let (status, answer) = member.chat("starter").await;
        assert_eq!(status, 200, "{answer}");
    }
    let status = first.until(|status| {
        status["mesh"]["clients"] == 1 && peers(status).iter().any(|peer| peer["name"] == "second")
    });
    assert_eq!(status["node"]["role"], "serving");
    let status = client.status();
    assert_eq!(status["node"]["role"], "client");
    assert_eq!(status["targets"][0]["model"], "starter");
    assert_eq!(status["targets"][0]["hosts"][0]["name"], "first");
    let text = second.order(&["status"]);
    assert!(
        text.contains("first") && text.contains("this node"),
        "{text}"
    );

    second.stop();
    let left = first.running.event("peer_left");
    assert_eq!(
        (&left["name"], &left["said_goodbye"]),
        (&json!("second"), &json!(true))
    );
    client.stop();
    first.stop();
}

#[test]
fn tickets_are_made_listed_and_taken_back() {
    let (first, _) = Member::first();
    let ticket = first.order(&[
        "invite",
        "--role",
        "client",
        "--uses",
        "1",
        "--expires",
        "1h",
    ]);
    let ticket = ticket.trim();
    assert!(
        ticket.starts_with("mesh1") && !ticket.contains('\n'),
        "{ticket}"
    );
    let list =
        || -> Vec<Value> { serde_json::from_str(&first.order(&["invites", "--json"])).unwrap() };
    let newest = list().remove(0);
    assert_eq!(
        (&newest["role"], &newest["state"], &newest["uses_max"]),
        (&json!("client"), &json!("open"), &json!(1))
    );

    // It admits clients alone, and one of them.
    let run = Program::new(["--port=0", "--join", ticket]).run();
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("admits clients only"), "{}", run.stderr);
    let client = Member::of(Program::node(&["--client", "--join", ticket]));
    let run = Program::new(["--port=0", "--client", "--join", ticket]).run();
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("used as often as it allows"),
        "{}",
        run.stderr
    );
    let newest = list().remove(0);
    assert_eq!(newest["state"], "used_up");
    assert_eq!(newest["redeemed_by"], json!([client.ready["node_id"]]));

    first.order(&["revoke", newest["id"].as_str().unwrap()]);
    assert_eq!(list()[0]["state"], "revoked");
    // Its membership is gone too.
    client.until(|status| status["mesh"].is_null());
    let run = command(&client.console, &["invite"]);
    assert_eq!(run.code, Some(1));
    let table = first.order(&["invites"]);
    assert!(
        table.starts_with("ID ") && table.contains("revoked"),
        "{table}"
    );
}

/// What is printed is pasted on the other machine as it is.
#[test]
fn a_person_is_told_the_command_for_the_other_machine() {
    let first = Program::new(["--port=0", "--model=starter", "--node-name=first"]).start();
    first.line_on_stderr("Another machine joins this one with:");
    let rest = first.line_on_stderr("  mesh-llm ");
    let (join, ticket) = rest.split_once(' ').unwrap();
    let second = Member::of(Program::node(&[join, ticket]));
    second.until(|status| peers(status).iter().any(|peer| peer["name"] == "first"));
    second.stop();
}

#[test]
fn a_running_node_joins_and_leaves_by_command() {
    let (first, ticket) = Member::first();
    let idle = Member::of(Program::node(&["--node-name=late"]));
    let run = command(&idle.console, &["join", &ticket]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let joined = idle.running.event("joined");
    assert_eq!(joined["mesh_id"], first.ready["mesh_id"]);
    first.until(|status| peers(status).iter().any(|peer| peer["name"] == "late"));
    idle.order(&["leave"]);
    idle.running.event("left");
    first.until(|status| {
        peers(status)
            .iter()
            .any(|peer| peer["name"] == "late" && peer["liveness"] == "left")
    });
    assert_eq!(idle.status()["mesh"], Value::Null);
    idle.stop();
}

#[test]
fn the_udp_port_can_be_pinned() {
    // Free a moment ago, and so most likely still.
    let port = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let pinned = port();
    let bind = format!("--bind-port={pinned}");
    let first = Member::of(Program::serving(&["--node-name=first", &bind]));
    let ticket = first.running.event("ticket");
    let taken = UdpSocket::bind(("127.0.0.1", pinned)).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    #[cfg(target_os = "linux")]
    assert_eq!(
        crate::sockets::udp_ports(first.running.pid()),
        [pinned],
        "no other port is open"
    );
    // And it is the one that the ticket leads to.
    let ticket = ticket["ticket"].as_str().unwrap();
    let second = Member::of(Program::node(&["--join", ticket, "--node-name=second"]));
    let address = format!("127.0.0.1:{pinned}");
    second.until(|status| status["links"].to_string().contains(&address));
    second.stop();
    first.stop();
}

/// What the flags of one node say of it, others see and feel.
#[test]
fn name_region_and_room_for_clients_are_what_the_flags_say() {
    let first = Member::of(Program::serving(&[
        "--name=home",
        "--node-name=first",
        "--region=attic",
        "--max-clients=1",
    ]));
    let event = first.running.event("ticket");
    let ticket = event["ticket"].as_str().unwrap();
    let join = || Member::of(Program::node(&["--client", "--join", ticket]));
    let shows = |status: &Value| {
        let is_first = |peer: &&Value| peer["name"] == "first" && peer["region"] == "attic";
        status["mesh"]["name"] == "home" && peers(status).iter().any(is_first)
    };
    let inside = join();
    inside.until(shows);
    first.until(|status| status["mesh"]["clients"] == 1);

    // Its ticket is good, but there is no room for it.
    let outside = join();
    let is_refused = |(message, fields): &(String, Value)| {
        let reason = fields["reason"].as_str().unwrap_or_default();
        message == "did not let a peer in" && reason.contains("as many clients as it may")
    };
    let started = Instant::now();
    while !first.running.log().iter().any(is_refused) {
        assert!(started.elapsed() < WAIT_MAX, "nobody was refused");
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = outside.status();
    assert_eq!(status["mesh"]["name"], "home");
    assert_eq!(
        (&status["links"], &status["targets"]),
        (&json!([]), &json!([]))
    );
    inside.stop();
    outside.until(shows);
    first.until(|status| status["mesh"]["clients"] == 1);
    outside.stop();
    first.stop();
}

/// Where none runs, the same command starts one.
#[test]
fn join_starts_a_node_if_none_runs() {
    let (first, ticket) = Member::first();
    let arguments = ["--port=0", "--log-format=json", "join", &ticket];
    let second = Member::of(Program::new(arguments));
    assert_eq!(second.ready["mesh_id"], first.ready["mesh_id"]);
    second.stop();
}

#[test]
fn a_member_comes_back_without_a_ticket() {
    let (first, ticket) = Member::first();
    let folder = tempfile::tempdir().unwrap();
    let start = |arguments: &[&str]| {
        Member::of(Program::node(arguments).env("MESH_LLM_HOME", folder.path()))
    };
    let before = start(&["--join", &ticket]);
    let id = before.ready["node_id"].clone();
    before.stop();
    for arguments in [&["--rejoin"][..], &["--join", &ticket]] {
        let again = start(arguments);
        assert_eq!(again.ready["node_id"], id);
        assert_eq!(again.ready["mesh_id"], first.ready["mesh_id"]);
        let is_back = |peer: &&Value| peer["id"] == id && peer["liveness"] == "alive";
        first.until(|status| peers(status).iter().any(is_back));
        again.stop();
    }
    let stranger = Program::new(["--port=0", "--rejoin"]).run();
    assert_eq!((stranger.code, stranger.stdout.as_str()), (Some(1), ""));
    assert!(stranger.stderr.contains("hint: "), "{}", stranger.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_come_and_go_by_command() {
    let idle = Member::of(Program::node(&[]));
    assert_eq!(idle.chat("starter").await.0, 503);
    idle.order(&["load", "starter"]);
    let (status, answer) = idle.chat("starter").await;
    assert_eq!(status, 200, "{answer}");
    let run = command(&idle.console, &["load", "nonesuch"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr
            .starts_with("error: no model `nonesuch` on this machine\nhint: "),
        "{}",
        run.stderr
    );
    // Twice is once.
    idle.order(&["load", "STARTER"]);
    idle.order(&["drop", "starter"]);
    idle.running.event("model_gone");
    assert_eq!(idle.chat("starter").await.0, 503);
    idle.stop();
}
