//! Nodes with made-up engines, joined over real QUIC on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod assignment;
mod failover;
mod harm;
mod hostile_host;
mod routing;
mod script;
mod stopping;
#[cfg(feature = "solo")]
mod trials;
#[cfg(feature = "solo")]
mod whole;
mod world;
