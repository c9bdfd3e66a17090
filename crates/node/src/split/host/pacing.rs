//! How fast the ring that runs is: what its workers and this host counted, and what follows for plans.

use std::time::Duration;

use mesh::NodeId;
use split::pace::{self, Mean, Stage, Steps, Work};
use split::plan::Speed;
use split::plan::nodes::BANDWIDTH_GB_S_DEFAULT;
use split::ring::{RingWatch, Seat};

/// A stage that takes so many times what it was planned with is worth a line in the log.
const SLOW: f64 = 2.0;

/// A ring that runs.
pub(super) struct Pacing {
    watch: RingWatch,
    workers: Vec<Paced>,
    steps: Steps,
    /// One token: all of it, and the part of this host.
    token: Mean,
    here: Mean,
}

struct Paced {
    seat: Seat,
    active_bytes: u64,
    stage: Stage,
    seen: Work,
    /// What it was planned with.
    planned: Speed,
    is_slow: bool,
}

impl Pacing {
    /// Begins to watch. For each worker: its share, the bytes it reads for a token, and its expected speed.
    pub(super) fn new(watch: RingWatch, workers: Vec<(Seat, u64, Speed)>) -> Self {
        let workers = workers
            .into_iter()
            .map(|(seat, active_bytes, planned)| Paced {
                seat,
                active_bytes,
                stage: Stage::default(),
                seen: Work::default(),
                planned,
                is_slow: false,
            });
        Self {
            watch,
            workers: workers.collect(),
            steps: Steps::default(),
            token: Mean::default(),
            here: Mean::default(),
        }
    }

    /// Takes in what is new; true if rows went round.
    pub(super) fn observe(&mut self) -> bool {
        let now = self.watch.steps();
        let new = now.since(&self.steps).unwrap_or_default();
        self.steps = now;
        if new.count > 0 {
            self.token.add(new.count, new.here.saturating_add(new.away));
            self.here.add(new.count, new.here);
        }
        let mut is_active = new.count > 0;
        let statuses = self.watch.workers();
        for (status, worker) in statuses.iter().zip(&mut self.workers) {
            let new = status.work.since(&worker.seen).unwrap_or_default();
            worker.seen = status.work;
            worker.stage.observe(&status.work);
            is_active |= new.batches > 0;
            worker.tell(&new);
        }
        is_active
    }

    /// Workers that are about to stop.
    pub(super) fn leaving(&self) -> Vec<NodeId> {
        let workers = self.watch.workers();
        let leaving = workers.into_iter().filter(|worker| worker.is_leaving);
        leaving.map(|worker| worker.node).collect()
    }

    /// What was measured: each worker's speed, and this host's, which reads `here_bytes` for a token.
    pub(super) fn speeds(&self, me: NodeId, here_bytes: u64) -> Vec<(NodeId, Speed)> {
        let of = |worker: &Paced| {
            let speed = worker.stage.speed(worker.active_bytes, worker.planned)?;
            Some((worker.seat.node, speed.ok()?))
        };
        let here = self.here.seconds().and_then(|here_s| {
            let guess = Speed::from_bandwidth(BANDWIDTH_GB_S_DEFAULT * 1e9).ok()?;
            let (decode, prefill) = guess.bytes_per_s();
            let speed = Speed::from_times(here_bytes, here_s, here_s * decode / prefill);
            Some((me, speed.ok()?))
        });
        self.workers.iter().filter_map(of).chain(here).collect()
    }

    /// Tokens a second of one stream without speculation, once seen.
    pub(super) fn measured(&self) -> Option<f64> {
        let token_s = self.token.seconds().filter(|s| *s > 0.0)?;
        Some(1.0 / token_s)
    }
}

impl Paced {
    fn tell(&mut self, new: &Work) {
        let Some(slowness) = pace::slowness(new, self.active_bytes, self.planned) else {
            return;
        };
        let is_slow = slowness > SLOW && new.busy > Duration::from_millis(100);
        if is_slow && !self.is_slow {
            let worker = self.seat.node.short();
            tracing::info!(
                worker,
                slowness,
                "a worker takes longer than was planned with"
            );
        }
        self.is_slow = is_slow;
    }
}
