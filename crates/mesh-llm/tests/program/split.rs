//! One model over several machines: real processes, real QUIC, loopback.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::alphabet::{assert_alphabet, write_alphabet};
use crate::several::{Node, question};

/// Streams are told within ten seconds that nothing fits any more; a busy machine takes some more.
const TOLD_MAX: Duration = Duration::from_secs(13);

/// A folder with a model that both the host and its workers have.
fn shelf() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    write_alphabet(folder.path());
    let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");
    std::fs::copy(starter, folder.path().join("six.gguf")).unwrap();
    let path = folder.path().display().to_string();
    (folder, path)
}

/// A host of a split model, and as many workers.
struct Ring {
    host: Node,
    workers: Vec<Node>,
    _shelf: tempfile::TempDir,
}

impl Ring {
    async fn start(model: &str, workers: usize) -> Self {
        let (shelf, folder) = shelf();
        let own = folder.clone();
        Self::start_with(model, workers, (shelf, folder), &own).await
    }

    /// Workers look for models in `folder`.
    async fn start_with(
        model: &str,
        workers: usize,
        (shelf, models): (tempfile::TempDir, String),
        folder: &str,
    ) -> Self {
        let of_host = ["--models-dir", &models, "--ctx-size=4096"];
        let named = ["--split", "--model", model, "--node-name=host"];
        let host = Node::start(&[&of_host[..], &named].concat());
        let ticket = host.ticket();
        let of_worker = ["--models-dir", folder, "--ctx-size=4096", "--standby"];
        let workers: Vec<Node> = (0..workers)
            .map(|number| {
                let name = format!("--node-name=worker{number}");
                Node::join(&ticket, &[&of_worker[..], &[&name]].concat())
            })
            .collect();
        let ring = Self {
            host,
            workers,
            _shelf: shelf,
        };
        ring.runs().await;
        ring
    }

    /// Waits until the model answers.
    async fn runs(&self) {
        self.host
            .until(|status| {
                let model = &status["models"][0];
                model["state"] == "ready" && model["split"]["waiting"].is_null()
            })
            .await;
    }

    async fn stages(&self) -> Vec<String> {
        let status = self.host.status().await;
        let stages = status["models"][0]["split"]["stages"].as_array().unwrap();
        let name = |stage: &Value| stage["name"].as_str().unwrap().to_owned();
        stages.iter().map(name).collect()
    }

    /// The worker that has layers now.
    async fn busy(&self) -> &Node {
        let name = self.stages().await.remove(0);
        let number: usize = name.trim_start_matches("worker").parse().unwrap();
        &self.workers[number]
    }
}

fn of_model(model: &str, tokens: u32) -> Value {
    let mut question = question(tokens, true);
    question["model"] = model.into();
    question
}

/// What the model says when one machine has all of it.
async fn whole(folder: &Path, name: &str, tokens: u32) -> String {
    let path = folder.join(format!("{name}.gguf"));
    let model = format!("--model={}", path.display());
    let alone = Node::start(&[&model, "--no-mesh", "--ctx-size=4096"]);
    alone.ask(&of_model(name, tokens)).await.content().await
}

#[tokio::test]
async fn a_split_model_says_what_the_whole_one_does_from_everywhere() {
    let ring = Ring::start("six", 2).await;
    let expected = whole(ring._shelf.path(), "six", 24).await;
    let stages = ring.stages().await;
    assert!(
        stages.len() > 1 && stages.last().unwrap() == "host",
        "{stages:?}"
    );
    let text = ring.host.ask(&of_model("six", 24)).await.content().await;
    assert_eq!(text, expected);
    // A worker's user reaches it through the mesh.
    let elsewhere = &ring.workers[0];
    elsewhere.knows("six", 1).await;
    let answer = elsewhere.ask(&of_model("six", 24)).await;
    assert!(answer.host.as_ref().unwrap().starts_with("host ("));
    assert_eq!(answer.content().await, expected);
    // Its features are those of a whole one.
    let mut forced = of_model("six", 60);
    forced["tools"] = json!([{ "type": "function", "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": { "a": { "type": "integer" } },
            "required": ["a"],
        },
    } }]);
    forced["tool_choice"] = "required".into();
    forced["stream"] = false.into();
    forced["ignore_eos"] = false.into();
    let mut answer = ring.host.ask(&forced).await;
    while answer.read().await {}
    let answer: Value = serde_json::from_str(&answer.text).unwrap();
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "add", "{answer}");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["a"].is_i64(), "{arguments}");
}

#[tokio::test]
async fn a_worker_without_the_file_fetches_its_layers_and_no_others() {
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().display().to_string();
    let ring = Ring::start_with("six", 1, shelf(), &folder).await;
    let expected = whole(ring._shelf.path(), "six", 24).await;
    let text = ring.host.ask(&of_model("six", 24)).await.content().await;
    assert_eq!(text, expected);
    let home = ring.workers[0].running.home.path();
    let slices = std::fs::read_dir(home.join(".cache/mesh-llm/slices")).unwrap();
    let sizes: Vec<u64> = slices
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    let all = std::fs::metadata(ring._shelf.path().join("six.gguf"))
        .unwrap()
        .len();
    assert!(
        sizes.iter().sum::<u64>() < all * 9 / 10,
        "{sizes:?} of {all}"
    );
}

/// Streams go on, word for word, when the worker with the first layers suffers `harm`.
async fn goes_on(harm: impl Fn(&Node), streams: usize) {
    const TOKENS: u32 = 1_000;
    let ring = Ring::start("alphabet", 2).await;
    let mut answers = Vec::new();
    for _ in 0..streams {
        answers.push(ring.host.ask(&of_model("alphabet", TOKENS)).await);
    }
    for answer in &mut answers {
        answer.chunks(3).await;
    }
    harm(ring.busy().await);
    let texts = answers.into_iter().map(|answer| async {
        assert!(
            !answer.text.contains("[DONE]"),
            "it was over before the harm"
        );
        answer.content().await
    });
    for text in futures::future::join_all(texts).await {
        assert_alphabet(&text, TOKENS as usize);
    }
    ring.runs().await;
}

#[tokio::test]
async fn a_stream_goes_on_when_a_worker_is_killed() {
    goes_on(|worker| worker.running.signal("KILL"), 1).await;
}

#[tokio::test]
async fn eight_streams_go_on_when_a_worker_is_killed() {
    goes_on(|worker| worker.running.signal("KILL"), 8).await;
}

#[tokio::test]
async fn streams_go_on_when_a_worker_falls_silent() {
    goes_on(|worker| worker.running.signal("STOP"), 2).await;
}

#[tokio::test]
async fn streams_go_on_when_a_worker_leaves() {
    goes_on(|worker| worker.running.signal("TERM"), 2).await;
}

#[tokio::test]
async fn without_a_machine_that_has_room_streams_end_with_the_reason() {
    let ring = Ring::start("alphabet", 1).await;
    let mut answer = ring.host.ask(&of_model("alphabet", 2_000)).await;
    answer.chunks(3).await;
    ring.workers[0].running.signal("KILL");
    let began = Instant::now();
    while !answer.text.contains("\"error\"") {
        assert!(
            answer.read().await,
            "it ended without a word: {}",
            answer.text
        );
    }
    let took = began.elapsed();
    eprintln!("told after {took:.1?}");
    assert!(took < TOLD_MAX, "told after {took:?}");
    assert!(answer.text.contains("needs "), "{}", answer.text);
    ring.host
        .until(|status| status["models"][0]["state"] == "waiting")
        .await;
    let late = ring.host.ask(&of_model("alphabet", 5)).await;
    assert_eq!(late.status, 503);
    // It comes back by itself when a machine does.
    let folder = ring._shelf.path().display().to_string();
    let ticket = ring.host.ticket();
    let _again = Node::join(&ticket, &["--models-dir", &folder, "--standby"]);
    ring.runs().await;
    let text = ring
        .host
        .ask(&of_model("alphabet", 50))
        .await
        .content()
        .await;
    assert_eq!(text.len(), 50);
}
