//! The node's state as front ends see it: immutable, complete, cheap to clone.

use std::sync::Arc;

use engine::{Load, ModelInfo};

/// State of a node at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// When the node was started, Unix seconds.
    pub started_unix_s: u64,
    /// Version of the program.
    pub version: &'static str,
    /// Every model the node was asked to serve, in that order.
    pub models: Vec<ModelStatus>,
    /// Whether the node refuses new requests because it is about to stop.
    pub shutting_down: bool,
}

impl Snapshot {
    /// Whether every model is ready. A node without models is.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.models
            .iter()
            .all(|model| model.state == ModelState::Ready)
    }
}

/// State of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelStatus {
    /// Name under which it is, or will be, served.
    pub name: String,
    /// How far it is.
    pub state: ModelState,
    /// What it is, once ready.
    pub info: Option<Arc<ModelInfo>>,
    /// What it does; zeros until ready.
    pub load: Load,
}

/// How far a model is.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelState {
    /// It is being loaded, or waits for its turn.
    Loading {
        /// Share that is loaded, 0 to 1.
        progress: f32,
    },
    /// It answers requests.
    Ready,
    /// It could not be loaded.
    Failed {
        /// Why.
        reason: String,
    },
}
