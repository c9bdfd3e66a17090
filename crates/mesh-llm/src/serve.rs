//! The default command: loads the models, opens the API, and stops in order.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use node::{ModelState, Node};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::console::Console;
use crate::failure::Failure;
use crate::key;
use crate::settings::Settings;

/// How long after the grace time the server may take to write what it still holds.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// A program is told of loading in steps of this share.
const PROGRESS_STEP: f32 = 0.1;

/// Serves until a signal or a failure.
pub(crate) async fn run(settings: Settings) -> Result<(), Failure> {
    let console = Console::new(settings.log_format);
    let mut signals = Signals::new()?;
    check_models(&settings)?;
    // In this order, so that a bad model file is told before a port is opened, and a busy port
    // before minutes are spent on loading.
    let node = Node::start(settings.node.clone()).await?;
    let listener = bind(&settings).await?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::port(error.to_string()))?;
    let key = api_key(&settings)?;
    let config = api::Config {
        api_key: key.as_ref().map(|key| key.text.clone()),
        listen_all: settings.listen_all,
        hosts: settings.hosts.clone(),
        cors_origins: settings.cors_origins.clone(),
        ..api::Config::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = api::serve(listener, node.clone(), config, async {
        // A dropped sender means the same: stop.
        let _ = stopped.await;
    });
    let mut server = AbortOnDrop(tokio::spawn(serving));

    tokio::select! {
        () = show_loading(&node, console) => {}
        ended = &mut server.0 => return Err(server_failure(ended)),
        _ = signals.next() => {
            node.shutdown(Duration::ZERO).await;
            return Ok(());
        }
    }
    node.ready().await?;
    announce(console, &node, address, key.as_ref(), &settings);

    tokio::select! {
        ended = &mut server.0 => return Err(server_failure(ended)),
        _ = signals.next() => {}
    }
    console.say("stopping: running answers may finish; press Ctrl-C again to stop at once");
    console.event(
        "stopping",
        json!({ "grace_seconds": settings.grace.as_secs() }),
    );
    let finish = finish(&node, stop, &mut server, settings.grace);
    tokio::select! {
        () = finish => {}
        // The second signal: no destructors, no waiting.
        code = signals.next() => std::process::exit(code),
    }
    console.event("stopped", json!({}));
    Ok(())
}

/// The orderly stop: no new connections, running answers within `grace`, then the end.
async fn finish(
    node: &Node,
    stop: oneshot::Sender<()>,
    server: &mut AbortOnDrop<std::io::Result<()>>,
    grace: Duration,
) {
    // Only fails when the server is gone already.
    let _ = stop.send(());
    node.shutdown(grace).await;
    if tokio::time::timeout(FLUSH_MAX, &mut server.0)
        .await
        .is_err()
    {
        tracing::warn!("connections were still open");
    }
}

#[cfg(feature = "solo")]
fn check_models(_: &Settings) -> Result<(), Failure> {
    Ok(())
}

#[cfg(not(feature = "solo"))]
fn check_models(_: &Settings) -> Result<(), Failure> {
    Err(node::StartError::NoEngine.into())
}

async fn bind(settings: &Settings) -> Result<TcpListener, Failure> {
    let ip = if settings.listen_all {
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::LOCALHOST
    };
    let address = SocketAddr::new(IpAddr::V4(ip), settings.port);
    TcpListener::bind(address).await.map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::AddrInUse => {
                "it is in use; hint: another mesh-llm may be running; choose another port with --port, or --port 0 for any free one".to_owned()
            }
            ErrorKind::PermissionDenied => {
                "not allowed; hint: choose a port of 1024 or above with --port".to_owned()
            }
            _ => error.to_string(),
        };
        Failure::port(format!("can't open port {}: {reason}", settings.port))
    })
}

/// The key that requests need: none on loopback unless one is set.
fn api_key(settings: &Settings) -> Result<Option<key::Key>, Failure> {
    match &settings.api_key {
        Some(text) => Ok(Some(key::Key {
            text: text.clone(),
            is_new: false,
        })),
        None if settings.listen_all => key::kept_or_new(&settings.home).map(Some),
        None => Ok(None),
    }
}

fn server_failure(ended: Result<std::io::Result<()>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::other("the API stopped by itself"),
        Ok(Err(error)) => Failure::other(format!("the API stopped: {error}")),
        Err(_) => Failure::other("the API failed; hint: what went wrong is told above"),
    }
}

/// Shows how far the models are, until all are ready or one has failed.
pub(crate) async fn show_loading(node: &Node, console: Console) {
    let mut watch = node.watch();
    let mut view = LoadingView {
        console,
        bar: None,
        told: None,
    };
    loop {
        let snapshot = watch.borrow_and_update().clone();
        let is_failed =
            |model: &node::ModelStatus| matches!(model.state, ModelState::Failed { .. });
        if snapshot.is_ready() || snapshot.models.iter().any(is_failed) {
            break;
        }
        let loading = snapshot.models.iter().find_map(|model| match model.state {
            ModelState::Loading { progress } => Some((&model.name, progress)),
            _ => None,
        });
        if let Some((name, progress)) = loading {
            view.show(name, progress);
        }
        if watch.changed().await.is_err() {
            break;
        }
    }
    view.clear();
}

/// The bar, or the events, of the model that is being loaded.
struct LoadingView {
    console: Console,
    bar: Option<(String, ProgressBar)>,
    told: Option<(String, f32)>,
}

impl LoadingView {
    fn show(&mut self, model: &str, progress: f32) {
        if self.console.is_json() {
            let is_news = match &self.told {
                Some((told, share)) => told != model || progress >= share + PROGRESS_STEP,
                None => true,
            };
            if is_news {
                self.told = Some((model.to_owned(), progress));
                self.console
                    .event("loading", json!({ "model": model, "progress": progress }));
            }
            return;
        }
        if !self.console.is_watched() {
            return;
        }
        if self.bar.as_ref().is_none_or(|(shown, _)| shown != model) {
            self.clear();
            self.bar = Some((model.to_owned(), bar(model)));
        }
        if let Some((_, bar)) = &self.bar {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share between 0 and 1"
            )]
            bar.set_position((progress * 100.0) as u64);
        }
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(model: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("loading {msg} {bar:30} {percent} %")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(100)
        .with_style(style)
        .with_message(model.to_owned())
}

fn announce(
    console: Console,
    node: &Node,
    address: SocketAddr,
    key: Option<&key::Key>,
    settings: &Settings,
) {
    let models: Vec<String> = node
        .models()
        .iter()
        .map(|model| model.name.clone())
        .collect();
    let url = format!("http://127.0.0.1:{}/v1", address.port());
    console.event(
        "ready",
        json!({
            "api_url": url,
            "models": models,
            "listen": address.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
        }),
    );
    let named: Vec<String> = models.iter().map(|name| format!("`{name}`")).collect();
    console.say(&format!("mesh-llm serves {} at {url}", named.join(", ")));
    if settings.listen_all {
        console.say(&format!(
            "other machines reach it on port {}",
            address.port()
        ));
    }
    let mut auth = "";
    if let Some(key) = key {
        auth = " -H \"Authorization: Bearer $MESH_LLM_API_KEY\"";
        if key.is_new {
            // The key must not be lost in JSON mode either, and stdout may be a log file.
            eprintln!("API key, shown this once: {}", key.text);
            eprintln!("it is kept in {}", key::file(&settings.home).display());
        } else if settings.api_key.is_none() {
            let file = key::file(&settings.home);
            console.say(&format!("the API key is in {}", file.display()));
        }
    }
    let model = models.first().map_or("auto", String::as_str);
    let body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": "What is mesh-llm?" }],
    });
    console.say(&format!(
        "\nTry it:\n  curl {url}/chat/completions -H 'Content-Type: application/json'{auth} -d '{body}'\nor, in another terminal:\n  mesh-llm chat\nCtrl-C stops."
    ));
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::other(format!("can't handle signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for one; gives the exit code that a shell expects for it.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
