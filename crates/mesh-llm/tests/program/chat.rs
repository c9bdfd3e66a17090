//! `mesh-llm chat` without a terminal.

use serde_json::Value;

use crate::process::Program;

#[test]
fn a_question_from_a_pipe_is_answered_by_a_model_of_its_own() {
    let arguments = [
        "chat",
        "--port=1",
        "--model=starter",
        "--temperature=0",
        "--max-tokens=40",
    ];
    let piped = Program::new(arguments).input("What is mesh-llm?\n").run();
    assert_eq!((piped.code, piped.stderr.as_str()), (Some(0), ""));
    assert!(piped.stdout.trim().len() > 3, "{}", piped.stdout);
    let typed = Program::new(arguments.iter().chain(&["What is mesh-llm?"])).run();
    assert_eq!(typed.stdout, piped.stdout);
}

#[test]
fn a_running_node_answers() {
    let node = Program::serving(&[]).start();
    let url = node.ready();
    let port = url
        .trim_end_matches("/v1")
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let ask = |arguments: &[&str]| {
        let base = [
            "chat",
            "--temperature=0",
            "--max-tokens=20",
            "--json",
            "Hello",
        ];
        let run = Program::new(base.iter().chain(arguments)).run();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    };
    let by_port = ask(&["--port", &port]);
    let by_url = ask(&["--url", &url]);
    assert_eq!(by_port["content"], by_url["content"]);
    // The second prompt is in the node's KV cache: it was the same node.
    assert!(
        by_url["usage"]["cached_tokens"].as_u64().unwrap() > 0,
        "{by_url}"
    );
    let run = Program::new(["chat", "--url", &url, "--model=nonesuch", "Hello"]).run();
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("hint: it serves starter"),
        "{}",
        run.stderr
    );
}

#[test]
fn no_question_is_an_error() {
    let run = Program::new(["chat", "--port=1"]).run();
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr
            .starts_with("error: there is no question\nhint: "),
        "{}",
        run.stderr
    );
}
