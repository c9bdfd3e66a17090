//! What is asked of a node, other than invitations, and the answers to it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Join a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The ticket, as `mesh-llm invite` printed it.
    pub ticket: String,
}

/// The node is a member now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Joined {
    /// Of which mesh, 64 hexadecimal digits.
    pub mesh_id: String,
}

/// Load or drop a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelRequest {
    /// Its name; for loading also the path of a GGUF file on the node's machine.
    pub model: String,
}

/// A model whose loading or dropping has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelNamed {
    /// Its name.
    pub model: String,
}
