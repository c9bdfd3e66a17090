//! What an ingress knows of its own requests: how often models are asked for, where beginnings of
//! prompts are warm, what runs at which host and how far it was, and what peers' models are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::ModelInfo;
use mesh::NodeId;

use crate::affinity::{Affinity, Beginning};
use crate::demand::DemandCounter;
use crate::route::{Candidate, Place, RoundTrips};

/// Descriptions of peers' models that are kept.
const DESCRIBED_MAX: usize = 256;

/// The ingress's memory.
#[derive(Debug)]
pub(crate) struct Ingress {
    start: Instant,
    state: Arc<Mutex<State>>,
}

/// How often a stop looks whether peers still answer.
const FINISH_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct State {
    demand: DemandCounter,
    affinity: Affinity<Place>,
    running: BTreeMap<NodeId, u32>,
    round_trips: RoundTrips,
    /// By name and fingerprint.
    described: BTreeMap<(String, String), Arc<ModelInfo>>,
}

/// A request that runs at a peer, until dropped.
#[derive(Debug)]
pub(crate) struct AtPeer {
    state: Arc<Mutex<State>>,
    node: NodeId,
}

impl Ingress {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            state: Arc::default(),
        }
    }

    /// Milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a request for `model`.
    pub(crate) fn count(&self, model: &str) {
        let now_ms = self.now_ms();
        self.lock().demand.count(model, now_ms);
    }

    /// Requests per minute of each model here.
    pub(crate) fn rates(&self) -> BTreeMap<String, f32> {
        let now_ms = self.now_ms();
        self.lock().demand.rates(now_ms)
    }

    /// Who has the longest beginning of a request, and how many bytes of it.
    pub(crate) fn warm(&self, beginnings: &[Beginning]) -> Option<(Place, usize)> {
        self.lock().affinity.find(beginnings)
    }

    /// Notes that `place` got a request.
    pub(crate) fn warmed(&self, beginnings: &[Beginning], place: Place) {
        self.lock().affinity.note(beginnings, &place);
    }

    /// Forgets what a host held that is gone.
    pub(crate) fn lost(&self, place: Place) {
        self.lock().affinity.forget(&place);
    }

    /// Requests of this ingress that run at a node.
    pub(crate) fn running_at(&self, node: NodeId) -> u32 {
        self.lock().running.get(&node).copied().unwrap_or(0)
    }

    /// Remembers round trips that are measured now, in microseconds.
    pub(crate) fn note_round_trips(&self, measured: impl Iterator<Item = (NodeId, u32)>) {
        let trips = &mut self.lock().round_trips;
        measured.for_each(|(node, us)| trips.note(node, us));
    }

    /// Fills in the last round trips where none is measured now.
    pub(crate) fn fill_round_trips(&self, candidates: &mut [Candidate]) {
        self.lock().round_trips.fill(candidates);
    }

    /// Counts a request at a node.
    pub(crate) fn begin_at(&self, node: NodeId) -> AtPeer {
        *self.lock().running.entry(node).or_insert(0) += 1;
        AtPeer {
            state: Arc::clone(&self.state),
            node,
        }
    }

    /// Waits until no request runs at a peer, or until the deadline.
    pub(crate) async fn finish(&self, deadline: Instant) {
        while !self.lock().running.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(FINISH_LOOK).await;
        }
    }

    /// What a peer said of a model.
    pub(crate) fn described(&self, name: &str, fingerprint: &str) -> Option<Arc<ModelInfo>> {
        let key = (name.to_owned(), fingerprint.to_owned());
        self.lock().described.get(&key).cloned()
    }

    /// Keeps what a peer said of a model.
    pub(crate) fn describe(&self, name: &str, fingerprint: &str, info: Arc<ModelInfo>) {
        let described = &mut self.lock().described;
        if described.len() >= DESCRIBED_MAX {
            described.clear();
        }
        described.insert((name.to_owned(), fingerprint.to_owned()), info);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AtPeer {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = state.running.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                state.running.remove(&self.node);
            }
        }
    }
}
