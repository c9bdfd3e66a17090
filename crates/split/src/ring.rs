//! The host's side: a ring of workers that stands where the first layers of a model would.
//!
//! `raise` leases the stages and connects them. After that a control stream to each worker (`control`)
//! renews leases and hears signs of life, and the pump (`pump`) sends frames to the first worker and
//! takes them from the last one. The first thing that goes wrong ends the ring (`verdict` says whom to
//! suspect); [`recovery`](crate::recovery) decides what follows.

mod control;
mod handle;
mod ledger;
mod patience;
mod pump;
mod raise;
mod replay;
mod steps;
mod verdict;

use std::ops::Range;
use std::time::Duration;

use gguf::Fingerprint;
use mesh::NodeId;

use crate::fault::{Loss, Refusal};
use crate::spec::{Precision, RingId, SpecError, StageSpec};

pub(crate) use handle::Opened;
pub use handle::{FrameTrip, Ring, RingError, RingWatch, WorkerStatus};
pub(crate) use raise::{Host, raise};
pub use replay::{Memory, Replay};

/// Most workers of a ring; the planner makes no longer ones.
pub const WORKERS_MAX: usize = 16;

/// The ring that a host wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingPlan {
    /// Drawn at random, the same in all epochs.
    pub ring: RingId,
    /// Higher than that of every ring of this number before.
    pub epoch: u32,
    /// Which model.
    pub model: Fingerprint,
    /// Workers in the order of their layers, which follow each other from 0.
    pub workers: Vec<Seat>,
    /// Elements of a row.
    pub width: u32,
    /// KV cells of every stage.
    pub kv_tokens: u32,
    /// Sequences.
    pub sequences: u32,
    /// Most rows of one call.
    pub rows_max: u32,
    /// How rows travel.
    pub precision: Precision,
    /// How long a worker keeps its stage when it hears nothing; kept within
    /// [`LEASE_MIN`](crate::lease::LEASE_MIN) and [`LEASE_MAX`](crate::lease::LEASE_MAX).
    pub lease: Duration,
    /// How long loading may take, fetching weights included.
    pub load_max: Duration,
}

/// A worker's place in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub node: NodeId,
    /// Which layers.
    pub layers: Range<u32>,
}

/// Why a ring did not come to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaiseError {
    /// A worker does not take its stage.
    #[error("{} does not take its stage: {refusal}", node.short())]
    Refused {
        /// Who.
        node: NodeId,
        /// Why.
        refusal: Refusal,
    },
    /// It broke before it stood.
    #[error("{0}")]
    Lost(Loss),
    /// This is no ring.
    #[error("not a ring: {0}")]
    Plan(String),
    /// This node is about to stop.
    #[error("this node stops")]
    Stopped,
}

impl RaiseError {
    /// Who lacks memory for its stage, and how much, bytes.
    #[must_use]
    pub fn missing_bytes(&self) -> Option<(NodeId, u64)> {
        match self {
            Self::Refused {
                node,
                refusal:
                    Refusal::NoMemory {
                        needed_bytes,
                        free_bytes,
                    },
            } => Some((*node, needed_bytes.saturating_sub(*free_bytes))),
            _ => None,
        }
    }

    /// Who should not be asked again soon.
    #[must_use]
    pub fn suspect(&self) -> Option<NodeId> {
        match self {
            Self::Refused { node, .. } => Some(*node),
            Self::Lost(loss) => loss.suspect,
            Self::Plan(_) | Self::Stopped => None,
        }
    }
}

impl RingPlan {
    fn spec(&self, seat: &Seat) -> StageSpec {
        StageSpec {
            model: self.model,
            layers: seat.layers.clone(),
            width: self.width,
            kv_tokens: self.kv_tokens,
            sequences: self.sequences,
            rows_max: self.rows_max,
        }
    }

    fn check(&self) -> Result<(), RaiseError> {
        let no = |text: String| Err(RaiseError::Plan(text));
        if self.workers.is_empty() || self.workers.len() > WORKERS_MAX {
            let workers = self.workers.len();
            return no(format!(
                "{workers} workers; from 1 to {WORKERS_MAX} are possible"
            ));
        }
        let mut next = 0;
        for (place, seat) in self.workers.iter().enumerate() {
            if seat.layers.start != next {
                return no(format!("stage {place} does not begin with layer {next}"));
            }
            next = seat.layers.end;
            if self.workers[..place].iter().any(|s| s.node == seat.node) {
                return no(format!("{} has two stages", seat.node.short()));
            }
            let checked = self.spec(seat).check();
            checked.map_err(|error: SpecError| RaiseError::Plan(error.to_string()))?;
        }
        Ok(())
    }
}
