//! One running node: its models, its state, its start and stop.
//!
//! Owns which models are loaded, how a model's name finds its backend, the read-only
//! [`Snapshot`] that front ends show, and the order of a shutdown. Knows no HTTP and no API
//! dialect, reads no environment variable and prints nothing: whoever starts a node passes
//! [`Settings`] and shows the snapshot.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod error;
mod loader;
mod membership;
mod memory;
mod node;
mod plan;
mod settings;
mod snapshot;
#[cfg(feature = "solo")]
mod solo;
mod source;
pub mod store;

pub use error::{DropError, MeshRequestError, StartError};
pub use loader::{DraftPlan, Loader, Plan, Progress, Source};
pub use memory::{ByteSize, available_bytes};
pub use node::Node;
pub use settings::{Draft, MeshSettings, ModelSource, Settings};
pub use snapshot::{
    Demand, Host, HostedModel, Machine, MemberStatus, MeshStatus, ModelState, ModelStatus, Role,
    Snapshot, Target,
};
pub use source::{Search, name_of};
pub use store::{Details, LocalModel};
