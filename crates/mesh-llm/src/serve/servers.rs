//! The two HTTP servers of a node: inference, and management unless it is off.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use api::{Api, management};
use node::Node;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use crate::console::Console;
use crate::failure::Failure;
use crate::key::{self, Key};
use crate::settings::{self, ConsolePort, Settings};

/// How long after the grace time a server may take to write what it still holds.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The running servers. They end with their owner.
pub(super) struct Servers {
    /// Where inference is served.
    pub(super) address: SocketAddr,
    /// Where management is served.
    pub(super) console: Option<SocketAddr>,
    /// The key that requests need.
    pub(super) key: Option<Key>,
    inference: Server,
    management: Option<Server>,
}

struct Server {
    task: AbortOnDropHandle<std::io::Result<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Servers {
    /// Opens the ports and serves `node` there.
    pub(super) async fn open(
        node: &Node,
        settings: &Settings,
        console: Console,
    ) -> Result<Self, Failure> {
        let listener = bind(settings, settings.port, "--port").await?;
        let console_listener = bind_console(settings, console).await?;
        let address = address_of(&listener)?;
        let console = console_listener.as_ref().map(address_of).transpose()?;
        let key = api_key(settings)?;
        let config = api::Config {
            api_key: key.as_ref().map(|key| key.text.clone()),
            listen_all: settings.listen_all,
            hosts: settings.hosts.clone(),
            cors_origins: settings.cors_origins.clone(),
            ..api::Config::default()
        };
        let api = Api::new(node.clone());
        let management = console_listener.map(|listener| {
            let config = management::Config {
                server: config.clone(),
                api_url: Some(api_url(address)),
                embedded: settings::starter().into_iter().collect(),
                ..management::Config::default()
            };
            let api = api.clone();
            Server::start(async move |stopped| {
                api.serve_management(listener, config, stopped).await
            })
        });
        let inference =
            Server::start(async move |stopped| api.serve(listener, config, stopped).await);
        Ok(Self {
            address,
            console,
            key,
            inference,
            management,
        })
    }

    /// Waits until one of them has ended by itself.
    pub(super) async fn failed(&mut self) -> Failure {
        let management = async {
            match &mut self.management {
                Some(server) => (&mut server.task).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut self.inference.task => failure("API", ended),
            ended = management => failure("management API", ended),
        }
    }

    /// The orderly stop: no new requests, running answers within `grace`, then the end. The
    /// management API can be asked until the node has stopped.
    pub(super) async fn stop(&mut self, node: &Node, grace: Duration) {
        self.inference.stop();
        node.shutdown(grace).await;
        self.inference.stopped().await;
        if let Some(management) = &mut self.management {
            management.stop();
            management.stopped().await;
        }
    }
}

impl Server {
    fn start<F>(serve: impl FnOnce(StopSignal) -> F) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let signal: StopSignal = Box::pin(async {
            // A dropped sender means the same: stop.
            let _ = stopped.await;
        });
        Self {
            task: AbortOnDropHandle::new(tokio::spawn(serve(signal))),
            stop: Some(stop),
        }
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Only fails when the server is gone already.
            let _ = stop.send(());
        }
    }

    async fn stopped(&mut self) {
        if self.task.is_finished() {
            return;
        }
        let ended = tokio::time::timeout(FLUSH_MAX, &mut self.task).await;
        if ended.is_err() {
            tracing::warn!("connections were still open");
        }
    }
}

/// Resolves when a server shall stop.
type StopSignal = futures::future::BoxFuture<'static, ()>;

/// URL of the inference API on this machine.
pub(super) fn api_url(address: SocketAddr) -> String {
    format!("http://127.0.0.1:{}/v1", address.port())
}

fn failure(name: &str, ended: Result<std::io::Result<()>, JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::other(format!("the {name} stopped by itself")),
        Ok(Err(error)) => Failure::other(format!("the {name} stopped: {error}")),
        Err(_) => Failure::other(format!(
            "the {name} failed; hint: what went wrong is told above"
        )),
    }
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::port(error.to_string()))
}

/// Opens the port of the management API. The usual one may be taken by another node: commands
/// can be told where this one is, so that is no failure.
async fn bind_console(
    settings: &Settings,
    console: Console,
) -> Result<Option<TcpListener>, Failure> {
    let Some(port) = settings.console.first_choice() else {
        return Ok(None);
    };
    let bound = bind(settings, port, "--console").await;
    if settings.console != ConsolePort::Usual || bound.is_ok() {
        return bound.map(Some);
    }
    let listener = bind(settings, 0, "--console").await?;
    let free = address_of(&listener)?.port();
    console.warn(
        "console_port_taken",
        &format!(
            "port {port} is taken, by another mesh-llm perhaps; commands reach this one with \
             --console {free}"
        ),
    );
    Ok(Some(listener))
}

async fn bind(settings: &Settings, port: u16, flag: &str) -> Result<TcpListener, Failure> {
    let ip = if settings.listen_all {
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::LOCALHOST
    };
    let address = SocketAddr::new(IpAddr::V4(ip), port);
    TcpListener::bind(address).await.map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "it is in use; hint: another mesh-llm may be running; choose another port with {flag}, or {flag} 0 for any free one"
            ),
            ErrorKind::PermissionDenied => {
                format!("not allowed; hint: choose a port of 1024 or above with {flag}")
            }
            _ => error.to_string(),
        };
        Failure::port(format!("can't open port {port}: {reason}"))
    })
}

/// The key that requests need: none on loopback unless one is set.
fn api_key(settings: &Settings) -> Result<Option<Key>, Failure> {
    match &settings.api_key {
        Some(text) => Ok(Some(Key {
            text: text.clone(),
            is_new: false,
        })),
        None if settings.listen_all => key::kept_or_new(&settings.home).map(Some),
        None => Ok(None),
    }
}
