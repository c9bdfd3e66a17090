//! The node's state as front ends see it: immutable, complete, cheap to clone.

use crate::layout::{Layout, LoadingStage};
use std::sync::Arc;

use engine::{Load, ModelInfo};
use mesh::net::Link;
use mesh::proto::Liveness;
use mesh::{MeshId, NodeId};

/// State of a node at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// When the node was started, Unix seconds.
    pub started_unix_s: u64,
    /// Version of the program.
    pub version: &'static str,
    /// Every model that this node serves or was asked to serve, in that order.
    pub models: Vec<ModelStatus>,
    /// Whether the node refuses new requests because it is about to stop.
    pub shutting_down: bool,
    /// The machine under it.
    pub machine: Machine,
    /// The mesh it is a member of.
    pub mesh: Option<Arc<MeshStatus>>,
    /// Every model that can be asked for here, with who serves it, by name.
    pub targets: Vec<Target>,
    /// Models that the mesh was asked for lately, the most wanted first.
    pub demand: Vec<Demand>,
}

impl Snapshot {
    /// Whether every model is ready. A node without models is.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.models.iter().all(|model| model.state.answers())
    }
}

/// State of one model of this node.
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
    /// How it lies over several machines, if it does.
    pub layout: Option<Arc<Layout>>,
    /// Machines that load their share of it at the moment.
    pub loading: Vec<LoadingStage>,
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
    /// It waits for machines, or for memory.
    Waiting {
        /// Why.
        reason: String,
    },
    /// All of it runs on another machine of the mesh, which this node has asked for that; requests go there.
    Elsewhere {
        /// What people call that machine.
        host: String,
    },
    /// It takes no new requests; running ones may finish.
    Dropping,
    /// It could not be loaded.
    Failed {
        /// Why.
        reason: String,
    },
}

impl ModelState {
    /// Whether it answers requests, here or elsewhere.
    fn answers(&self) -> bool {
        matches!(self, Self::Ready | Self::Elsewhere { .. })
    }
}

/// The machine that a node runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// What people call it.
    pub name: String,
    /// Where it stands, as its owner says; may be empty.
    pub region: String,
    /// Processors and accelerators, in words.
    pub devices: Vec<String>,
    /// Memory that models may use in all, bytes.
    pub memory_total_bytes: u64,
    /// Of that, free at the last look, bytes.
    pub memory_free_bytes: u64,
    /// Megabytes (10^6) a second that inference threads read from it, once measured.
    pub bandwidth_mb_s: Option<u32>,
}

/// What a node does in its mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// In no mesh, without a model: waits to be told what to do.
    Idle,
    /// Could run a model, runs none.
    Standby,
    /// Its first model is being loaded.
    Joining,
    /// Runs at least one model.
    Serving,
    /// Never runs one.
    Client,
}

impl Role {
    /// The word for it in commands and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Standby => "standby",
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Client => "client",
        }
    }
}

/// The mesh as this node sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshStatus {
    /// Which mesh.
    pub id: MeshId,
    /// What people call it.
    pub name: Option<String>,
    /// This node in it.
    pub me: NodeId,
    /// What this node does in it.
    pub role: Role,
    /// All members that announce themselves, this node among them if it does; those that left or
    /// died within the last half hour too.
    pub members: Vec<MemberStatus>,
    /// Clients that are connected to this node.
    pub clients: usize,
    /// Open connections of this node.
    pub links: Vec<Link>,
}

/// One member of the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberStatus {
    /// Who.
    pub id: NodeId,
    /// Whether it lives.
    pub liveness: Liveness,
    /// What it does.
    pub role: Role,
    /// The machine under it.
    pub machine: Machine,
    /// Version of its program.
    pub version: String,
    /// When its program started, in Unix milliseconds by its own clock.
    pub started_unix_ms: u64,
    /// Models that it answers for.
    pub serving: Vec<HostedModel>,
    /// Names of models on its disk.
    pub local: Vec<String>,
    /// Names of models that it asks the mesh for.
    pub wanted: Vec<String>,
    /// Round trip from here, microseconds, once measured.
    pub round_trip_us: Option<u32>,
    /// Whether there is an open connection to it.
    pub connected: bool,
}

/// A model at one of its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostedModel {
    /// Its name.
    pub name: String,
    /// Identity of its content.
    pub fingerprint: String,
    /// Size of its weights, bytes.
    pub size_bytes: u64,
    /// Tokens that fit into its context.
    pub context_tokens: u32,
    /// Requests that can run at the same time.
    pub slots: u32,
    /// Requests that run.
    pub busy: u32,
    /// Requests that wait.
    pub queued: u32,
}

/// A model that can be asked for, and who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name to ask for.
    pub model: String,
    /// Size of its weights, bytes.
    pub size_bytes: u64,
    /// Tokens that fit into its context.
    pub context_tokens: u32,
    /// Who serves it, this node first.
    pub hosts: Vec<Host>,
}

/// Who serves a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Which node; `None` for this node while it is in no mesh.
    pub node: Option<NodeId>,
    /// What people call its machine.
    pub name: String,
    /// Whether it is this node.
    pub local: bool,
    /// Requests that can run at the same time.
    pub slots: u32,
    /// Requests that run.
    pub busy: u32,
    /// Requests that wait.
    pub queued: u32,
}

/// How often a model is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// The name that was asked for.
    pub model: String,
    /// Requests per minute in the whole mesh.
    pub per_minute: f32,
    /// Of these, requests that came in at this node.
    pub here_per_minute: f32,
}
