//! A host's control stream: what it says, and what is reported to it, until the stage ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh::NodeId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::stage::{Ended, Stage};
use super::{ALIVE_INTERVAL, SESSIONS_MAX, SESSIONS_PER_HOST_MAX, Worker};
use crate::fault::Refusal;
use crate::transport::{Duplex, Reading, Writing};
use crate::wire::{FromWorker, Lease, ToWorker, read_message, read_to_worker, write_message};

/// How long the first message may take.
const LEASE_READ_MAX: Duration = Duration::from_secs(10);

/// How long a host may read nothing of the control stream, which has some bytes a second.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// How long a host may take to release a stage that has ended. Without its word the lease decides.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Messages of a host that wait to be looked at.
const INCOMING_MAX: usize = 8;

/// Reports that wait to be written; a stage has three in its life.
const REPORTS_MAX: usize = 4;

/// Counts the sessions of each host.
#[derive(Debug, Default)]
pub(super) struct Count(Mutex<BTreeMap<NodeId, usize>>);

struct Counted {
    count: Arc<Count>,
    host: NodeId,
}

impl Count {
    fn begin(self: &Arc<Self>, host: NodeId) -> Option<Counted> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = hosts.get(&host).copied().unwrap_or_default();
        if own >= SESSIONS_PER_HOST_MAX || hosts.values().sum::<usize>() >= SESSIONS_MAX {
            return None;
        }
        hosts.insert(host, own + 1);
        Some(Counted {
            count: Arc::clone(self),
            host,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut hosts = self.count.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = hosts.get_mut(&self.host) {
            *own -= 1;
            if *own == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

/// Talks to a host until its stage ends, and tells it why.
pub(super) async fn run(worker: &Worker, host: NodeId, stream: Duplex) {
    let Duplex {
        mut read,
        mut write,
    } = stream;
    let Some(_counted) = worker.sessions.begin(host) else {
        let refused = FromWorker::Refused(Refusal::Full);
        let _ = say(&mut write, &refused).await;
        return;
    };
    let Ok(Some(ToWorker::Lease(lease))) = timeout(LEASE_READ_MAX, hear(&mut read))
        .await
        .unwrap_or(Ok(None))
    else {
        tracing::debug!(host = host.short(), "a control stream without a lease");
        return;
    };
    let (ring, epoch) = (lease.ring, lease.epoch);
    let mut tasks = JoinSet::new();
    let (sender, mut incoming) = mpsc::channel(INCOMING_MAX);
    tasks.spawn(listen(read, sender));
    let ended = control(worker, host, *lease, &mut incoming, &mut write).await;
    tracing::info!(host = host.short(), ?ended, "a stage has ended");
    let last = match ended {
        Ended::Refused(refusal) => FromWorker::Refused(refusal),
        Ended::Failed(fault, text) => FromWorker::Failed { fault, text },
    };
    // The host may be gone; it needs no telling then.
    if say(&mut write, &last).await.is_ok() {
        // A ring that is let go falls apart stage by stage, and the host's word may come last.
        let release = async {
            while let Some(message) = incoming.recv().await {
                if message == ToWorker::Release {
                    worker.release(ring, epoch).await;
                }
            }
        };
        let _ = timeout(RELEASE_MAX, release).await;
    }
}

async fn control(
    worker: &Worker,
    host: NodeId,
    lease: Lease,
    incoming: &mut mpsc::Receiver<ToWorker>,
    write: &mut Writing,
) -> Ended {
    let (ring, epoch) = (lease.ring, lease.epoch);
    let (reports, mut outgoing) = mpsc::channel(REPORTS_MAX);
    let (start, started) = oneshot::channel();
    let mut start = Some(start);
    let stage = Stage {
        worker,
        host,
        lease,
        counters: Arc::default(),
        reports,
        abandoned: worker.machine.stop.child_token(),
    };
    let (counters, abandoned) = (Arc::clone(&stage.counters), stage.abandoned.clone());
    let mut life = std::pin::pin!(stage.live(started));
    let mut alive = interval(ALIVE_INTERVAL);
    let leaving = &worker.machine.leaving;
    let mut has_told = false;
    loop {
        let report = tokio::select! {
            ended = &mut life => return ended,
            message = incoming.recv() => match message {
                Some(ToWorker::Renew) => {
                    worker.renew(ring, epoch).await;
                    continue;
                }
                Some(ToWorker::Start) => {
                    // Only the first one counts.
                    if let Some(start) = start.take() {
                        let _ = start.send(());
                    }
                    continue;
                }
                Some(ToWorker::Release) => {
                    worker.release(ring, epoch).await;
                    break;
                }
                // A second lease on one stream, or nothing more.
                Some(ToWorker::Lease(_)) | None => break,
            },
            Some(report) = outgoing.recv() => report,
            _ = alive.tick() => counters.report(leaving.is_cancelled()),
            // The sooner the host knows, the more time it has.
            () = leaving.cancelled(), if !has_told => {
                has_told = true;
                counters.report(true)
            }
        };
        if say(write, &report).await.is_err() {
            break;
        }
    }
    // The stage ends orderly: what loads or computes can't be left alone.
    abandoned.cancel();
    life.await
}

/// Passes a host's messages on until its stream ends.
async fn listen(mut read: Reading, sender: mpsc::Sender<ToWorker>) {
    while let Ok(Some(message)) = hear(&mut read).await {
        if sender.send(message).await.is_err() {
            break;
        }
    }
}

async fn hear(read: &mut Reading) -> Result<Option<ToWorker>, String> {
    let bytes = read_message(read).await.map_err(|e| e.to_string())?;
    let message = bytes.map(|bytes| read_to_worker(&bytes)).transpose();
    message.map_err(|e| e.to_string())
}

async fn say(write: &mut Writing, message: &FromWorker) -> std::io::Result<()> {
    let bytes = message.to_bytes();
    let written = timeout(WRITE_MAX, write_message(write, &bytes)).await;
    written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
