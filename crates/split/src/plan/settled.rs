//! Plans of which something is settled before: all of it, or what the host runs.

use std::fmt::{Debug, Display};
use std::ops::Range;

use super::candidate::Pool;
use super::outcome::{Outcome, Plan};
use super::problem::hop;
use super::ring::Ring;
use super::search::Request;
use super::shape::{Layer, ModelShape, Parts};
use super::share::Share;
use super::track::Track;

/// Weights of the layer that stands for what the host runs: more than any machine has room for, so that
/// it stays where it is. Divisible by ten, so that the host's memory is exactly full with it.
const PINNED_BYTES: u64 = 500_000_000_000_000;

/// What to expect of machines whose shares are settled, the host's last; they are taken to fit. `None` when
/// a machine is not in the pool, the way from one to the next is not known, or the layers are not those of
/// the model in legal stages.
#[must_use]
pub fn settled<I: Copy + Ord + Debug + Display>(
    model: &ModelShape,
    pool: &Pool<I>,
    request: &Request<I>,
    stages: &[(I, Range<u32>)],
) -> Option<Plan<I>> {
    let track = Track::new(model, request.room());
    let mut order = Vec::with_capacity(stages.len());
    let mut shares = Vec::with_capacity(stages.len());
    let mut next = 0;
    for (id, layers) in stages {
        let (start, end) = (track.cut(layers.start)?, track.cut(layers.end)?);
        if start != next || end <= start {
            return None;
        }
        next = end;
        order.push(pool.place(*id)?);
        shares.push(start..end);
    }
    let outcome = Outcome {
        pool,
        track: &track,
        sequences: request.sequences.max(1),
    };
    if next != track.pieces() {
        return None;
    }
    if let [place] = order[..] {
        return Some(outcome.whole(place));
    }
    let mut delay = 0;
    for (&from, &to) in order.iter().zip(order.iter().cycle().skip(1)) {
        delay += hop(pool.between(from, to)?);
    }
    let ring = Ring { delay, order };
    let share = Share {
        stages: shares,
        time: 0,
    };
    Some(outcome.ring(&ring, &share))
}

/// A model whose layers from some on stay on the host. They count as one layer, number `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The model as the planner is to see it.
    pub shape: ModelShape,
    /// The memory that the host is to have for it: exactly what is its own.
    pub host_bytes: u64,
}

impl ModelShape {
    /// Leaves the layers from `start` on, embedding and head to the host. `None` if no stage may begin
    /// there.
    #[must_use]
    pub fn pinned(&self, start: u32) -> Option<Pinned> {
        let parts = self.parts();
        if !parts.cuts.contains(&start) {
            return None;
        }
        let (front, tail) = parts.layers.split_at_checked(start as usize)?;
        let active = tail.iter().map(|layer| layer.active_bytes);
        let pinned = Layer {
            weight_bytes: PINNED_BYTES,
            active_bytes: active.sum::<u64>() + parts.head_active_bytes,
            kv_token_bytes: 0,
            kv_tokens_max: None,
            state_bytes: 0,
        };
        let shape = Self::new(Parts {
            architecture: parts.architecture.clone(),
            layers: front.iter().copied().chain([pinned]).collect(),
            embedding_bytes: 0,
            head_bytes: 0,
            head_active_bytes: 0,
            width: parts.width,
            cuts: (parts.cuts.iter().copied())
                .filter(|cut| *cut <= start)
                .collect(),
        });
        Some(Pinned {
            shape: shape.ok()?,
            host_bytes: PINNED_BYTES / 10 * 11,
        })
    }

    /// Bytes that layers read for one token; those beyond the last layer count for nothing.
    #[must_use]
    pub fn active_bytes(&self, layers: Range<u32>) -> u64 {
        let layers = layers.start as usize..layers.end as usize;
        let all = self.parts().layers.iter().enumerate();
        let chosen = all.filter(|(number, _)| layers.contains(number));
        chosen.map(|(_, layer)| layer.active_bytes).sum()
    }
}
