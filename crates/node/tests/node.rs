//! A node on made-up models: names, loading, refusals, shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use engine::{
    Backend, Chat, EmbedInput, EmbedRequest, Embeddings, Error, Event, EventStream, Input, Load,
    ModelInfo, Request, Summary, TokenId,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use node::{Loader, ModelSource, ModelState, Node, Plan, Progress, Settings, StartError};

struct Fake {
    info: Arc<ModelInfo>,
    stopped: Mutex<Option<Instant>>,
}

fn fake(name: &str, generates: bool) -> Arc<Fake> {
    Arc::new(Fake {
        info: Arc::new(ModelInfo {
            name: name.into(),
            architecture: "qwen3".into(),
            quantization: "Q8_0".into(),
            parameters: 1,
            size_bytes: 1,
            context_tokens: 64,
            trained_context_tokens: 64,
            embedding_width: 1,
            vocabulary_tokens: 1,
            slots: 1,
            generates,
            embeds: !generates,
            tools: false,
            reasoning: false,
            created_unix_s: 0,
            fingerprint: String::new(),
        }),
        stopped: Mutex::new(None),
    })
}

impl Backend for Fake {
    fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }
    fn load(&self) -> Load {
        Load {
            running: 7,
            ..Load::default()
        }
    }
    fn generate(&self, _: Request) -> BoxFuture<'_, Result<EventStream, Error>> {
        Box::pin(async {
            let events = futures::stream::iter([Ok(Event::Done(Summary::default()))]);
            Ok(events.boxed())
        })
    }
    fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        Box::pin(async { Ok(Embeddings::default()) })
    }
    fn tokenize(&self, _: String, _: bool, _: bool) -> BoxFuture<'_, Result<Vec<TokenId>, Error>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn token_bytes(&self, _: Vec<TokenId>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Error>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn render(&self, _: Chat) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(async { Ok(String::new()) })
    }
    fn shutdown(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            *self.stopped.lock().unwrap() = Some(deadline);
        })
    }
}

/// Loads fakes; a model whose name starts with `bad` fails; each load waits for a permit.
struct FakeLoader {
    needed_bytes: u64,
    free_bytes: u64,
    permits: Mutex<mpsc::Receiver<()>>,
}

fn loader(needed_bytes: u64, free_bytes: u64) -> (mpsc::Sender<()>, Arc<FakeLoader>) {
    let (permit, permits) = mpsc::channel();
    let permits = Mutex::new(permits);
    let loader = FakeLoader {
        needed_bytes,
        free_bytes,
        permits,
    };
    (permit, Arc::new(loader))
}

impl Loader for FakeLoader {
    fn memory_needed(&self, plan: &Plan) -> Result<u64, Error> {
        if plan.name.starts_with("unreadable") {
            return Err(Error::Load("the file is cut off".into()));
        }
        Ok(self.needed_bytes)
    }
    fn load(&self, plan: Plan, mut progress: Progress) -> Result<Arc<dyn Backend>, Error> {
        progress(0.5);
        self.permits
            .lock()
            .unwrap()
            .recv()
            .map_err(|_| Error::Load("nobody waits".into()))?;
        assert!(!plan.name.starts_with("faulty"), "a bug in the loader");
        if plan.name.starts_with("bad") {
            return Err(Error::Load("unknown architecture".into()));
        }
        Ok(fake(&plan.name, true))
    }
    fn memory_available(&self) -> u64 {
        self.free_bytes
    }
}

fn settings(names: &[&str]) -> Settings {
    Settings {
        models: names
            .iter()
            .map(|name| ModelSource::Embedded {
                name: (*name).to_owned(),
                bytes: b"",
            })
            .collect(),
        ..Settings::default()
    }
}

fn request(model: &str) -> Request {
    Request::new(model, Input::Text("hi".into()))
}

#[tokio::test]
async fn names_find_backends() {
    let node = Node::from_backends(vec![fake("Emb", false), fake("Chat-1B", true)]);
    for (asked, found) in [
        ("", "Chat-1B"),
        ("auto", "Chat-1B"),
        ("Chat-1B", "Chat-1B"),
        ("chat-1b", "Chat-1B"),
        ("chat-1B.gguf", "Chat-1B"),
        ("emb", "Emb"),
    ] {
        assert_eq!(
            node.resolve(asked).await.unwrap().info().name,
            found,
            "{asked}"
        );
    }
    assert_eq!(
        node.resolve_for_embedding("").await.unwrap().info().name,
        "Emb"
    );
    let Err(Error::ModelNotFound { hint, .. }) = node.resolve("nope").await else {
        panic!("`nope` was found");
    };
    assert_eq!(hint, "served here: `Emb`, `Chat-1B`");
    assert!(node.generate(request("auto")).await.is_ok());
    assert!(matches!(
        node.generate(request("Emb")).await,
        Err(Error::Unsupported(_))
    ));
    let embed = EmbedRequest {
        model: "chat-1b".into(),
        inputs: vec![EmbedInput::Text("x".into())],
    };
    assert!(matches!(
        node.embed(embed).await,
        Err(Error::Unsupported(_))
    ));
}

#[tokio::test]
async fn a_node_without_models_is_ready_and_says_so() {
    let node = Node::from_backends(Vec::new());
    node.ready().await.unwrap();
    assert!(node.snapshot().is_ready() && node.models().is_empty());
    assert!(matches!(
        node.resolve("auto").await,
        Err(Error::ModelNotFound { .. })
    ));
}

#[tokio::test]
async fn models_load_one_after_the_other_and_show_progress() {
    let (permit, loader) = loader(1, 10);
    let node = Node::start_with(settings(&["a", "b"]), loader)
        .await
        .unwrap();
    let mut watch = node.watch();
    watch
        .wait_for(|snapshot| snapshot.models[0].state == ModelState::Loading { progress: 0.5 })
        .await
        .unwrap();
    let Err(Error::ModelNotFound { hint, .. }) = node.resolve("a").await else {
        panic!("`a` can't be ready");
    };
    assert_eq!(hint, "`a` is still loading (50 %)");
    permit.send(()).unwrap();
    watch
        .wait_for(|snapshot| snapshot.models[0].state == ModelState::Ready)
        .await
        .unwrap();
    assert!(!node.snapshot().is_ready());
    permit.send(()).unwrap();
    node.ready().await.unwrap();
    let names: Vec<_> = node
        .models()
        .iter()
        .map(|model| model.name.clone())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(node.snapshot().models[0].load.running, 7);
}

#[tokio::test]
async fn one_bad_model_fails_the_start_and_the_others_serve() {
    check_failure("bad", "can't load `bad`: unknown architecture").await;
    // A bug of ours: what Rust says of the thread that died helps nobody.
    let told = "can't load `faulty`: mesh-llm itself failed; hint: what went wrong is told above";
    check_failure("faulty", told).await;
}

#[tokio::test]
async fn a_model_that_is_asked_for_later_may_fail() {
    let (permit, loader) = loader(1, 10);
    let node = Node::start_with(settings(&["good"]), loader).await.unwrap();
    for later in settings(&["bad", "other"]).models {
        node.load_model(later).await.unwrap();
    }
    for _ in 0..2 {
        permit.send(()).unwrap();
    }
    // The snapshot may be older than the second one.
    let failed = |snapshot: &Arc<node::Snapshot>| {
        let second = snapshot.models.get(1);
        second.is_some_and(|model| matches!(model.state, ModelState::Failed { .. }))
    };
    node.watch().wait_for(failed).await.unwrap();
    // The third is being loaded still.
    node.ready().await.unwrap();
    permit.send(()).unwrap();
}

async fn check_failure(model: &str, message: &str) {
    let (permit, loader) = loader(1, 10);
    let node = Node::start_with(settings(&[model, "good"]), loader)
        .await
        .unwrap();
    permit.send(()).unwrap();
    let error = node.ready().await.unwrap_err();
    assert_eq!(error.to_string(), message);
    permit.send(()).unwrap();
    node.watch()
        .wait_for(|snapshot| snapshot.models[1].state == ModelState::Ready)
        .await
        .unwrap();
    assert!(node.resolve("good").await.is_ok());
    let ModelState::Failed { reason } = &node.snapshot().models[0].state else {
        panic!("`{model}` must have failed");
    };
    assert_eq!(reason, &error.to_string());
}

#[tokio::test]
async fn refuses_before_loading() {
    async fn check(settings: Settings, free_bytes: u64, message: &str) {
        let (_permit, loader) = loader(1 << 30, free_bytes);
        let Err(error) = Node::start_with(settings, loader).await else {
            panic!("started, expected: {message}");
        };
        assert!(error.to_string().starts_with(message), "{error}");
    }
    check(
        settings(&["a", "b"]),
        3 << 29,
        "not enough memory for `a` (1.0 GiB) and `b` (1.0 GiB): 2.0 GiB needed, 1.5 GiB free; hint: ",
    )
    .await;
    check(
        settings(&["a"]),
        1 << 29,
        "not enough memory for `a`: 1.0 GiB needed, 512.0 MiB free; hint: ",
    )
    .await;
    check(
        settings(&["a", "a"]),
        1 << 40,
        "two models are called `a`; hint: ",
    )
    .await;
    check(
        settings(&["unreadable"]),
        1 << 40,
        "can't load `unreadable`: the file is cut off",
    )
    .await;
    let mut missing = settings(&[]);
    missing.models = vec![ModelSource::parse("/nowhere/x.gguf")];
    check(
        missing,
        1 << 40,
        "can't read /nowhere/x.gguf: there is no such file",
    )
    .await;
    let mut unknown = settings(&[]);
    unknown.models = vec![ModelSource::parse("x")];
    check(unknown, 1 << 40, "no model `x` on this machine; hint: ").await;
}

#[tokio::test]
async fn shutdown_refuses_the_new_and_stops_the_running() {
    let backend = fake("a", true);
    let node = Node::from_backends(vec![Arc::clone(&backend) as Arc<dyn Backend>]);
    let before = Instant::now();
    node.shutdown(Duration::from_secs(30)).await;
    assert!(node.is_shutting_down() && node.snapshot().shutting_down);
    assert!(backend.stopped.lock().unwrap().unwrap() >= before + Duration::from_secs(30));
    assert!(matches!(
        node.generate(request("a")).await,
        Err(Error::ShuttingDown)
    ));
    node.shutdown(Duration::MAX).await;
}

#[tokio::test]
async fn shutdown_while_loading_ends_the_wait() {
    let (permit, loader) = loader(1, 10);
    let node = Node::start_with(settings(&["a"]), loader).await.unwrap();
    node.shutdown(Duration::ZERO).await;
    assert_eq!(node.ready().await, Err(StartError::ShutDown));
    drop(permit);
}
