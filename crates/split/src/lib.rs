//! Splitting one model by layers over several machines.
//!
//! - [`plan`] decides, without input or output, which machines run which layers and predicts how fast
//!   that will be.
//! - [`published`] holds the shapes of a few large models, so that they can be planned before
//!   anybody has downloaded them.
//! - [`weights`] brings the layers of a slice to the machine that runs them, and nothing else.
//!
//! The crate never samples and serves no HTTP; streams to other machines are handed to it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod plan;
pub mod published;
pub mod weights;
