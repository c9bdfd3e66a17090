//! Membership of many nodes on a virtual clock and a virtual network.
//!
//! Each property is checked for several seeds, sizes and networks. A failure names its case; the same
//! case fails the same way each time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chaos;
mod clients;
mod convergence;
mod death;
mod flapping;
mod growth;
mod hostile;
mod stale;
mod worlds;
