//! Why a model can't be run by the machines that there are, in numbers, and what would help.

use std::fmt::{Debug, Display};
use std::time::Duration;

use thiserror::Error;

use super::ROUND_TRIP_MAX;
use super::render::ByteSize;
use super::search::STAGES_MAX;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal<I: Debug + Display> {
    /// There are no machines.
    #[error(
        "there are no machines to plan with; hint: start mesh-llm on one, or name some with --nodes"
    )]
    NoMachines,
    /// The wanted host is none of the machines.
    #[error(
        "{host} is not among the machines; hint: name one that is, or leave the choice to the plan"
    )]
    UnknownHost {
        /// The wanted one.
        host: I,
    },
    /// All machines together have too little memory.
    #[error(
        "needs {}, the machines have {} together; hint: add one with {}, or take a smaller quantisation or context",
        ByteSize(*.needed_bytes), ByteSize(*.available_bytes), ByteSize(*.missing_bytes)
    )]
    Memory {
        /// Weights × 1.1 and cache.
        needed_bytes: u64,
        /// What all machines give.
        available_bytes: u64,
        /// The difference.
        missing_bytes: u64,
    },
    /// The wanted host can't even keep embedding, head and its least number of layers.
    #[error(
        "{host} has {}, but a host keeps at least {} of this model; hint: let a larger machine be host",
        ByteSize(*.available_bytes), ByteSize(*.needed_bytes)
    )]
    Host {
        /// The wanted one.
        host: I,
        /// The least that a host keeps.
        needed_bytes: u64,
        /// What it gives.
        available_bytes: u64,
    },
    /// A split is wanted, but there is one machine.
    #[error(
        "a split takes two machines, and there is one; hint: add another, or {}",
        if *.is_asked { "leave --split out" } else { "take a smaller quantisation or context" }
    )]
    Alone {
        /// A user asked for it, and may leave that out.
        is_asked: bool,
    },
    /// It fits on no single machine, and can't be split.
    #[error(
        "{architecture} models can't be split; whole it needs {}, and the largest machine has {}; hint: {}",
        ByteSize(*.needed_bytes), ByteSize(*.largest_bytes),
        if *.is_asked && .needed_bytes <= .largest_bytes { "leave --split out" } else { "use a larger machine or a smaller quantisation" }
    )]
    Unsplittable {
        /// The architecture.
        architecture: String,
        /// What the whole model needs.
        needed_bytes: u64,
        /// Memory of the largest machine.
        largest_bytes: u64,
        /// As with [`Refusal::Alone`].
        is_asked: bool,
    },
    /// There is memory enough, but too far away.
    #[error(
        "needs {}, but machines within {} ms of each other have {}; the next, {from} and {to}, are {} ms apart; hint: use nearer machines or a smaller quantisation",
        ByteSize(*.needed_bytes), ROUND_TRIP_MAX.as_millis(), ByteSize(*.near_bytes), .round_trip.as_micros().div_ceil(1_000)
    )]
    TooFar {
        /// What the model needs.
        needed_bytes: u64,
        /// Memory of the largest group of near machines.
        near_bytes: u64,
        /// One end of the shortest link that is too long.
        from: I,
        /// The other.
        to: I,
        /// Its round trip.
        round_trip: Duration,
    },
    /// There is memory enough, but it is not known how far away.
    #[error(
        "needs {}, but machines whose distance is known have {}; the round trip between {from} and {to} is not; hint: wait until they have reached each other, or look whether something blocks them",
        ByteSize(*.needed_bytes), ByteSize(*.near_bytes)
    )]
    UnknownRoundTrip {
        /// What the model needs.
        needed_bytes: u64,
        /// Memory of the largest group of machines with known round trips.
        near_bytes: u64,
        /// One end of a link that was not measured.
        from: I,
        /// The other.
        to: I,
    },
    /// It would take more machines than a plan may have.
    #[error(
        "needs {}, which takes more than {STAGES_MAX} of these machines; hint: use larger machines or a smaller quantisation",
        ByteSize(*.needed_bytes)
    )]
    TooManyStages {
        /// What the model needs.
        needed_bytes: u64,
    },
    /// The memory would suffice in all, but no share of whole layers fits.
    #[error(
        "needs {}, and the machines have {}, but no share of whole layers fits them: the least stage takes {}; hint: add memory, or take a smaller quantisation or context",
        ByteSize(*.needed_bytes), ByteSize(*.available_bytes), ByteSize(*.piece_bytes)
    )]
    NoShare {
        /// What the model needs.
        needed_bytes: u64,
        /// What all machines give.
        available_bytes: u64,
        /// The largest piece between two cuts.
        piece_bytes: u64,
    },
}

impl<I: Debug + Display> Refusal<I> {
    /// The same where no user asked for a split, but the model was found to fit on no machine: leaving `--split` out
    /// would change nothing.
    #[must_use]
    pub fn unasked(mut self) -> Self {
        if let Self::Alone { is_asked } | Self::Unsplittable { is_asked, .. } = &mut self {
            *is_asked = false;
        }
        self
    }
}
