//! Slices come to a machine whole: from members over streams in memory, from a hub on this
//! machine, from its own files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cache;
mod hub;
mod obtaining;
mod peers;
mod serving;
mod world;
