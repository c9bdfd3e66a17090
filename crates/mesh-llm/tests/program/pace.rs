//! How fast a split model is: what is expected, what comes, and what follows. Real processes, loopback.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::model::{Architecture, ModelSpec, WeightType};
use tokio::time::sleep;

use crate::several::{Node, question};

/// A model whose layers take some milliseconds, so that they, and not the way, decide.
fn write_model(folder: &Path) -> PathBuf {
    let spec = ModelSpec {
        layers: 12,
        vocab: 2_000,
        context: 2_048,
        weights: WeightType::Q8_0,
        name: "medium".into(),
        ..ModelSpec::bench_half_billion()
    };
    assert_eq!(spec.architecture, Architecture::Qwen3);
    let path = folder.join("medium.gguf");
    testkit::model::write(&spec, &path).unwrap();
    path
}

/// A host and workers that all have the file; one thread each, and no speculation.
struct Pool {
    host: Node,
    workers: Vec<Node>,
    _shelf: tempfile::TempDir,
}

impl Pool {
    async fn start(workers: usize) -> Self {
        let shelf = tempfile::tempdir().unwrap();
        write_model(shelf.path());
        let folder = shelf.path().display().to_string();
        let common = ["--models-dir", &folder, "--ctx-size=2048", "--threads=1"];
        let named = [
            "--split",
            "--model=medium",
            "--no-draft",
            "--node-name=host",
        ];
        let host = Node::start(&[&common[..], &named].concat());
        let ticket = host.ticket();
        let workers: Vec<Node> = (0..workers)
            .map(|number| {
                let name = format!("--node-name=worker{number}");
                Node::join(&ticket, &[&common[..], &["--standby", &name]].concat())
            })
            .collect();
        let pool = Self {
            host,
            workers,
            _shelf: shelf,
        };
        pool.host
            .until(|status| status["models"][0]["state"] == "ready")
            .await;
        pool
    }

    async fn split(&self) -> Value {
        self.host.status().await["models"][0]["split"].clone()
    }

    /// The number of the only worker that has layers.
    async fn busy(&self) -> usize {
        let split = self.split().await;
        let name = split["stages"][0]["name"].as_str().unwrap();
        name.trim_start_matches("worker").parse().unwrap()
    }
}

fn long(tokens: u32) -> Value {
    let mut question = question(tokens, true);
    question["model"] = "medium".into();
    question
}

#[tokio::test]
async fn what_is_predicted_comes_within_a_fifth() {
    const TRIES: usize = 6;
    const TOKENS: u32 = 160;
    let pool = Pool::start(1).await;
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let mut answer = pool.host.ask(&long(TOKENS)).await;
        answer.chunks(1).await;
        let began = Instant::now();
        let text = answer.content().await;
        let per_second = f64::from(TOKENS - 1) / began.elapsed().as_secs_f64();
        assert!(!text.is_empty());
        // The worker says once a second what it has computed.
        sleep(Duration::from_millis(2_500)).await;
        let split = pool.split().await;
        let predicted = split["predicted_tokens_per_second"].as_f64().unwrap();
        let measured = split["measured_tokens_per_second"].as_f64().unwrap();
        let summary = split["summary"].as_str().unwrap();
        assert!(
            summary.contains(" + head here; predicted ") && summary.contains(" tok/s, measured "),
            "{summary}"
        );
        let near = |a: f64, b: f64| (a / b - 1.0).abs() <= 0.2;
        // Other programs take a machine's time now and then, in one part and not in the other.
        if near(predicted, measured) && near(predicted, per_second) {
            return;
        }
        seen.push((predicted, measured, per_second));
    }
    panic!("predicted, measured, seen by the client: {seen:?}");
}

/// Stops a process four fifths of the time.
async fn brake(worker: &Node) {
    loop {
        worker.running.signal("STOP");
        sleep(Duration::from_millis(80)).await;
        worker.running.signal("CONT");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn streams_leave_a_worker_that_has_become_slow() {
    let pool = Pool::start(2).await;
    let slow = pool.busy().await;
    // It is known how fast the ring is.
    pool.host.ask(&long(100)).await.content().await;
    let began = Instant::now();
    let leave = async {
        while pool.busy().await == slow {
            pool.host.ask(&long(100)).await.content().await;
            assert!(
                began.elapsed() < Duration::from_secs(150),
                "it stays: {}",
                pool.split().await
            );
        }
    };
    let worker = &pool.workers[slow];
    tokio::select! {
        () = brake(worker) => {}
        () = leave => {}
    }
    worker.running.signal("CONT");
    let text = pool.host.ask(&long(30)).await.content().await;
    assert!(!text.is_empty());
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_streams_over_first() {
    let pool = Pool::start(2).await;
    let leaver = pool.busy().await;
    let mut answer = pool.host.ask(&long(1_500)).await;
    answer.chunks(3).await;
    pool.workers[leaver].running.signal("TERM");
    let mut has_paused = false;
    while pool.busy().await == leaver {
        has_paused |= pool.split().await["waiting"].is_string();
        assert!(answer.read().await, "{}", answer.text);
    }
    // The other one has taken over while the leaver still computed.
    assert!(!has_paused);
    assert!(!answer.text.contains("[DONE]"), "it was over before");
    // The stream goes on there; nobody needs all of it.
    let so_far = answer.text.matches("\"content\":\"").count();
    answer.chunks(so_far + 20).await;
}
