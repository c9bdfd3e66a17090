//! Splitting one model by layers over several machines.
//!
//! - [`plan`] decides, without input or output, which machines run which layers and predicts how fast
//!   that will be.
//! - [`published`] holds the shapes of a few large models, so that they can be planned before
//!   anybody has downloaded them.
//! - [`station`] is one machine's part in rings: it leases stages to hosts (`worker`, [`lease`]) and
//!   raises rings of its own ([`ring`]). [`wire`] is what travels between them, over whatever
//!   [`transport`] gives; [`layers`] is what computes.
//! - [`recovery`] decides what happens when a machine of a ring is lost, leaves or is slow; [`pace`] is how
//!   fast it was.
//! - [`handover`] brings a frame from thread to thread without waking another core.
//! - [`weights`] brings the layers of a slice to the machine that runs them, and nothing else.
//!
//! The crate never samples and serves no HTTP; streams to other machines are handed to it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod dock;
pub mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod handover;
pub mod layers;
pub mod lease;
pub mod pace;
pub mod plan;
pub mod published;
pub mod recovery;
pub mod ring;
#[cfg(feature = "solo")]
mod solo;
pub mod spec;
pub mod station;
mod trail;
pub mod transport;
pub mod wire;
mod worker;

pub use trail::{TRAIL_BYTES_MAX, TrailRoom};
pub use worker::{FRAMES_HELD_MAX, Usage};
pub mod weights;
