//! Brings a ring up, and watches over it until it breaks or is let go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control::{Control, Counters, Report};
use super::pump::Pump;
use super::verdict::{Evidence, judge, stuck_at};
use super::{Opened, RaiseError, Ring, RingPlan};
use crate::dock::{self, Berth, Dock};
use crate::fault::Loss;
use crate::handover::Seat;
use crate::layers::Loading;
use crate::lease::{LEASE_MAX, LEASE_MIN};
use crate::pace::Steps;
use crate::trail::TrailRoom;
use crate::transport::{Duplex, Transport};
use crate::weights::Phase;
use crate::wire::{FRAME_VERSION, FrameFormat, Lease, Ready};

/// From the moment that all stages are loaded until the ring is closed. The workers' own bound is
/// shorter, so that they say what is missing.
const JOIN_MAX: Duration = Duration::from_secs(45);

/// After the first sign that something is wrong, others may still say who it was.
const GATHER: Duration = Duration::from_millis(300);

/// What this process needs to have rings.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) me: NodeId,
    pub(crate) dock: Arc<Dock>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// For the rows that go to first workers.
    pub(crate) trails: Arc<TrailRoom>,
}

/// A ring's connections to its workers.
struct Workers {
    plan: RingPlan,
    nodes: Vec<NodeId>,
    controls: JoinSet<()>,
    reports: mpsc::Receiver<(usize, Report)>,
    counters: Vec<Arc<Counters>>,
    start: CancellationToken,
    release: CancellationToken,
}

/// Leases all stages, waits until they are loaded and connected. On failure nothing is said to the
/// workers: they keep what they have loaded until the lease ends, so that the next epoch finds it.
pub(crate) async fn raise(
    host: &Host,
    plan: RingPlan,
    progress: &mut (dyn FnMut(NodeId, Loading) + Send),
) -> Result<Ring, RaiseError> {
    plan.check()?;
    let mut workers = Workers::lease(host, plan);
    let raised = tokio::select! {
        raised = workers.raise(host, progress) => raised,
        () = host.stop.cancelled() => Err(RaiseError::Stopped),
    };
    let (ready, to, from) = raised?;
    Ok(workers.open(host, &ready, to, from))
}

impl Workers {
    fn lease(host: &Host, plan: RingPlan) -> Self {
        let count = plan.workers.len();
        // Each worker has three reports in its life, and room for some about loading.
        let (sender, reports) = mpsc::channel(8 * count);
        let mut this = Self {
            nodes: plan.workers.iter().map(|seat| seat.node).collect(),
            controls: JoinSet::new(),
            reports,
            counters: (0..count).map(|_| Arc::default()).collect(),
            start: CancellationToken::new(),
            release: CancellationToken::new(),
            plan,
        };
        for place in 0..count {
            let control = Control {
                place,
                node: this.nodes[place],
                lease: this.lease_of(host, place),
                transport: Arc::clone(&host.transport),
                counters: Arc::clone(&this.counters[place]),
                reports: sender.clone(),
                start: this.start.clone(),
                release: this.release.clone(),
            };
            this.controls.spawn(control.run());
        }
        this
    }

    fn lease_of(&self, host: &Host, place: usize) -> Lease {
        let previous = place.checked_sub(1).map(|before| self.nodes[before]);
        let next = self.nodes.get(place + 1).copied();
        Lease {
            ring: self.plan.ring,
            epoch: self.plan.epoch,
            spec: self.plan.spec(&self.plan.workers[place]),
            precision: self.plan.precision,
            // As the worker will, so that it is renewed in time.
            lease: self.plan.lease.clamp(LEASE_MIN, LEASE_MAX),
            // There are at most `WORKERS_MAX`.
            place: place as u32,
            previous: previous.unwrap_or(host.me),
            next: next.unwrap_or(host.me),
            keeps: true,
            frames: FRAME_VERSION,
        }
    }

    fn berth(&self, place: usize) -> Berth {
        Berth {
            ring: self.plan.ring,
            epoch: self.plan.epoch,
            place: place as u32,
        }
    }

    async fn raise(
        &mut self,
        host: &Host,
        progress: &mut (dyn FnMut(NodeId, Loading) + Send),
    ) -> Result<(Vec<Ready>, Duplex, Duplex), RaiseError> {
        let (first, last) = (self.nodes[0], self.nodes[self.nodes.len() - 1]);
        let mut expected = host.dock.expect(self.berth(self.nodes.len()), last);
        let ready = self.loaded(progress).await?;
        self.start.cancel();
        let dial = dock::dial(host.transport.as_ref(), first, self.berth(0));
        let mut connected = std::pin::pin!(async { tokio::join!(dial, expected.stream()) });
        let deadline = Instant::now() + JOIN_MAX;
        let mut missing = self.nodes.len();
        let mut streams = None;
        while missing > 0 || streams.is_none() {
            let report = tokio::select! {
                both = &mut connected, if streams.is_none() => {
                    streams = Some(both);
                    continue;
                }
                report = timeout_at(deadline, self.reports.recv()) => report,
            };
            match report {
                Ok(Some((_, Report::Joined))) => missing = missing.saturating_sub(1),
                Ok(Some((place, report))) => self.refused(place, report).await?,
                Ok(None) | Err(_) => {
                    let text = "the stages do not connect".to_owned();
                    return Err(self.lost(Evidence::Missing(text)).await);
                }
            }
        }
        match streams {
            Some((Ok(to), Some(from))) => Ok((ready, to, from)),
            Some((Err(error), _)) => {
                let text = format!("it takes no stream: {error}");
                Err(self.lost(Evidence::Gone(0, text)).await)
            }
            _ => Err(RaiseError::Plan("the epoch was used before".to_owned())),
        }
    }

    /// Waits until all stages are loaded.
    async fn loaded(
        &mut self,
        progress: &mut (dyn FnMut(NodeId, Loading) + Send),
    ) -> Result<Vec<Ready>, RaiseError> {
        let deadline = Instant::now() + self.plan.load_max;
        let mut ready = vec![None; self.nodes.len()];
        while ready.iter().any(Option::is_none) {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some((place, Report::Loading(loading)))) => {
                    progress(self.nodes[place], loading);
                }
                Ok(Some((place, Report::Ready(stage)))) => {
                    if stage.width != self.plan.width || stage.kv_tokens < self.plan.kv_tokens {
                        let text = "its stage is not what was asked for".to_owned();
                        return Err(self.lost(Evidence::Gone(place, text)).await);
                    }
                    progress(self.nodes[place], Loading::of(Phase::Opening, 1, 1));
                    ready[place] = Some(stage);
                }
                Ok(Some((place, report))) => self.refused(place, report).await?,
                Ok(None) | Err(_) => {
                    let place = ready.iter().position(Option::is_none).unwrap_or_default();
                    let text = "loading takes too long".to_owned();
                    return Err(self.lost(Evidence::Gone(place, text)).await);
                }
            }
        }
        Ok(ready.into_iter().flatten().collect())
    }

    /// What a report means that does not belong to the regular course.
    async fn refused(&mut self, place: usize, report: Report) -> Result<(), RaiseError> {
        match report {
            Report::Refused(refusal) => Err(RaiseError::Refused {
                node: self.nodes[place],
                refusal,
            }),
            Report::Down(evidence) => Err(self.lost(evidence).await),
            Report::Loading(_) | Report::Joined | Report::Ready(_) => Ok(()),
        }
    }

    async fn lost(&mut self, first: Evidence) -> RaiseError {
        RaiseError::Lost(self.judge(first, 0).await)
    }

    /// Hears what others say, then decides whom to suspect.
    async fn judge(&mut self, first: Evidence, awaited: u64) -> Loss {
        let mut evidence = vec![first];
        let gather = async {
            while !evidence.last().is_some_and(Evidence::is_final) {
                match self.reports.recv().await {
                    Some((_, Report::Down(one))) => evidence.push(one),
                    Some((place, Report::Refused(refusal))) => {
                        evidence.push(Evidence::Confession(place, refusal.to_string()));
                    }
                    Some(_) => {}
                    None => break,
                }
            }
        };
        // Running out of time is the usual end.
        let _ = timeout(GATHER, gather).await;
        let progress: Vec<_> = self.counters.iter().map(|c| c.progress()).collect();
        judge(&evidence, &self.nodes, stuck_at(awaited, &progress))
    }

    /// Starts to pump frames.
    fn open(self, host: &Host, ready: &[Ready], to: Duplex, from: Duplex) -> Ring {
        // Enough that each stage computes one and has one waiting.
        let frames_max = 2 * (self.nodes.len() + 1) + 1;
        let (outgoing, out) = mpsc::channel(frames_max);
        let (returned, back) = mpsc::channel(frames_max);
        let (awaited, awaited_now) = watch::channel(0);
        let (lost, watch) = watch::channel(None);
        let format = FrameFormat {
            width: self.plan.width,
            rows_max: self.plan.rows_max,
        };
        let steps = Arc::new(Mutex::new(Steps::default()));
        let seat = Arc::new(Seat::default());
        let pump = Pump {
            steps: Arc::clone(&steps),
            last: self.nodes[self.nodes.len() - 1],
            last_place: self.nodes.len() - 1,
            epoch: self.plan.epoch,
            format,
            to,
            from,
            outgoing: out,
            returned,
            awaited,
            seat: Arc::clone(&seat),
        };
        let ring = Ring::new(Opened {
            plan: self.plan.clone(),
            kv_tokens: ready.iter().map(|r| r.kv_tokens).min().unwrap_or_default(),
            is_recurrent: ready.iter().any(|r| r.is_recurrent),
            trails: Arc::clone(&host.trails),
            remembered: ready.iter().map(|r| r.remembers).collect(),
            counters: self.counters.clone(),
            steps,
            frames_max,
            outgoing,
            returned: back,
            seat,
            lost: watch,
            release: self.release.clone(),
        });
        let stop = host.stop.clone();
        host.tasks
            .spawn(self.watch_over(pump, frames_max, awaited_now, lost, stop));
        ring
    }

    /// Until the ring breaks or is let go.
    async fn watch_over(
        mut self,
        pump: Pump,
        frames_max: usize,
        awaited: watch::Receiver<u64>,
        lost: watch::Sender<Option<Loss>>,
        stop: CancellationToken,
    ) {
        let mut pump = std::pin::pin!(pump.run(frames_max));
        let mut streams = None;
        let evidence = loop {
            tokio::select! {
                () = self.release.cancelled() => break None,
                () = stop.cancelled() => break None,
                (ended, both) = &mut pump => {
                    streams = Some(both);
                    break ended;
                }
                report = self.reports.recv() => match report {
                    Some((_, Report::Down(evidence))) => break Some(evidence),
                    Some((place, Report::Refused(refusal))) => {
                        break Some(Evidence::Confession(place, refusal.to_string()));
                    }
                    Some(_) => {}
                    None => break Some(Evidence::Missing("no worker is left".to_owned())),
                },
            }
        };
        let Some(evidence) = evidence else {
            self.release.cancel();
            // Each of them has a deadline of its own.
            while self.controls.join_next().await.is_some() {}
            return;
        };
        let number = *awaited.borrow();
        let loss = self.judge(evidence, number).await;
        let suspect = loss.suspect.map(|node| node.short());
        tracing::warn!(ring = %self.plan.ring, epoch = self.plan.epoch, suspect, %loss, "a ring is lost");
        lost.send_replace(Some(loss));
        drop(streams);
        // The workers keep what they have loaded until their leases end.
        self.controls.shutdown().await;
    }
}
