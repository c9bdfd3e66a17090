//! What tests and benches need and users never see: synthetic models of every architecture, and
//! emulated networks.
//! Nothing outside tests and benches depends on this crate.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod corpus;
pub mod model;
#[cfg(all(feature = "net", target_os = "linux"))]
pub mod net;
#[cfg(feature = "net")]
pub mod trial;
