//! One machine's part in all rings: the streams that come in find their way from here.

use std::sync::Arc;
use std::time::Duration;

use gguf::Fingerprint;
use mesh::NodeId;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dock::{self, Berth, Dock};
use crate::layers::{LayerSource, Loading};
use crate::ring::{Host, RaiseError, Ring, RingPlan, raise};
use crate::trail::{TRAIL_BYTES_MAX, TrailRoom};
use crate::transport::{Duplex, Transport};
use crate::wire::{Opening, Pace, read_message, read_opening, write_message};
use crate::worker::{Machine, Usage, Worker};

/// How long a new stream may keep to itself what it is for.
const OPENING_MAX: Duration = Duration::from_secs(10);

/// Pause between two looks whether all hosts have gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What a machine gives to the rings of others.
pub struct Offer {
    /// Where it gets layers from.
    pub source: Arc<dyn LayerSource>,
    /// Bytes that stages may take together.
    pub budget_bytes: u64,
}

/// A handle on this process's rings and stages; cheap to clone.
#[derive(Clone)]
pub struct Station {
    host: Host,
    worker: Option<Worker>,
    leaving: CancellationToken,
}

impl std::fmt::Debug for Station {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Station").finish_non_exhaustive()
    }
}

impl Station {
    /// A machine named `me`. Without an offer it runs no stages for others. Needs a tokio runtime.
    #[must_use]
    pub fn new(me: NodeId, transport: Arc<dyn Transport>, offer: Option<Offer>) -> Self {
        let host = Host {
            me,
            dock: Arc::new(Dock::default()),
            transport: Arc::clone(&transport),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            trails: Arc::new(TrailRoom::new(TRAIL_BYTES_MAX)),
        };
        let leaving = CancellationToken::new();
        let worker = offer.map(|offer| {
            let machine = Machine {
                transport,
                source: offer.source,
                dock: Arc::clone(&host.dock),
                stop: host.stop.clone(),
                leaving: leaving.clone(),
            };
            Worker::start(machine, offer.budget_bytes, &host.tasks)
        });
        Self {
            host,
            worker,
            leaving,
        }
    }

    /// Takes a stream that the member `peer` opened for stages, until what it is for is over. Spawn it
    /// for each such stream.
    pub async fn accept(&self, peer: NodeId, stream: Duplex) {
        let work = self.host.tasks.track_future(self.take(peer, stream));
        work.await;
    }

    async fn take(&self, peer: NodeId, mut stream: Duplex) {
        let message = timeout(OPENING_MAX, read_message(&mut stream.read)).await;
        let opening = match message {
            Ok(Ok(Some(bytes))) => read_opening(&bytes).map_err(|e| e.to_string()),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not say what it is for".to_owned()),
        };
        match opening {
            Ok(Opening::Control) => match &self.worker {
                Some(worker) => worker.serve(peer, stream).await,
                None => tracing::debug!(peer = peer.short(), "asked for a stage; none is given"),
            },
            Ok(Opening::Data { ring, epoch, place }) => {
                let berth = Berth { ring, epoch, place };
                self.host.dock.arrive(berth, peer, stream).await;
            }
            Ok(Opening::Measure { model }) => {
                let Some(worker) = &self.worker else {
                    return;
                };
                let Some(pace) = worker.pace(peer, model).await else {
                    return;
                };
                // Who asks may have lost patience.
                let _ = timeout(
                    OPENING_MAX,
                    write_message(&mut stream.write, &pace.to_bytes()),
                )
                .await;
            }
            Err(reason) => tracing::debug!(peer = peer.short(), %reason, "a stream makes no sense"),
        }
    }

    /// Brings a ring up with this machine as its host. `progress` hears how far each worker has loaded, in
    /// thousandths. Dropping the future gives up.
    ///
    /// # Errors
    /// [`RaiseError`]. Workers then keep what they have loaded for the rest of their leases, so that a
    /// newer epoch of the ring finds it.
    pub async fn raise(
        &self,
        plan: RingPlan,
        progress: &mut (dyn FnMut(NodeId, Loading) + Send),
    ) -> Result<Ring, RaiseError> {
        raise(&self.host, plan, progress).await
    }

    /// Asks a member how fast it computes a model. `None`: it does not know, and can't find out or is too busy to.
    /// A member that first fetches the model's headers takes up to some minutes; who stops waiting does not stop it.
    pub async fn pace_of(&self, peer: NodeId, model: Fingerprint) -> Option<Pace> {
        dock::pace(self.host.transport.as_ref(), peer, model).await
    }

    /// Changes how much memory is given. Leases that were granted stay.
    pub async fn set_budget(&self, budget_bytes: u64) {
        if let Some(worker) = &self.worker {
            worker.set_budget(budget_bytes).await;
        }
    }

    /// Frees the layers of a model that wait here for a host that is gone: this machine is its host now.
    pub async fn free_parked(&self, model: Fingerprint) {
        if let Some(worker) = &self.worker {
            worker.free_parked(model).await;
        }
    }

    /// What others have leased here.
    pub async fn usage(&self) -> Usage {
        match &self.worker {
            Some(worker) => worker.usage().await,
            None => Usage::default(),
        }
    }

    /// Asks the hosts of this machine's stages to go elsewhere, takes no new ones, and waits until they have
    /// gone, for so long at most.
    pub async fn leave(&self, wait_max: Duration) {
        self.leaving.cancel();
        let gone = async {
            while self.usage().await.rings > 0 {
                sleep(LOOK_INTERVAL).await;
            }
        };
        if timeout(wait_max, gone).await.is_err() && self.usage().await.rings > 0 {
            tracing::info!("hosts still use stages of this machine, which stops");
        }
    }

    /// Ends all rings and stages, and waits until their memory is free.
    pub async fn close(&self) {
        self.host.stop.cancel();
        self.host.tasks.close();
        self.host.tasks.wait().await;
    }
}
