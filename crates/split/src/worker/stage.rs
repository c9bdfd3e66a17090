//! One stage from its lease to its end: measured, granted, loaded, connected, run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh::NodeId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Body, Granted, Worker, flow};
use crate::dock::{self, Berth};
use crate::fault::{Fault, Refusal};
use crate::layers::{Layers, Loading};
use crate::lease::Ask;
use crate::pace::Work;
use crate::ring::WORKERS_MAX;
use crate::spec::StageSpec;
use crate::transport::Duplex;
use crate::wire::{Alive, FRAME_VERSION, FromWorker, Lease, Ready};

/// Between [`ToWorker::Start`] and the last connection: both neighbours connect at the same time.
const JOIN_MAX: Duration = Duration::from_secs(30);

/// How a stage ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Refused(Refusal),
    Failed(Fault, String),
}

impl Ended {
    fn own(error: impl std::fmt::Display) -> Self {
        Self::Failed(Fault::Own, error.to_string())
    }

    /// The lease is over, or the host is.
    fn over() -> Self {
        Self::Failed(Fault::Ended, "the lease has ended".to_owned())
    }
}

/// What a stage has done so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    loading: Mutex<Loading>,
    is_ready: AtomicBool,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    work: Mutex<Work>,
}

impl Counters {
    /// One batch more.
    pub(super) fn computed(&self, rows: usize, busy: Duration) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.add(rows, busy);
    }

    pub(super) fn report(&self, is_leaving: bool) -> FromWorker {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        match self.is_ready.load(Ordering::Relaxed) {
            false => {
                let loading = self.loading.lock();
                FromWorker::Loading(*loading.unwrap_or_else(PoisonError::into_inner))
            }
            true => FromWorker::Alive(Alive {
                received: get(&self.received),
                sent: get(&self.sent),
                work: *self.work.lock().unwrap_or_else(PoisonError::into_inner),
                is_leaving,
            }),
        }
    }
}

/// One stage from the lease to its end.
pub(super) struct Stage<'a> {
    pub(super) worker: &'a Worker,
    pub(super) host: NodeId,
    pub(super) lease: Lease,
    pub(super) counters: Arc<Counters>,
    pub(super) reports: mpsc::Sender<FromWorker>,
    /// The host is gone, or this machine leaves.
    pub(super) abandoned: CancellationToken,
}

impl Stage<'_> {
    pub(super) async fn live(self, started: oneshot::Receiver<()>) -> Ended {
        match self.try_live(started).await {
            Ok(ended) | Err(ended) => ended,
        }
    }

    async fn try_live(&self, started: oneshot::Receiver<()>) -> Result<Ended, Ended> {
        let bytes = self.needed_bytes().await?;
        let mut granted = self.granted(bytes).await?;
        let end = granted.end.clone();
        let body = match granted.body.take() {
            Some(body) if self.goes_on(&body) => body,
            Some(body) => self.cleared(body).await?,
            None => {
                let layers = self.load(&end).await?;
                Body::new(layers, &self.lease.spec, &self.worker.trails)
            }
        };
        let ready = self.ready(&body, bytes)?;
        granted.body = Some(body);
        let Lease {
            ring,
            epoch,
            place,
            previous,
            ..
        } = self.lease;
        let dock = &self.worker.machine.dock;
        let mut expected = dock.expect(Berth { ring, epoch, place }, previous);
        self.counters.is_ready.store(true, Ordering::Relaxed);
        self.report(FromWorker::Ready(ready)).await;
        let until_over = async {
            tokio::select! {
                () = end.cancelled() => {}
                () = self.abandoned.cancelled() => {}
            }
        };
        let mut until_over = std::pin::pin!(until_over);
        let connected = async {
            if started.await.is_err() {
                return Err(Ended::over());
            }
            match timeout(JOIN_MAX, self.connect(&mut expected)).await {
                Ok(connected) => connected,
                Err(_) => {
                    let text = "the previous stage does not connect";
                    Err(Ended::Failed(Fault::PreviousGone, text.to_owned()))
                }
            }
        };
        let (from, to) = tokio::select! {
            connected = connected => connected?,
            () = &mut until_over => return Err(Ended::over()),
        };
        drop(expected);
        self.report(FromWorker::Joined).await;
        let Some(body) = granted.body.take() else {
            return Err(Ended::own("the layers are lost"));
        };
        let flow = flow::Flow::new(&self.lease, Arc::clone(&self.counters));
        let (body, ended) = flow.run(body, from, to, until_over).await;
        granted.body = body;
        Ok(ended.map_or_else(Ended::over, |(fault, text)| Ended::Failed(fault, text)))
    }

    /// Bytes that the stage takes, with the frames that it holds at a time.
    async fn needed_bytes(&self) -> Result<u64, Ended> {
        let spec = self.lease.spec.clone();
        let refused = |text: String| Ended::Refused(Refusal::OutOfRange { text });
        spec.check().map_err(|error| refused(error.to_string()))?;
        if self.lease.frames != FRAME_VERSION {
            let theirs = self.lease.frames;
            return Err(refused(format!(
                "its host writes frames of version {theirs}, this machine reads version {FRAME_VERSION}; hint: run the same version of mesh-llm on both"
            )));
        }
        if self.lease.place as usize >= WORKERS_MAX {
            return Err(refused(format!("there is no place {}", self.lease.place)));
        }
        if self.lease.place == 0 && self.lease.previous != self.host {
            return Err(refused("rows would come from somebody else".to_owned()));
        }
        let frames = spec.hidden_bytes() * flow::FRAMES_HELD_MAX;
        let source = Arc::clone(&self.worker.machine.source);
        let host = self.host;
        let needed = tokio::task::spawn_blocking(move || source.needed_bytes(host, &spec)).await;
        let needed = needed.map_err(Ended::own)?.map_err(Ended::Refused)?;
        Ok(needed.saturating_add(frames))
    }

    async fn granted(&self, bytes: u64) -> Result<Granted, Ended> {
        let ask = Ask {
            host: self.host,
            ring: self.lease.ring,
            epoch: self.lease.epoch,
            bytes,
            lease: self.lease.lease,
        };
        tokio::select! {
            granted = self.worker.ask(ask, self.lease.spec.clone()) => {
                granted.map_err(Ended::Refused)
            }
            () = self.abandoned.cancelled() => Err(Ended::over()),
        }
    }

    /// Whether what layers remember is wanted.
    fn goes_on(&self, body: &Body) -> bool {
        self.lease.keeps && body.remembers(self.lease.ring).is_some()
    }

    /// Layers of the epoch before, without what they remember of it.
    async fn cleared(&self, mut body: Body) -> Result<Body, Ended> {
        let cleared = tokio::task::spawn_blocking(move || {
            body.clear();
            body
        });
        cleared.await.map_err(Ended::own)
    }

    async fn load(&self, end: &CancellationToken) -> Result<Box<dyn Layers>, Ended> {
        let source = Arc::clone(&self.worker.machine.source);
        let spec = self.lease.spec.clone();
        let counters = Arc::clone(&self.counters);
        let (ended, abandoned) = (end.clone(), self.abandoned.clone());
        let host = self.host;
        let load = tokio::task::spawn_blocking(move || {
            let mut progress = |now: Loading| {
                let loading = counters.loading.lock();
                *loading.unwrap_or_else(PoisonError::into_inner) = now;
                !ended.is_cancelled() && !abandoned.is_cancelled()
            };
            source.load(host, &spec, &mut progress)
        });
        let layers = load.await.map_err(Ended::own)?.map_err(Ended::own)?;
        if end.is_cancelled() || self.abandoned.is_cancelled() {
            return Err(self.freed(layers, Ended::over()).await);
        }
        if let Err(ended) = self.fits(layers.as_ref()) {
            return Err(self.freed(layers, ended).await);
        }
        Ok(layers)
    }

    /// Frees layers before their lease is given back.
    async fn freed(&self, layers: Box<dyn Layers>, ended: Ended) -> Ended {
        let _ = tokio::task::spawn_blocking(move || drop(layers)).await;
        ended
    }

    fn fits(&self, layers: &dyn Layers) -> Result<(), Ended> {
        let StageSpec {
            width, kv_tokens, ..
        } = self.lease.spec;
        if layers.width() != width {
            let text = format!("rows have {} elements, not {width}", layers.width());
            return Err(Ended::Refused(Refusal::NoModel { text }));
        }
        if layers.kv_tokens() < kv_tokens {
            return Err(Ended::own(
                "the layers have fewer KV cells than they should",
            ));
        }
        Ok(())
    }

    fn ready(&self, body: &Body, memory_bytes: u64) -> Result<Ready, Ended> {
        let layers = body.layers.as_ref();
        self.fits(layers)?;
        Ok(Ready {
            memory_bytes,
            kv_tokens: layers.kv_tokens(),
            width: layers.width(),
            is_recurrent: layers.is_recurrent(),
            remembers: body.remembers(self.lease.ring),
        })
    }

    /// Connects both ways at once: the ring closes from all sides.
    async fn connect(&self, expected: &mut dock::Expected) -> Result<(Duplex, Duplex), Ended> {
        let Lease {
            ring,
            epoch,
            place,
            next,
            ..
        } = self.lease;
        let place = place.saturating_add(1);
        let transport = self.worker.machine.transport.as_ref();
        let to = async {
            let dialled = dock::dial(transport, next, Berth { ring, epoch, place }).await;
            dialled.map_err(|error| {
                Ended::Failed(
                    Fault::NextGone,
                    format!("no way to the next stage: {error}"),
                )
            })
        };
        let from = async {
            let stream = expected.stream().await;
            stream.ok_or_else(|| Ended::own("the stage was asked for twice"))
        };
        tokio::try_join!(from, to)
    }

    async fn report(&self, report: FromWorker) {
        // Fails only when the session is about to end.
        let _ = self.reports.send(report).await;
    }
}
