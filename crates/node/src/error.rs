//! Why a node can't serve what it was asked to serve.

use std::path::PathBuf;

use thiserror::Error;

use crate::memory::ByteSize;

/// Why a node, or one model of it, did not start.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum StartError {
    /// No file has the model's name.
    #[error("no model `{model}` on this machine; hint: {hint}")]
    NotFound {
        /// What was asked for.
        model: String,
        /// What to do next.
        hint: String,
    },
    /// Several files could be meant.
    #[error(
        "`{model}` could be any of {}; hint: give the full name or the path",
        .candidates.join(", ")
    )]
    Ambiguous {
        /// What was asked for.
        model: String,
        /// The names that start so.
        candidates: Vec<String>,
    },
    /// The file can't be opened.
    #[error("can't read {}: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// Two models would have the same name.
    #[error("two models are called `{name}`; hint: load one of them, or rename a file")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// The models need more memory than there is.
    #[error(
        "not enough memory for {}: {} needed, {} free; hint: {hint}",
        .models.join(" and "), ByteSize(*.needed_bytes), ByteSize(*.free_bytes)
    )]
    Memory {
        /// Names of the models; of several, with the need of each.
        models: Vec<String>,
        /// Needed by all of them, bytes.
        needed_bytes: u64,
        /// Available on this machine, bytes.
        free_bytes: u64,
        /// What to do next.
        hint: String,
    },
    /// The model can't be loaded.
    #[error("can't load `{model}`: {reason}")]
    Load {
        /// Name of the model.
        model: String,
        /// The engine's reason.
        reason: String,
    },
    /// The program was built without an engine.
    #[error(
        "this build can't run models itself; hint: build with the feature `solo`, or connect to a running node"
    )]
    NoEngine,
    /// Clients never run models.
    #[error("this node is a client and runs no models; hint: start it without --client")]
    Client,
    /// The node was shut down before it was ready.
    #[error("shut down while loading")]
    ShutDown,
}

/// Why something with the mesh was refused.
#[derive(Debug, Error)]
pub enum MeshRequestError {
    /// The node is in no mesh.
    #[error(
        "this node is in no mesh; hint: join one with `mesh-llm join TICKET`, or start with --model to open one"
    )]
    NotInMesh,
    /// Nothing to come back to.
    #[error("this node was in no mesh before; hint: join one with `mesh-llm join TICKET`")]
    NoLastMesh,
    /// The mesh's own reason.
    #[error(transparent)]
    Mesh(#[from] mesh::net::MeshError),
    /// The node is about to stop.
    #[error("shutting down")]
    ShuttingDown,
}

/// Why a model can't be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DropError {
    /// This node has no such model.
    #[error("this node does not serve `{model}`; hint: {hint}")]
    NotServed {
        /// What was asked for.
        model: String,
        /// What it serves.
        hint: String,
    },
}
