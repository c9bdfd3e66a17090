//! The host of a model over several machines is lost: another one takes it over, and streams go on.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::alphabet::write_alphabet;
use crate::several::{Node, question};

const TOKENS: u32 = 2_000;

/// A host and two standby machines that have the file under other names, and a client.
struct Mesh {
    host: Node,
    others: Vec<Node>,
    client: Node,
    _shelves: Vec<tempfile::TempDir>,
}

fn shelf(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = write_alphabet(folder.path());
    std::fs::rename(path, folder.path().join(format!("{name}.gguf"))).unwrap();
    folder
}

fn arguments(folder: &Path) -> [String; 3] {
    let folder = folder.display();
    [
        format!("--models-dir={folder}"),
        "--ctx-size=4096".to_owned(),
        "--log-level=info".to_owned(),
    ]
}

impl Mesh {
    async fn start(others: &[&str]) -> Self {
        let mut shelves = vec![shelf("alphabet")];
        let own = arguments(shelves[0].path());
        let named = [
            "--split",
            "--model=alphabet",
            "--node-name=host",
            "--grace-seconds=0",
        ];
        let own: Vec<&str> = own.iter().map(String::as_str).chain(named).collect();
        let host = Node::start(&own);
        let ticket = host.ticket();
        let mut nodes = Vec::new();
        for name in others {
            let shelf = shelf(name);
            let own = arguments(shelf.path());
            let named = ["--standby".to_owned(), format!("--node-name={name}")];
            let own: Vec<&str> = own.iter().chain(&named).map(String::as_str).collect();
            nodes.push(Node::join(&ticket, &own));
            shelves.push(shelf);
        }
        let client = Node::join(&ticket, &["--client"]);
        let mesh = Self {
            host,
            others: nodes,
            client,
            _shelves: shelves,
        };
        mesh.host.until(runs).await;
        for node in mesh.others.iter().chain([&mesh.client]) {
            node.knows("alphabet", 1).await;
        }
        // Everybody must know who has the file.
        for node in &mesh.others {
            node.until(|status| {
                let peers = status["peers"].as_array().unwrap();
                let has = |peer: &&Value| !peer["local"].as_array().unwrap().is_empty();
                peers.iter().filter(has).count() >= others.len()
            })
            .await;
        }
        mesh
    }

    /// The one of the others that hosts the model now.
    async fn successor(&self) -> usize {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            for (index, node) in self.others.iter().enumerate() {
                if runs(&node.status().await) {
                    return index;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nobody took over");
    }
}

/// Whether the node hosts the model and it answers.
fn runs(status: &Value) -> bool {
    let model = &status["models"][0];
    model["state"] == "ready" && model["split"]["waiting"].is_null()
}

fn asked(stream: bool) -> Value {
    let mut question = question(TOKENS, stream);
    question["model"] = "alphabet".into();
    question
}

fn check(text: &str) {
    assert_eq!(text.len(), TOKENS as usize);
    let letters = text.as_bytes();
    let follows = |pair: &[u8]| pair[1] == pair[0] + 1 || pair == b"pa";
    assert!(letters.windows(2).all(follows), "{text}");
}

/// Streams at a client, a worker and the other node go on when the host suffers `signal`.
async fn goes_on(signal: &str) {
    let mesh = Mesh::start(&["one", "two"]).await;
    let mut answers = Vec::new();
    for node in mesh.others.iter().chain([&mesh.client]) {
        answers.push(node.ask(&asked(true)).await);
    }
    for answer in &mut answers {
        answer.chunks(3).await;
        assert!(!answer.text.contains("[DONE]"));
    }
    mesh.host.running.signal(signal);
    let texts = answers.into_iter().map(|answer| answer.content());
    for text in futures::future::join_all(texts).await {
        check(&text);
    }
    let successor = mesh.successor().await;
    // Those that come now find it, and exactly one hosts it.
    check(&mesh.client.ask(&asked(false)).await.content().await);
    let other = &mesh.others[1 - successor];
    assert_eq!(other.status().await["models"], serde_json::json!([]));
    if signal == "STOP" {
        // The old one wakes up, and leaves the model to its successor.
        mesh.host.running.signal("CONT");
        mesh.host
            .until(|status| {
                let model = &status["models"][0];
                let reason = model["reason"].as_str().unwrap_or_default();
                model["state"] == "waiting" && reason.ends_with("hosts it")
            })
            .await;
        assert!(runs(&mesh.others[successor].status().await));
        let elsewhere = mesh.host.ask(&asked(true)).await;
        check(&elsewhere.content().await);
    }
}

#[tokio::test]
async fn streams_go_on_when_the_host_is_killed() {
    goes_on("KILL").await;
}

#[tokio::test]
async fn streams_go_on_when_the_host_falls_silent_and_it_makes_no_trouble_later() {
    goes_on("STOP").await;
}

#[tokio::test]
async fn streams_go_on_when_the_host_stops() {
    goes_on("TERM").await;
}

#[tokio::test]
async fn streams_end_with_the_reason_when_nobody_could_be_host() {
    let mesh = Mesh::start(&["one"]).await;
    // The client's stream depends on both: the only other machine with the file goes too.
    let mut answer = mesh.client.ask(&asked(true)).await;
    answer.chunks(3).await;
    mesh.others[0].running.signal("KILL");
    mesh.host.running.signal("KILL");
    while !answer.text.contains("\"error\"") {
        assert!(answer.read().await, "no word: {}", answer.text);
    }
    assert!(answer.text.contains("alphabet"), "{}", answer.text);
}

#[tokio::test]
async fn the_last_machine_runs_all_of_it_if_it_fits() {
    let mesh = Mesh::start(&["one"]).await;
    let mut answer = mesh.client.ask(&asked(true)).await;
    answer.chunks(3).await;
    mesh.host.running.signal("KILL");
    check(&answer.content().await);
    mesh.others[0]
        .until(|status| status["models"][0]["state"] == "ready")
        .await;
}
