//! The examples do what they say, on the model inside the library.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use node::{ModelSource, Node, Settings};
use tokio::process::Command;

/// Longest run of one example. They take seconds; a busy machine is slower.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// The program of an example. Cargo puts it beside the folder of the tests' programs.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.is_file(),
        "{} is missing; hint: cargo build --release --package mesh-llm --examples",
        path.display()
    );
    path
}

/// What an example prints.
async fn run(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program(name));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(WAIT_MAX, command.output()).await;
    let output = output.expect("it takes too long").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A node with the starter model on a free port, and its URL.
async fn serve() -> (Node, String) {
    let settings = Settings {
        models: vec![ModelSource::Embedded {
            name: "starter".into(),
            bytes: mesh_llm::STARTER,
        }],
        ..Settings::default()
    };
    let node = Node::start(settings).await.unwrap();
    node.ready().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = api::Config::default();
    let serving = api::serve(listener, node.clone(), config, std::future::pending());
    tokio::spawn(serving);
    (node, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn solo_answers_a_question() {
    let answer = run("solo", &[]).await;
    assert!(answer.contains("tokens in, "), "{answer}");
    let (text, _) = answer.rsplit_once("\n(").unwrap();
    assert!(!text.trim().is_empty(), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_calls_a_function_and_uses_its_result() {
    let answer = run("tools", &[]).await;
    let mut lines = answer.lines();
    assert_eq!(
        lines.next(),
        Some("the model calls get_weather({\"city\": \"Paris\"})"),
        "{answer}"
    );
    assert!(
        lines.next().is_some_and(|line| !line.is_empty()),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_asks_a_server() {
    let (_node, url) = serve().await;
    let answer = run("connect", &[&url, "Hello!"]).await;
    let (first, rest) = answer.split_once('\n').unwrap();
    assert_eq!(first, format!("{url} serves starter"));
    assert!(rest.contains("Usage { prompt_tokens: "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_prefers_a_running_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alone.gguf");
    std::fs::write(&path, mesh_llm::STARTER).unwrap();
    let path = path.to_str().unwrap();
    let (_node, url) = serve().await;
    let answer = run("auto", &[path, &url]).await;
    assert!(answer.starts_with("the running node answers: "), "{answer}");
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let answer = run("auto", &[path, &nobody]).await;
    assert!(answer.starts_with("this process answers: "), "{answer}");
}
