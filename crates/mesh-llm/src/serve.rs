//! The default command: opens the APIs, gets the node into its mesh, loads the models, and stops
//! in order.

mod announce;
mod entry;
mod news;
mod servers;

use std::time::Duration;

use mesh::admission::Invite;
use mesh::ticket::Ticket;
use node::{MeshRequestError, Node, StartError};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use self::news::Teller;
use self::servers::Servers;
use crate::console::Console;
use crate::failure::Failure;
use crate::lock::{self, Lock};
use crate::progress::show_loading;
use crate::settings::{Settings, Way};

/// How long the news that the node is ready may wait for its ticket, which takes seconds where
/// relays do not answer. Without relays it is there in a moment.
const TICKET_PATIENCE: Duration = Duration::from_millis(200);

/// A ticket that is being made. It ends with its owner.
type TicketTask = AbortOnDropHandle<Result<Ticket, MeshRequestError>>;

/// Serves until a signal or a failure.
pub(crate) async fn run(mut settings: Settings) -> Result<(), Failure> {
    let console = Console::new(settings.log_format);
    let mut signals = Signals::new()?;
    let _lock = claim_key(&mut settings, console)?;
    // In this order, so that a bad model file is told before a port is opened, and a busy port
    // before minutes are spent on loading.
    let node = Node::start(settings.node.clone()).await?;
    let mut servers = Servers::open(&node, &settings, console).await?;

    let begun = tokio::select! {
        begun = begin(&node, &settings, console) => Some(begun),
        failure = servers.failed() => Some(Err(failure)),
        _ = signals.next() => None,
    };
    let result = match begun {
        Some(Ok(ticket)) => {
            let serving = serve(&node, &settings, &mut servers, ticket);
            tokio::select! {
                failure = serving => Err(failure),
                _ = signals.next() => Ok(()),
            }
        }
        Some(Err(failure)) => {
            tokio::select! {
                // The others need not wait for this node's heartbeat.
                () = node.shutdown(Duration::ZERO) => {}
                _ = signals.next() => {}
            }
            return Err(failure);
        }
        // Told to stop before it was ready: it may serve one model while another is loaded.
        None => Ok(()),
    };
    if result.is_ok() {
        console.say("stopping: running answers may finish; press Ctrl-C again to stop at once");
    }
    console.event(
        "stopping",
        json!({ "grace_seconds": settings.grace.as_secs() }),
    );
    tokio::select! {
        () = servers.stop(&node, settings.grace) => {}
        // The second signal: no destructors, no waiting.
        code = signals.next() => std::process::exit(code),
    }
    result?;
    console.event("stopped", json!({}));
    Ok(())
}

/// Makes sure that no other process uses the node's key. If one does, or nothing can be kept, the
/// key is of this run alone.
fn claim_key(settings: &mut Settings, console: Console) -> Result<Option<Lock>, Failure> {
    let Some(home) = settings.node.mesh.home.clone() else {
        return Ok(None);
    };
    let reason = match lock::take(&home) {
        Ok(Some(lock)) => return Ok(Some(lock)),
        Ok(None) => format!(
            "another mesh-llm runs with the key in {}; hint: stop it, or name another folder with MESH_LLM_HOME",
            home.display()
        ),
        Err(failure) => failure.message().to_owned(),
    };
    match settings.way {
        Way::Rejoin => return Err(Failure::other(reason)),
        Way::Open { .. } | Way::Join(_) => console.warn(
            "key_of_this_run",
            &format!("this node's key is of this run alone: {reason}"),
        ),
        // It may be told to join later; that is soon enough to care.
        Way::Alone | Way::Idle => {}
    }
    settings.node.mesh.home = None;
    Ok(None)
}

/// Gets the node to where it can be called ready. Gives the ticket of its own mesh, still being
/// made, if it opened one.
async fn begin(
    node: &Node,
    settings: &Settings,
    console: Console,
) -> Result<Option<TicketTask>, Failure> {
    match &settings.way {
        Way::Alone | Way::Idle => {
            load(node, console).await?;
            Ok(None)
        }
        Way::Open { name } => {
            let opening = entry::open(node, name.as_deref(), console);
            let loading = async { load(node, console).await.map_err(Failure::from) };
            // A port that is taken is told before minutes are spent on loading.
            let (opened, ()) = tokio::try_join!(opening, loading)?;
            Ok(opened)
        }
        // Requests go through the mesh while this node's own models load.
        Way::Join(ticket) => {
            entry::join(node, &settings.node.mesh, ticket).await?;
            Ok(None)
        }
        Way::Rejoin => {
            node.rejoin(None).await?;
            Ok(None)
        }
    }
}

async fn load(node: &Node, console: Console) -> Result<(), StartError> {
    show_loading(node, console).await;
    node.ready().await
}

/// Tells that the node is ready, then what happens, until something fails.
async fn serve(
    node: &Node,
    settings: &Settings,
    servers: &mut Servers,
    mut making: Option<TicketTask>,
) -> Failure {
    let console = Console::new(settings.log_format);
    let mut ticket = None;
    if let Some(task) = &mut making {
        if let Ok(made) = tokio::time::timeout(TICKET_PATIENCE, task).await {
            making = None;
            ticket = announce::made(made, console);
        } else if console.is_json() {
            // A program waits for one event, and on the local network this ticket will do.
            ticket = node.invite_now(Invite::default()).await.ok();
        }
    }
    // Before the announcement, so that nothing is lost between the two.
    let telling = Teller::new(node, console).tell();
    announce::ready(node, settings, servers, ticket.as_ref());
    if let Some(ticket) = &ticket
        && making.is_none()
    {
        announce::ticket(ticket, console);
    }
    console.say("Ctrl-C stops.");
    let failing = first_failure(node);
    tokio::pin!(failing, telling);
    loop {
        let late = async {
            match &mut making {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            failure = servers.failed() => return failure,
            error = &mut failing => return error.into(),
            made = late => {
                making = None;
                if let Some(ticket) = announce::made(made, console) {
                    announce::ticket(&ticket, console);
                }
            }
            () = &mut telling => return Failure::other("the node stopped by itself"),
        }
    }
}

/// Waits until a model that was asked for at the start has failed.
async fn first_failure(node: &Node) -> StartError {
    match node.ready().await {
        Err(error) => error,
        Ok(()) => std::future::pending().await,
    }
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
