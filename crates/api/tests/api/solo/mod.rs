//! The API over real HTTP on real models: the starter model and small random ones.
//!
//! Nothing here depends on what a model knows, only on what the server promises of any model.

mod answers;
mod constraints;
mod limits;
mod load;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Config;
use engine::{Backend, Draft, Engine, LoadOptions, ModelSource};
use serde_json::{Value, json};
use testkit::model::{Architecture, ModelSpec, write};

use crate::server::{Server, json};

/// The model inside the program.
fn starter() -> LoadOptions {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/starter.gguf");
    LoadOptions {
        name: Some("starter".to_owned()),
        context_tokens: Some(2048),
        slots: Some(4),
        ..LoadOptions::new(ModelSource::Path(path))
    }
}

/// A random model of `architecture`, as a file of this test alone.
fn random(architecture: Architecture) -> (tempfile::TempDir, LoadOptions) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("random.gguf");
    let spec = ModelSpec {
        // Long enough for the template's tools.
        context: 2048,
        ..ModelSpec::tiny(architecture)
    };
    write(&spec, &path).unwrap();
    (folder, LoadOptions::new(ModelSource::Path(path)))
}

async fn load(options: LoadOptions) -> Arc<Engine> {
    let loading = tokio::task::spawn_blocking(|| Engine::load(options, |_| {}));
    Arc::new(loading.await.unwrap().unwrap())
}

/// A server of one model, and the model.
async fn serve(options: LoadOptions) -> (Server, Arc<Engine>) {
    let engine = load(options).await;
    (Server::start(engine.clone()).await, engine)
}

/// Waits until nothing runs or waits.
async fn until_idle(engine: &Engine) {
    loop {
        let load = engine.load();
        if load.running == 0 && load.waiting == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A chat request with the members of `more`; greedy unless they say otherwise.
fn chat(text: &str, more: &Value) -> Value {
    let mut body = json!({
        "messages": [{ "role": "user", "content": text }], "temperature": 0, "max_tokens": 48,
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The answer to a request that must succeed.
async fn ask(server: &Server, path: &str, body: &Value) -> Value {
    let (status, answer) = json(server.post(path, body).send().await.unwrap()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn ask_chat(server: &Server, text: &str, more: &Value) -> Value {
    ask(server, "/v1/chat/completions", &chat(text, more)).await
}

/// The text of the first choice.
fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

/// The chunks of a stream that must end well.
async fn chunks(server: &Server, path: &str, mut body: Value) -> Vec<Value> {
    body["stream"] = true.into();
    let response = server.post(path, &body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    let events = text
        .strip_suffix("data: [DONE]\n\n")
        .unwrap_or_else(|| panic!("{text}"));
    events
        .split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'))
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

/// The starter and an embedding model behind a key, for the SDKs.
pub(crate) async fn for_clients(api_key: &str) -> (tempfile::TempDir, Server) {
    let (folder, options) = random(Architecture::NomicBert);
    let embedder = LoadOptions {
        name: Some("embedder".to_owned()),
        draft: Draft::None,
        ..options
    };
    let config = Config {
        api_key: Some(api_key.to_owned()),
        ..Config::default()
    };
    let models: Vec<Arc<dyn Backend>> = vec![load(starter()).await, load(embedder).await];
    (folder, Server::with(models, config).await)
}
