//! Real nodes with real QUIC on the loopback interface, in one process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admission;
mod bulk;
mod harm;
mod members;
mod nodes;
mod relay;
mod streams;
