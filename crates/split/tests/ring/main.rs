//! Rings over pipes, with layers that are arithmetic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod course;
mod evil;
mod fake;
mod flight;
mod leases;
mod loss;
mod measuring;
mod net;
mod replay;
mod rig;
#[cfg(feature = "solo")]
mod solo;
