//! Owns what a node says of itself: its fields and their limits. The bytes and the signature are
//! in [`signed`]; when it is said and believed is decided in `proto`.
//!
//! Models are opaque here: a name and a fingerprint.

#[cfg(any(feature = "net", feature = "fuzzing"))]
pub(crate) mod addresses;
mod limits;
mod signed;
mod wire;

pub use limits::*;
pub use signed::{AnnouncementError, Authority, RevocationVerdict, Signature, Signed};
pub(crate) use signed::{departure_hash, item_hash};
pub(crate) use wire::{WireRate, rates as rates_from_wire};

use crate::{MeshId, NodeId, Role};

/// What a node says of itself at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    /// The mesh it is said in.
    pub mesh: MeshId,
    /// Who says it.
    pub node: NodeId,
    /// Which life of the node: higher after each start and after each death that was declared of it.
    pub incarnation: u64,
    /// Counts the announcements of one life.
    pub sequence: u64,
    /// How long it holds without being renewed, in milliseconds.
    pub ttl_ms: u64,
    /// The node goes away; this is its last word in this life.
    pub leaving: bool,
    /// What its membership allows.
    pub role: Role,
    /// Measured round trips to some of its neighbours.
    pub round_trips: Vec<RoundTrip>,
    /// Everything that the node itself decides.
    pub info: NodeInfo,
}

/// The part of an announcement that the node decides and `mesh` only carries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeInfo {
    /// What it does at the moment.
    pub state: NodeState,
    /// A name for people.
    pub name: String,
    /// Where it stands, as its owner says.
    pub region: String,
    /// Version of the program.
    pub version: String,
    /// When the program started, in Unix milliseconds by its own clock.
    pub started_at_unix_ms: u64,
    /// Ways to dial it, opaque to everything but the network code.
    pub addresses: Vec<Vec<u8>>,
    /// Processors and accelerators, in words.
    pub devices: Vec<String>,
    /// Memory that models could use, in bytes.
    pub memory_total_bytes: u64,
    /// Memory of that kind that is free, in bytes.
    pub memory_free_bytes: u64,
    /// How fast it computes, once measured.
    pub compute: Option<Compute>,
    /// Models that answer now.
    pub serving: Vec<ServedModel>,
    /// Models that it asks the mesh for.
    pub wanted: Vec<Model>,
    /// Models on its disk.
    pub local: Vec<Model>,
    /// Requests that entered the mesh at this node.
    pub rates: Vec<ModelRate>,
    /// Models that it hosts over several machines, or is about to.
    pub splits: Vec<SplitModel>,
}

/// How fast a node computes, whatever the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compute {
    /// Megabytes (10^6) a second that its threads read from memory together.
    pub bandwidth_mb_s: u32,
    /// Threads that compute.
    pub threads: u32,
}

/// What a node does at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// It runs at least one model.
    Serving,
    /// It could run one.
    Standby,
    /// It never runs one. Pulls the table and announces nothing.
    Client,
    /// Dormant. Pulls the table and announces nothing.
    #[default]
    Idle,
    /// It has joined, and its model still loads.
    Joining,
}

impl NodeState {
    /// Whether such a node announces itself. The others pull the table.
    #[must_use]
    pub const fn announces(self) -> bool {
        matches!(self, Self::Serving | Self::Standby | Self::Joining)
    }
}

/// A model, as far as the mesh knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// The name users ask for.
    pub name: String,
    /// Identity of the content, opaque.
    pub fingerprint: String,
    /// Size of the file, in bytes.
    pub size_bytes: u64,
    /// Tokens that fit into its context.
    pub context_length: u32,
    /// It only drafts for another model and is never listed.
    pub draft: bool,
    /// It makes embeddings and generates no text.
    pub embeds: bool,
}

/// A model that answers now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServedModel {
    /// Which one.
    pub model: Model,
    /// How many requests run at once.
    pub slots: u32,
    /// How many run.
    pub busy: u32,
    /// How many wait.
    pub queued: u32,
}

/// A model whose layers run on several machines, as its host tells of it: enough for another member to
/// become its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SplitModel {
    /// Which one.
    pub model: Model,
    /// How many requests run at once.
    pub slots: u32,
    /// Counts the hosts of the model that came one after another.
    pub term: u32,
    /// How far it is.
    pub stage: SplitStage,
    /// It is split although it might fit on one machine.
    pub forced: bool,
    /// Memory that the host's own part takes, in bytes.
    pub host_bytes: u64,
}

/// How far a model over several machines is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SplitStage {
    /// It waits for machines or memory.
    #[default]
    Waiting,
    /// It is being brought up.
    Coming,
    /// It answers.
    Ready,
}

/// How often a model is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelRate {
    /// The model's name.
    pub model: String,
    /// Requests per minute; finite and not negative.
    pub per_minute: f32,
}

/// A measured round trip to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// The first eight bytes of the other node's key, which tell members of one mesh apart.
    pub peer: u64,
    /// Its length in microseconds.
    pub us: u32,
}

impl RoundTrip {
    /// Whether it leads to `node`.
    #[must_use]
    pub fn is_to(&self, node: NodeId) -> bool {
        self.peer == node.prefix()
    }
}

impl NodeInfo {
    /// Cuts every string and list to its limit, so that what this node says of itself is always
    /// accepted by others.
    pub fn trim(&mut self) {
        cut(&mut self.name, NAME_BYTES_MAX);
        cut(&mut self.region, REGION_BYTES_MAX);
        cut(&mut self.version, VERSION_BYTES_MAX);
        self.addresses.retain(|a| a.len() <= ADDRESS_BYTES_MAX);
        self.addresses.truncate(ADDRESSES_MAX);
        self.devices.truncate(DEVICES_MAX);
        self.devices
            .iter_mut()
            .for_each(|d| cut(d, DEVICE_BYTES_MAX));
        self.serving.truncate(SERVING_MODELS_MAX);
        self.wanted.truncate(WANTED_MODELS_MAX);
        self.local.truncate(LOCAL_MODELS_MAX);
        self.rates
            .retain(|r| r.per_minute.is_finite() && r.per_minute >= 0.0);
        self.rates.truncate(RATES_MAX);
        self.rates
            .iter_mut()
            .for_each(|r| cut(&mut r.model, MODEL_NAME_BYTES_MAX));
        self.splits.truncate(SPLIT_MODELS_MAX);
        let served = self.serving.iter_mut().map(|s| &mut s.model);
        let split = self.splits.iter_mut().map(|s| &mut s.model);
        let named = served.chain(split);
        for model in named.chain(&mut self.wanted).chain(&mut self.local) {
            cut(&mut model.name, MODEL_NAME_BYTES_MAX);
            cut(&mut model.fingerprint, FINGERPRINT_BYTES_MAX);
        }
    }

    /// Whether the change to `new` must be told at once: what the node does, which models answer,
    /// or how it is reached. Load, memory and rates can wait.
    #[must_use]
    pub fn differs_urgently(&self, new: &Self) -> bool {
        let models =
            |info: &Self| -> Vec<Model> { info.serving.iter().map(|s| s.model.clone()).collect() };
        self.state != new.state
            || self.addresses != new.addresses
            || self.serving.len() != new.serving.len()
            || models(self) != models(new)
            || self.splits != new.splits
            // Told once: whoever plans a model over several machines waits for it.
            || self.compute.is_none() && new.compute.is_some()
    }
}

/// Cuts at the last whole character within `bytes_max`.
fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

#[cfg(test)]
mod tests;
