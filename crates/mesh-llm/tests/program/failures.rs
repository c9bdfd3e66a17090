//! What can't be served or used is refused with one clear message and its own exit code.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use mesh_llm::STARTER;
use serde_json::json;

use crate::process::{Finished, Program};

/// The starter with another architecture of the same length.
fn of_unknown_architecture() -> Vec<u8> {
    let mut bytes = STARTER.to_vec();
    let end = bytes.len().min(1 << 20);
    let at = bytes[..end]
        .windows(5)
        .position(|window| window == b"qwen3")
        .unwrap();
    bytes[at..at + 5].copy_from_slice(b"qwenX");
    bytes
}

fn serve(path: &Path, format: &str) -> Finished {
    let arguments = ["--port=0", "--log-level=error", "--model"].map(String::from);
    let path = path.display().to_string();
    let format = format!("--log-format={format}");
    Program::new(arguments.into_iter().chain([path, format])).run()
}

#[test]
fn bad_model_files_are_refused_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("truncated", STARTER[..STARTER.len() / 2].to_vec()),
        ("cut-header", STARTER[..100].to_vec()),
        ("empty", Vec::new()),
        (
            "not-gguf",
            b"PK\x03\x04 this is an archive, not a model".repeat(100),
        ),
        ("unknown-architecture", of_unknown_architecture()),
    ] {
        let path = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&path, bytes).unwrap();

        let run = serve(&path, "pretty");
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(3), ""),
            "{name}: {}",
            run.stderr
        );
        let errors: Vec<_> = run
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{name}: {}", run.stderr);
        assert!(errors[0].contains(name), "{name}: {}", run.stderr);
        assert!(run.stderr.lines().count() <= 2, "{name}: {}", run.stderr);

        let run = serve(&path, "json");
        let events = run.events();
        let last = events.last().unwrap();
        assert_eq!(run.code, Some(3));
        assert_eq!(
            (&last["event"], &last["code"]),
            (&json!("error"), &json!("model")),
            "{last}"
        );
        assert!(last["message"].as_str().unwrap().contains(name), "{last}");
        assert!(events.iter().all(|event| event["event"] != "ready"));
    }
}

#[test]
fn what_is_not_there_is_named() {
    let check = |arguments: &[&str], code: i32, message: &str| {
        let run = Program::new(arguments).run();
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(code), ""),
            "{arguments:?}"
        );
        assert_eq!(run.stderr, message, "{arguments:?}");
    };
    check(
        &["--model", "/nowhere/m.gguf"],
        3,
        "error: can't read /nowhere/m.gguf: there is no such file\n",
    );
    check(
        &["--model", "nonesuch"],
        3,
        "error: no model `nonesuch` on this machine\n\
         hint: give the path of a GGUF file, or name a folder of them with --models-dir\n",
    );
    check(
        &["--model", "starter", "--model", "STARTER"],
        3,
        "error: two models are called `starter`\nhint: load one of them, or rename a file\n",
    );
    check(
        &["chat", "--port", "1", "--model", "nonesuch", "Hello?"],
        3,
        "error: no model `nonesuch` on this machine\n\
         hint: give the path of a GGUF file, or name a folder of them with --models-dir\n",
    );
}

#[test]
fn models_that_need_too_much_memory_are_refused_before_loading() {
    let run = Program::serving(&["--ctx-size", "4000000000"]).run();
    assert_eq!(run.code, Some(3), "{}", run.stdout);
    let error = run.events().pop().unwrap();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("not enough memory for `starter`: "),
        "{message}"
    );
    assert!(
        error["hint"].as_str().unwrap().contains("--ctx-size"),
        "{error}"
    );
}

#[test]
fn wrong_settings_are_refused() {
    let check = |program: Program, message: &str| {
        let home = program.home().display().to_string();
        let run = program.run();
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(2), ""),
            "{}",
            run.stderr
        );
        assert_eq!(run.stderr.replace(&home, "HOME"), message);
    };
    check(
        Program::new([""; 0]).config("prot = 1"),
        "error: unknown key `prot` in HOME/.mesh-llm/config.toml\nhint: did you mean `port`?\n",
    );
    check(
        Program::new([""; 0]).env("MESH_LLM_CTXSIZE", "1"),
        "error: unknown key `MESH_LLM_CTXSIZE` in the environment\n\
         hint: did you mean `MESH_LLM_CTX_SIZE`?\n",
    );
    check(
        Program::new(["--log-level", "engine=loud"]),
        "error: log level `engine=loud` is unknown\n\
         hint: use error, warn, info, debug, trace, or a filter such as engine=debug\n",
    );
    let run = Program::new(["--log-format", "json", "--prot", "1"]).run();
    let message = "unexpected argument '--prot' found";
    let expected =
        json!({ "event": "error", "code": "settings", "message": message, "hint": null });
    assert_eq!((run.code, run.events()), (Some(2), vec![expected]));
}

#[test]
fn a_port_in_use_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = Program::new(["--port", &port.to_string()]).run();
    let expected = format!(
        "error: can't open port {port}: it is in use\nhint: another mesh-llm may be running; \
         choose another port with --port, or --port 0 for any free one\n"
    );
    assert_eq!((run.code, run.stderr), (Some(4), expected));
}

#[test]
fn a_udp_port_in_use_is_told_with_what_to_do() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let bind = format!("--bind-port={port}");
    let run = Program::new(["--port=0", "--model=starter", "--log-level=error", &bind]).run();
    let expected = format!(
        "error: can't open UDP port {port}: it is in use\nhint: another mesh-llm may be running; \
         choose another port with --bind-port, or leave it out for any free one\n"
    );
    assert_eq!((run.code, run.stderr), (Some(4), expected));
}
