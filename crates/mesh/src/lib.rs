//! The mesh: who a node is, whom it trusts, which nodes there are, and streams to them.
//!
//! - [`identity`]: the node key and the mesh files under the state directory.
//! - [`ticket`] and [`admission`]: invitations, certificates, revocation; pure.
//! - [`announcement`] and [`proto`]: what nodes say of themselves and who is alive; pure, simulated.
//! - `net`: iroh endpoint and connections; `handle`: the `Mesh` that other crates hold. Both need
//!   the feature `net`.
//!
//! The crate knows models only as opaque names and fingerprints, and no HTTP.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod addresses;
pub mod admission;
pub mod announcement;
#[cfg(any(feature = "net", feature = "simulation"))]
mod bucket;
pub mod codec;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(feature = "net")]
pub mod handle;
pub mod identity;
mod mesh_id;
#[cfg(feature = "net")]
pub mod net;
mod node_id;
pub mod proto;
mod role;
pub mod signature;
#[cfg(feature = "simulation")]
pub mod sim;
pub mod ticket;
#[cfg(any(feature = "net", feature = "fuzzing"))]
mod wire;

pub use addresses::{Addresses, AddressesWire, DIRECT_MAX, RELAY_BYTES_MAX};
#[cfg(feature = "net")]
pub use handle::{Admitted, Mesh};
pub use mesh_id::{MeshId, MeshIdParseError};
pub use node_id::{NodeId, NodeIdParseError};
pub use role::{Role, RoleParseError};
