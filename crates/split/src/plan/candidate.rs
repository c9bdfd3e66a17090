//! The machines that a plan may use, and how far they are from each other.

use std::fmt::{Debug, Display};
use std::time::Duration;

use thiserror::Error;

use super::speed::Speed;

/// Most machines that are looked at; of more, those with the most memory. The search takes milliseconds
/// for this many, and no model needs more than a handful.
pub const CANDIDATES_MAX: usize = 64;

/// Memory beyond this is counted as this much, in bytes, so that sums stay exact.
const MEMORY_BYTES_MAX: u64 = 1 << 60;

/// A machine that may run a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate<I> {
    /// Who it is.
    pub id: I,
    /// What it gives for this model.
    pub memory_bytes: u64,
    /// How fast it is.
    pub speed: Speed,
    /// True when the model's weights are on its disk.
    pub has_weights: bool,
}

/// Machines and the round trips between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool<I> {
    /// Ascending by id, so that the order of arrival does not matter.
    candidates: Vec<Candidate<I>>,
    /// Of machines `a` and `b` at `a * len + b`; `None` where it is not known.
    round_trips: Vec<Option<Duration>>,
}

/// Why machines are no pool.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolError<I: Debug + Display> {
    /// The same machine twice.
    #[error("machine {id} occurs twice")]
    Duplicate {
        /// Which.
        id: I,
    },
    /// A round trip of a machine that is not in the pool, or to itself.
    #[error("there is no link between {from} and {to}")]
    NoLink {
        /// One end.
        from: I,
        /// The other.
        to: I,
    },
}

impl<I: Copy + Ord + Debug + Display> Pool<I> {
    /// Machines without known round trips.
    ///
    /// # Errors
    /// [`PoolError::Duplicate`].
    pub fn new(candidates: impl IntoIterator<Item = Candidate<I>>) -> Result<Self, PoolError<I>> {
        let mut candidates: Vec<_> = candidates.into_iter().collect();
        candidates.sort_by_key(|candidate| candidate.id);
        for candidate in &mut candidates {
            candidate.memory_bytes = candidate.memory_bytes.min(MEMORY_BYTES_MAX);
        }
        if let Some(pair) = candidates.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(PoolError::Duplicate { id: pair[0].id });
        }
        let round_trips = vec![None; candidates.len() * candidates.len()];
        Ok(Self {
            candidates,
            round_trips,
        })
    }

    /// Sets the round trip between two machines, whichever of them measured it.
    ///
    /// # Errors
    /// [`PoolError::NoLink`] when one of them is not in the pool, or both are the same.
    pub fn link(&mut self, from: I, to: I, round_trip: Duration) -> Result<(), PoolError<I>> {
        let (Some(a), Some(b)) = (self.place(from), self.place(to)) else {
            return Err(PoolError::NoLink { from, to });
        };
        if a == b {
            return Err(PoolError::NoLink { from, to });
        }
        let count = self.candidates.len();
        self.round_trips[a * count + b] = Some(round_trip);
        self.round_trips[b * count + a] = Some(round_trip);
        Ok(())
    }

    /// The machines, ascending by id.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate<I>] {
        &self.candidates
    }

    /// Round trip between two machines, if both are here and it is known.
    #[must_use]
    pub fn round_trip(&self, from: I, to: I) -> Option<Duration> {
        self.between(self.place(from)?, self.place(to)?)
    }

    pub(super) fn place(&self, id: I) -> Option<usize> {
        self.candidates
            .binary_search_by_key(&id, |candidate| candidate.id)
            .ok()
    }

    pub(super) fn between(&self, a: usize, b: usize) -> Option<Duration> {
        self.round_trips[a * self.candidates.len() + b]
    }

    /// Places of the machines that are looked at.
    pub(super) fn shortlist(&self, host: Option<usize>) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.candidates.len()).collect();
        if places.len() > CANDIDATES_MAX {
            places.sort_by_key(|&place| {
                let candidate = &self.candidates[place];
                let memory = std::cmp::Reverse(candidate.memory_bytes);
                (Some(place) != host, memory, candidate.speed, place)
            });
            places.truncate(CANDIDATES_MAX);
        }
        places
    }
}
