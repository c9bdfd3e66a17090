//! Owns the simulation of many nodes on a virtual clock and a virtual network.
//!
//! Each node is an integer that runs the real [`proto::State`](crate::proto::State) and writes real
//! messages; only signatures are stand-ins. One seed gives one run, to the last effect.
//!
//! - [`Simulation`]: time, nodes, network; what can be done to them and asked of them.
//! - [`survey`]: how fast news travels and what it costs, by the number of nodes.

mod agenda;
mod authority;
mod connections;
mod happening;
mod mishaps;
mod mixing;
mod network;
mod node;
mod observation;
mod simulation;
pub mod survey;
mod traffic;

pub use connections::IDLE_MS;
pub use mishaps::Memory;
pub use network::{Network, Quality};
pub use node::Kind;
pub use simulation::{Settings, Simulation};
pub use traffic::{MESSAGE_KINDS, Traffic};
