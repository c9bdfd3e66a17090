//! What tests and benches need and users never see: synthetic models of every architecture.
//! Nothing outside tests and benches depends on this crate.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod model;
