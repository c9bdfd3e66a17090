//! A machine that joins with a model of its own: while that is being loaded, the mesh answers for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::model::{Architecture, ModelSpec};
use tokio::time::{sleep, timeout};

use crate::several::{Node, question};

/// A joiner answers so soon after it has joined.
const ANSWERS_MAX: Duration = Duration::from_secs(2);

/// Longest wait for the joiner's own model, which takes five seconds, and some more on a busy machine.
const LOADED_MAX: Duration = Duration::from_secs(60);

/// Pause between two requests that were refused.
const LOOK: Duration = Duration::from_millis(20);

/// Streams that run while the joiner goes over to its own model.
const STREAMS: u32 = 4;

const TOKENS: u32 = 40;

/// A chat template that works for minutes and makes nothing of it: ten thousand million comparisons, of which
/// the template language counts none.
const TEMPLATE: &str = "{% set many = range(100000) | list %}\
    {% for i in range(100000) %}{% set n = many.count('x') %}{% endfor %}";

/// Writes a model that takes five seconds to load, on any machine: its template is tried, and given up after so
/// long by the clock. A large file would be there at once where it is mapped into memory. It is larger than the
/// starter model, so that it is the best one there is once it is loaded.
fn write_slow(folder: &Path) -> PathBuf {
    let spec = ModelSpec {
        name: "slow".into(),
        vocab: 24_000,
        context: 2_048,
        chat_template: Some(TEMPLATE.to_owned()),
        ..ModelSpec::tiny(Architecture::Qwen3)
    };
    let path = folder.join("slow.gguf");
    testkit::model::write(&spec, &path).unwrap();
    path
}

/// Asks for exactly so many tokens of this model, as a stream that tells how many there were.
fn asked(model: &str) -> Value {
    let mut question = question(TOKENS, true);
    question["model"] = model.into();
    question["stream_options"] = json!({ "include_usage": true });
    question
}

/// Asks until there is an answer; gives the name of the machine that gave it, and the whole of it.
async fn first_answer(node: &Node, model: &str) -> (Option<String>, String) {
    loop {
        let answer = node.ask(&asked(model)).await;
        if answer.status == 200 {
            return (answer.host.clone(), answer.content_of(TOKENS).await);
        }
        sleep(LOOK).await;
    }
}

/// Asks for the best model, one request after another, until this machine itself answers; gives how many
/// were answered through the mesh before that. None may fail.
async fn asks_until_own(node: &Node) -> usize {
    let mut before = 0;
    loop {
        let answer = node.ask(&asked("auto")).await;
        assert_eq!(answer.status, 200, "after {before} answers");
        let is_own = answer.host.is_none();
        answer.content_of(TOKENS).await;
        if is_own {
            return before;
        }
        before += 1;
    }
}

#[tokio::test]
async fn a_joiner_answers_through_the_mesh_while_its_own_model_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let model = format!("--model={}", write_slow(folder.path()).display());
    let first = Node::start(&["--model=starter", "--node-name=first"]);
    let whole = first.ask(&asked("starter")).await.content_of(TOKENS).await;

    let joiner = Node::join(&first.ticket(), &[&model, "--node-name=joiner"]);
    let joined = Instant::now();
    assert_eq!(joiner.text("mesh_id"), first.text("mesh_id"));
    let answered = timeout(ANSWERS_MAX, first_answer(&joiner, "starter")).await;
    let (host, words) = answered.expect("no answer within two seconds of joining");
    eprintln!("answered {:.0?} after it had joined", joined.elapsed());
    assert!(host.unwrap().starts_with("first ("));
    assert_eq!(words, whole);
    let status = joiner.status().await;
    assert_eq!(
        status["models"][0]["state"], "loading",
        "its own model was there too soon for this test to tell anything: {status:#}"
    );

    // It goes over to its own model, and nobody loses anything.
    let asking = (0..STREAMS).map(|_| asks_until_own(&joiner));
    let before = timeout(LOADED_MAX, futures::future::join_all(asking)).await;
    let before = before.expect("its own model never answers");
    assert!(before.iter().all(|count| *count > 0), "{before:?}");
    // What it has not itself it still gets from the mesh.
    let answer = joiner.ask(&asked("starter")).await;
    assert!(answer.host.as_ref().unwrap().starts_with("first ("));
    assert_eq!(answer.content_of(TOKENS).await, whole);
}
