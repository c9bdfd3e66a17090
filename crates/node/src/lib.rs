//! One running node: its models, its place in a mesh, its state, its start and stop.
//!
//! Owns which models are loaded, which host answers a request, what nodes say to each other for
//! that, the read-only [`Snapshot`] that front ends show, and the order of a shutdown. Knows no HTTP and no API
//! dialect, reads no environment variable and prints nothing: whoever starts a node passes
//! [`Settings`] and shows the snapshot.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod affinity;
mod answer;
mod demand;
mod directory;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ingress;
mod journal;
mod layout;
mod library;
mod loader;
mod membership;
mod memory;
mod models;
mod node;
mod peer;
mod picture;
mod plan;
mod promotion;
mod remote;
mod route;
mod settings;
mod snapshot;
#[cfg(feature = "solo")]
mod solo;
mod source;
#[cfg(feature = "solo")]
mod split;
pub mod store;
mod succession;
mod wire;

pub use ::split::weights::Phase as LoadPhase;
pub use answer::{Answer, Computes};
pub use error::{DropError, MeshRequestError, StartError};
pub use layout::{Layout, LayoutStage, LoadingStage};
pub use loader::{DraftPlan, Loader, Plan, Progress, Source};
pub use memory::{ByteSize, available_bytes, disk_free_bytes};
pub use node::Node;
pub use settings::{Draft, Hub, MeshSettings, ModelSource, Settings, SplitModels};
pub use snapshot::{
    Demand, Host, HostedModel, Machine, MemberStatus, MeshStatus, ModelState, ModelStatus, Role,
    Snapshot, Target,
};
pub use source::{Search, name_of};
pub use store::{Details, LocalModel};
