//! Models that do not fit on one machine, without anybody asking for a split.

use serde_json::{Value, json};

use crate::process::Program;
use crate::several::{Node, question};

/// With this context the model takes more than the machine may give, and much less on two.
const ROOM: [&str; 2] = ["--ctx-size=65536", "--max-vram=0.6"];

fn shelf() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");
    std::fs::copy(starter, folder.path().join("six.gguf")).unwrap();
    let path = format!("--models-dir={}", folder.path().display());
    (folder, path)
}

fn asked() -> Value {
    let mut question = question(24, true);
    question["model"] = "six".into();
    question
}

/// The model waits, says for what, and runs as soon as there is a machine.
async fn comes(host: &Node) {
    host.until(|status| {
        let model = &status["models"][0];
        let reason = model["reason"].as_str().unwrap_or_default();
        model["state"] == "waiting" && reason.contains("hint: run `mesh-llm --join TICKET`")
    })
    .await;
    // Its owner wants no models of others: else it would fetch the file and run the whole model.
    let empty = tempfile::tempdir().unwrap();
    let nothing = format!("--models-dir={}", empty.path().display());
    let worker = Node::join(
        &host.ticket(),
        &[&nothing, "--standby", "--ctx-size=65536", "--no-split"],
    );
    host.until(|status| status["models"][0]["state"] == "ready")
        .await;
    let status = host.status().await;
    let split = &status["models"][0]["split"];
    assert_eq!(split["stages"].as_array().unwrap().len(), 2, "{split:#}");
    assert!(!host.ask(&asked()).await.content().await.is_empty());
    drop(worker);
}

#[tokio::test]
async fn the_first_machine_of_a_mesh_waits_for_others_that_run_what_does_not_fit() {
    let (_shelf, models) = shelf();
    let host = Node::start(&[&ROOM[..], &[&models, "--model=six"]].concat());
    comes(&host).await;
}

#[tokio::test]
async fn a_model_that_is_loaded_later_and_does_not_fit_is_split_too() {
    let (_shelf, models) = shelf();
    let host = Node::start(&[&ROOM[..], &[&models, "--name=home"]].concat());
    let url = format!("{}/api/models/load", host.text("console_url"));
    let load = reqwest::Client::new()
        .post(url)
        .json(&json!({ "model": "six" }));
    let response = load.send().await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    comes(&host).await;
}

#[tokio::test]
async fn a_machine_without_the_file_fetches_it_and_runs_all_of_the_model() {
    let (_shelf, models) = shelf();
    let host = Node::start(&[&ROOM[..], &[&models, "--model=six"]].concat());
    let empty = tempfile::tempdir().unwrap();
    let nothing = format!("--models-dir={}", empty.path().display());
    let _worker = Node::join(&host.ticket(), &[&nothing, "--standby", "--ctx-size=65536"]);
    host.until(|status| status["models"][0]["state"] == "elsewhere")
        .await;
    host.knows("six", 1).await;
    assert!(!host.ask(&asked()).await.content().await.is_empty());
}

#[test]
fn whoever_wants_no_split_is_told_what_is_missing() {
    let (_shelf, models) = shelf();
    for unwilling in ["--no-split", "--no-mesh"] {
        let arguments = [&ROOM[..], &[&models, "--model=six", unwilling]].concat();
        let run = Program::node(&arguments).run();
        assert_eq!(run.code, Some(3), "{}", run.stdout);
        let error = run.events().pop().unwrap();
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("not enough memory for `six`: "),
            "{message}"
        );
    }
}
