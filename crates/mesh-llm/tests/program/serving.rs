//! From the start to the first answer.

use std::os::unix::fs::PermissionsExt;

use mesh_llm::{Engine, Error, Message};
use serde_json::json;

use crate::process::Program;

#[test]
fn json_output_is_json_and_says_when_it_is_ready() {
    let running = Program::serving(&["--log-level=trace"]).start();
    let ready = running.event("ready");
    assert_eq!(ready["models"], json!(["starter"]));
    let url = ready["api_url"].as_str().unwrap();
    let port = url
        .strip_prefix("http://127.0.0.1:")
        .unwrap()
        .strip_suffix("/v1")
        .unwrap();
    assert_ne!(port.parse::<u16>().unwrap(), 0);
    running.signal("TERM");
    let run = running.finish();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let events = run.events();
    assert!(events.iter().all(|event| event["event"].is_string()));
    assert_eq!(events.last().unwrap()["event"], "stopped");
}

#[test]
fn a_person_is_told_what_to_try_and_stdout_stays_empty() {
    let running = Program::new(["--port=0", "--model=starter"]).start();
    let url = running.line_on_stderr("mesh-llm serves `starter` at ");
    assert!(running.line_on_stderr("  curl ").contains(&url));
    running.line_on_stderr("Ctrl-C stops.");
    running.signal("INT");
    let run = running.finish();
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn settings_from_everywhere_meet() {
    // The file alone would fail; the variable and the flag win over it.
    let file = "model = \"nonesuch\"\nport = 1\nctx_size = 256\nlog_format = \"pretty\"";
    let running = Program::new(["--port=0", "--log-format=json"])
        .config(file)
        .env("MESH_LLM_MODEL", "starter")
        .start();
    let engine = Engine::connect(running.ready()).await.unwrap();
    let long = "word ".repeat(1000);
    let refused = engine.chat([Message::user(long)]).text().await;
    let Err(Error::ContextLengthExceeded { message }) = refused else {
        panic!("ctx_size of the file must hold: {refused:?}");
    };
    assert!(message.contains("256"), "{message}");
}

#[tokio::test]
async fn other_machines_need_the_key_that_was_printed_once() {
    let running = Program::serving(&["--listen-all"]).start();
    let url = running.ready();
    let printed = running.line_on_stderr("API key, shown this once: ");
    let file = running.home.path().join(".mesh-llm/api-key");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), printed);
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let refused = Engine::connect(url.as_str()).await;
    assert!(
        matches!(refused, Err(Error::Unauthorized { .. })),
        "{refused:?}"
    );
    let engine = Engine::connect(url.as_str())
        .api_key(printed.as_str())
        .await
        .unwrap();
    let answer = engine
        .chat([Message::user("Hello")])
        .max_tokens(8)
        .text()
        .await
        .unwrap();
    assert!(!answer.is_empty());

    let home = running.home.path().join(".mesh-llm");
    let again = Program::serving(&["--listen-all"])
        .env("MESH_LLM_HOME", home)
        .start();
    let engine = Engine::connect(again.ready())
        .api_key(printed.as_str())
        .await;
    assert!(engine.is_ok());
    again.signal("TERM");
    let run = again.finish();
    assert!(!run.stderr.contains(&printed) && !run.stdout.contains(&printed));
}

#[tokio::test]
async fn several_models_are_served_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf"),
        folder.path().join("Second.gguf"),
    )
    .unwrap();
    let folder = folder.path().display().to_string();
    let running =
        Program::node(&["--models-dir", &folder, "--model=second", "--model=starter"]).start();
    let ready = running.event("ready");
    assert_eq!(ready["models"], json!(["Second", "starter"]));
    let engine = Engine::connect(ready["api_url"].as_str().unwrap())
        .await
        .unwrap();
    assert_eq!(engine.models().await.unwrap(), ["Second", "starter"]);
    for model in ["Second", "starter"] {
        let request = engine.chat([Message::user("Hello")]).model(model);
        let answer = request.max_tokens(8).text().await.unwrap();
        assert!(!answer.is_empty(), "{model}");
    }
    let unknown = engine
        .chat([Message::user("Hello")])
        .model("nonesuch")
        .text()
        .await;
    assert!(
        matches!(unknown, Err(Error::ModelNotFound { .. })),
        "{unknown:?}"
    );
}
