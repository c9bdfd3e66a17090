//! The control stream to one worker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh::NodeId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::verdict::{Evidence, Progress};
use crate::dock;
use crate::fault::{Fault, Refusal};
use crate::layers::Loading;
use crate::transport::{Duplex, Reading, Transport, Writing};
use crate::wire::{
    Alive, FromWorker, Lease, Opening, Ready, ToWorker, read_from_worker, read_message,
    write_message,
};

/// A worker that says nothing for so long is given up. Five signs of life; QUIC gives a dead connection
/// as long.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Leases are renewed so many times before they would end.
const RENEWALS: u32 = 3;

/// How long a worker may read nothing of the control stream.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// How long saying goodbye may take. A worker that does not hear it frees the stage when its lease ends.
const RELEASE_MAX: Duration = Duration::from_secs(2);

/// Messages of a worker that wait to be looked at.
const INCOMING_MAX: usize = 8;

/// What a control stream tells.
#[derive(Debug)]
pub(super) enum Report {
    Loading(Loading),
    Ready(Ready),
    Joined,
    Refused(Refusal),
    Down(Evidence),
}

/// What a worker says of itself.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Alive>);

impl Counters {
    pub(super) fn progress(&self) -> Progress {
        let Alive { received, sent, .. } = self.last();
        Progress { received, sent }
    }

    /// Its last sign of life.
    pub(super) fn last(&self) -> Alive {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, alive: Alive) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = alive;
    }
}

/// One worker, from the lease to its end.
pub(super) struct Control {
    pub(super) place: usize,
    pub(super) node: NodeId,
    pub(super) lease: Lease,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) counters: Arc<Counters>,
    pub(super) reports: mpsc::Sender<(usize, Report)>,
    /// Every stage is ready.
    pub(super) start: CancellationToken,
    /// The ring is no longer wanted: say so to the worker.
    pub(super) release: CancellationToken,
}

impl Control {
    pub(super) async fn run(self) {
        let last = match self.talk().await {
            Ok(()) => return,
            Err(last) => last,
        };
        // Nobody listens once the ring is lost.
        let _ = self.reports.send((self.place, last)).await;
    }

    fn gone(&self, text: impl std::fmt::Display) -> Report {
        Report::Down(Evidence::Gone(self.place, text.to_string()))
    }

    async fn talk(&self) -> Result<(), Report> {
        let opened = dock::open(self.transport.as_ref(), self.node, Opening::Control).await;
        let Duplex { read, mut write } = opened.map_err(|e| self.gone(e))?;
        let lease = ToWorker::Lease(Box::new(self.lease.clone()));
        self.say(&mut write, &lease).await?;
        let mut tasks = JoinSet::new();
        let (sender, mut incoming) = mpsc::channel(INCOMING_MAX);
        tasks.spawn(listen(read, sender));
        let mut renewal = interval(self.lease.lease / RENEWALS);
        // The first tick is at once, and the lease has just begun.
        renewal.tick().await;
        let mut heard = Instant::now();
        let mut has_started = false;
        loop {
            let say = tokio::select! {
                message = incoming.recv() => {
                    heard = Instant::now();
                    let message = message.unwrap_or(Err("it ended the conversation".to_owned()));
                    self.hear(message.map_err(|text| self.gone(text))?).await?;
                    continue;
                }
                () = sleep_until(heard + SILENCE_MAX) => {
                    return Err(self.gone("no sign of life"));
                }
                () = self.start.cancelled(), if !has_started => {
                    has_started = true;
                    ToWorker::Start
                }
                () = self.release.cancelled() => {
                    let goodbye = self.say(&mut write, &ToWorker::Release);
                    let _ = timeout(RELEASE_MAX, goodbye).await;
                    // The worker ends the stream when it has read that.
                    let rest = async { while incoming.recv().await.is_some_and(|m| m.is_ok()) {} };
                    let _ = timeout(RELEASE_MAX, rest).await;
                    return Ok(());
                }
                _ = renewal.tick() => ToWorker::Renew,
            };
            self.say(&mut write, &say).await?;
        }
    }

    async fn hear(&self, message: FromWorker) -> Result<(), Report> {
        let report = match message {
            FromWorker::Loading(loading) => Report::Loading(loading),
            FromWorker::Ready(ready) => Report::Ready(ready),
            FromWorker::Joined => Report::Joined,
            FromWorker::Alive(alive) => {
                self.counters.set(alive);
                return Ok(());
            }
            FromWorker::Refused(refusal) => return Err(Report::Refused(refusal)),
            FromWorker::Failed { fault, text } => {
                return Err(Report::Down(match fault {
                    Fault::Own | Fault::Ended => Evidence::Confession(self.place, text),
                    Fault::Previous | Fault::PreviousGone | Fault::NextGone => {
                        Evidence::Accusation(self.place, fault, text)
                    }
                }));
            }
        };
        // Nobody listens once the ring is lost; then `release` or the abort comes.
        let _ = self.reports.send((self.place, report)).await;
        Ok(())
    }

    async fn say(&self, write: &mut Writing, message: &ToWorker) -> Result<(), Report> {
        let bytes = message.to_bytes();
        match timeout(WRITE_MAX, write_message(write, &bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.gone(error)),
            Err(_) => Err(self.gone("it reads nothing")),
        }
    }
}

/// Passes a worker's messages on until its stream ends.
async fn listen(mut read: Reading, sender: mpsc::Sender<Result<FromWorker, String>>) {
    loop {
        let message = match read_message(&mut read).await {
            Ok(Some(bytes)) => read_from_worker(&bytes).map_err(|e| e.to_string()),
            Ok(None) => return,
            Err(error) => Err(error.to_string()),
        };
        let is_last = message.is_err();
        if sender.send(message).await.is_err() || is_last {
            return;
        }
    }
}
