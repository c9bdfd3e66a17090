//! The worker's side: stages that hosts have leased.
//!
//! One task, the keeper, owns the [table of leases](crate::lease) and the layers that wait for their
//! host to come back. A `session` talks to a host; its `stage` is loaded, connected and run; `flow` passes
//! frames through it.

mod body;
mod flow;
mod gaps;
mod keeper;
mod session;
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gguf::Fingerprint;
use mesh::NodeId;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dock::Dock;
use crate::fault::Refusal;
use crate::layers::LayerSource;
use crate::lease::Ask;
use crate::spec::{RingId, StageSpec};
use crate::trail::TrailRoom;
use crate::transport::{Duplex, Transport};
use crate::weights::StopOnDrop;
use crate::wire::Pace;
use body::Body;
pub use flow::FRAMES_HELD_MAX;
pub(crate) use flow::{is_finite, send};
use keeper::Command;
pub use keeper::Usage;

/// Hosts that a worker talks to at a time, those that wait among them.
const SESSIONS_MAX: usize = 64;

/// Sessions of one host: an old one that ends, a new one, and some other rings.
const SESSIONS_PER_HOST_MAX: usize = 8;

/// Commands on their way to the keeper. Each session keeps a place for its last one.
const COMMANDS_MAX: usize = 2 * SESSIONS_MAX;

/// A worker says so often that it lives. Several fit into the host's patience.
pub(crate) const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a host that wants to know how fast this machine is waits for its turn.
const PACE_WAIT_MAX: Duration = Duration::from_secs(15);

/// Pause between two looks whether a machine that measures itself is still free to.
const FREE_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What a worker needs of its machine.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) source: Arc<dyn LayerSource>,
    pub(crate) dock: Arc<Dock>,
    pub(crate) stop: CancellationToken,
    /// This machine takes no new stages, and hosts are to go elsewhere.
    pub(crate) leaving: CancellationToken,
}

/// A handle on the worker of this process.
#[derive(Clone)]
pub(crate) struct Worker {
    machine: Machine,
    commands: mpsc::Sender<Command>,
    sessions: Arc<session::Count>,
    /// For the rows that stages pass on.
    trails: Arc<TrailRoom>,
    /// Held while this machine measures itself.
    measures: Arc<Mutex<()>>,
}

/// A lease that was granted. The keeper gets the layers back when this is dropped.
pub(crate) struct Granted {
    ring: RingId,
    epoch: u32,
    /// Says that the lease has ended.
    end: CancellationToken,
    /// That of the epoch before, if the same layers are wanted; then that which was loaded.
    body: Option<Body>,
    back: Option<mpsc::OwnedPermit<Command>>,
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(permit) = self.back.take() {
            permit.send(Command::Back {
                ring: self.ring,
                epoch: self.epoch,
                body: self.body.take(),
            });
        }
    }
}

impl Worker {
    /// Starts the keeper.
    pub(crate) fn start(machine: Machine, budget_bytes: u64, tasks: &TaskTracker) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let stop = machine.stop.clone();
        tasks.spawn(keeper::run(receiver, budget_bytes, stop));
        Self {
            machine,
            commands,
            sessions: Arc::default(),
            trails: Arc::new(TrailRoom::beside(budget_bytes)),
            measures: Arc::default(),
        }
    }

    /// Talks to a host until its stage ends.
    pub(crate) async fn serve(&self, host: NodeId, stream: Duplex) {
        session::run(self, host, stream).await;
    }

    /// How fast this machine computes a model that `host` has. What is known is told at once, the rest is found out, one
    /// model after the other.
    pub(crate) async fn pace(&self, host: NodeId, model: Fingerprint) -> Option<Pace> {
        let is_busy = Arc::new(AtomicBool::new(true));
        let known = self.find_out(host, model, is_busy).await.ok().flatten();
        if known.is_some() {
            return known;
        }
        let _turn = timeout(PACE_WAIT_MAX, self.measures.lock()).await.ok()?;
        // Nothing is fetched any more when this future is dropped.
        let stop = StopOnDrop::default();
        stop.0.store(self.is_busy().await, Ordering::Relaxed);
        let mut found = self.find_out(host, model, Arc::clone(&stop.0));
        loop {
            tokio::select! {
                pace = &mut found => return pace.ok().flatten(),
                () = sleep(FREE_LOOK_INTERVAL) => {
                    stop.0.store(self.is_busy().await, Ordering::Relaxed);
                }
            }
        }
    }

    fn find_out(
        &self,
        host: NodeId,
        model: Fingerprint,
        is_busy: Arc<AtomicBool>,
    ) -> JoinHandle<Option<Pace>> {
        let source = Arc::clone(&self.machine.source);
        spawn_blocking(move || source.pace(host, model, &|| !is_busy.load(Ordering::Relaxed)))
    }

    /// Whether stages of others are here, or no more may come.
    async fn is_busy(&self) -> bool {
        let Machine { stop, leaving, .. } = &self.machine;
        stop.is_cancelled() || leaving.is_cancelled() || self.usage().await.rings > 0
    }

    /// Changes how much memory is given.
    pub(crate) async fn set_budget(&self, budget_bytes: u64) {
        self.trails.set_beside(budget_bytes);
        // Fails only when the worker has stopped, and then nothing is given anyway.
        let _ = self.commands.send(Command::Budget(budget_bytes)).await;
    }

    /// Frees layers of a model that wait for a host that is gone.
    pub(crate) async fn free_parked(&self, model: Fingerprint) {
        // As above.
        let _ = self.commands.send(Command::Free(model)).await;
    }

    /// What is leased.
    pub(crate) async fn usage(&self) -> Usage {
        let (sender, receiver) = oneshot::channel();
        let _ = self.commands.send(Command::Usage(sender)).await;
        receiver.await.unwrap_or_default()
    }

    async fn renew(&self, ring: RingId, epoch: u32) {
        // As above.
        let _ = self.commands.send(Command::Renew(ring, epoch)).await;
    }

    async fn release(&self, ring: RingId, epoch: u32) {
        // As above.
        let _ = self.commands.send(Command::Release(ring, epoch)).await;
    }

    async fn ask(&self, ask: Ask<NodeId>, spec: StageSpec) -> Result<Granted, Refusal> {
        let stopped = || Refusal::NoModel {
            text: "the machine leaves".to_owned(),
        };
        if self.machine.leaving.is_cancelled() {
            return Err(stopped());
        }
        let back = self.commands.clone().reserve_owned().await;
        let back = back.map_err(|_| stopped())?;
        let (granted, receiver) = oneshot::channel();
        let command = Command::Ask {
            ask,
            spec,
            back,
            granted,
        };
        self.commands.send(command).await.map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }
}
