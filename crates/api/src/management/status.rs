//! `GET /api/status`: the wire form of a node's snapshot.
//!
//! Made by hand from [`node::Snapshot`], so that what the node renames inside does not break
//! those who read this outside. Everything can be read back, by the terminal's `status` among
//! others; readers ignore fields that they do not know.

mod split;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::split::{Split, SplitFirstToken, SplitLoading, SplitPhase, SplitStage};

/// Version of the format. It grows when a field goes or changes its meaning, not when one comes.
pub const SCHEMA: u32 = 1;

/// The state of a node and of its mesh, as the node sees it at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of this format: 1. It grows when a field goes or changes its meaning.
    pub schema: u32,
    /// This node.
    pub node: NodeStatus,
    /// The mesh that it is a member of.
    #[schema(required)]
    pub mesh: Option<Mesh>,
    /// Models that this node serves or was asked to serve.
    pub models: Vec<Model>,
    /// The other members of the mesh; those that left or died within the last half hour too.
    pub peers: Vec<Peer>,
    /// Every model that can be asked for here, with who serves it, by name.
    pub targets: Vec<Target>,
    /// Models that the mesh was asked for lately, the most wanted first.
    pub demand: Vec<Demand>,
    /// Open connections of this node.
    pub links: Vec<Link>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Its public key, 64 hexadecimal digits; `null` while it is in no mesh.
    #[schema(required)]
    pub id: Option<String>,
    /// What people call the machine.
    pub name: String,
    /// Where it stands, in its owner's words; may be empty.
    pub region: String,
    /// Version of the program.
    pub version: String,
    /// What it does.
    pub role: Role,
    /// Whether it is about to stop.
    pub stopping: bool,
    /// When it was started, Unix seconds.
    pub started_unix_s: u64,
    /// Processors and accelerators, in words.
    pub devices: Vec<String>,
    /// Memory that models may use in all, bytes.
    pub memory_total_bytes: u64,
    /// Of that, free, bytes.
    pub memory_free_bytes: u64,
    /// Megabytes (10^6) a second that inference threads read from it; null until that was measured.
    #[serde(default)]
    #[schema(required)]
    pub bandwidth_mb_s: Option<u32>,
    /// URL of its inference API, if that is known.
    #[schema(required)]
    pub api_url: Option<String>,
}

/// The mesh that a node is a member of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mesh {
    /// Which mesh, 64 hexadecimal digits.
    pub id: String,
    /// What people call it.
    #[schema(required)]
    pub name: Option<String>,
    /// Clients that are connected to this node.
    pub clients: u64,
}

/// What a node does in its mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
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
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// A model of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Name under which it is, or will be, served.
    pub name: String,
    /// How far it is.
    pub state: ModelPhase,
    /// Share that is loaded, 0 to 1.
    pub progress: f32,
    /// Why it failed, what it waits for, or where it runs.
    #[schema(required)]
    pub reason: Option<String>,
    /// Identity of its content; empty until it is ready.
    pub fingerprint: String,
    /// Size of its weights, bytes; 0 until it is ready, as the following.
    pub size_bytes: u64,
    /// Tokens that fit into its context.
    pub context_tokens: u32,
    /// Requests that can run at the same time.
    pub slots: u32,
    /// Requests that run.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// Tokens that it generated since it was loaded.
    pub generated_tokens: u64,
    /// How it lies over several machines; absent for a model that runs here alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Machines that fetch or load their share of it at the moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loading: Vec<SplitLoading>,
}

/// How far a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelPhase {
    /// It is being loaded, or waits for its turn.
    Loading,
    /// It answers requests.
    Ready,
    /// It waits for machines, or for memory; `reason` says for which.
    Waiting,
    /// All of it runs on another machine; `reason` says on which. Requests go there.
    Elsewhere,
    /// It takes no new requests; running ones may finish.
    Dropping,
    /// It could not be loaded.
    Failed,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// Another member of the mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its public key, 64 hexadecimal digits.
    pub id: String,
    /// What people call the machine.
    pub name: String,
    /// Where it stands, in its owner's words; may be empty.
    pub region: String,
    /// Whether it lives.
    pub liveness: Liveness,
    /// What it does.
    pub role: Role,
    /// Version of its program.
    pub version: String,
    /// When its program started, in Unix milliseconds by its own clock.
    pub started_unix_ms: u64,
    /// Processors and accelerators, in words.
    pub devices: Vec<String>,
    /// Memory that models may use in all, bytes.
    pub memory_total_bytes: u64,
    /// Of that, free, bytes.
    pub memory_free_bytes: u64,
    /// Megabytes (10^6) a second that inference threads read from it; null until that was measured.
    #[serde(default)]
    #[schema(required)]
    pub bandwidth_mb_s: Option<u32>,
    /// Models that it answers for.
    pub serving: Vec<HostedModel>,
    /// Names of models on its disk.
    pub local: Vec<String>,
    /// Names of models that it asks the mesh for.
    pub wanted: Vec<String>,
    /// Round trip from here, microseconds, once measured.
    #[schema(required)]
    pub round_trip_us: Option<u32>,
    /// Whether there is an open connection to it.
    pub connected: bool,
}

/// Whether a member lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// As far as anybody knows.
    Alive,
    /// Somebody hears nothing from it.
    Suspect,
    /// Declared dead, or silent for too long.
    Dead,
    /// It said goodbye.
    Left,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// A model at one of its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
}

/// A model that can be asked for, and who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Which node; `null` for this node while it is in no mesh.
    #[schema(required)]
    pub node: Option<String>,
    /// What people call its machine.
    pub name: String,
    /// Whether it is this node.
    pub local: bool,
    /// Requests that can run at the same time.
    pub slots: u32,
    /// Requests that run.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
}

/// How often a model is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Demand {
    /// The name that was asked for.
    pub model: String,
    /// Requests per minute in the whole mesh, to a tenth.
    pub per_minute: f32,
    /// Of these, requests that came in at this node.
    pub here_per_minute: f32,
}

/// An open connection to another member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// To whom.
    pub node: String,
    /// Whether the other one is a client.
    pub client: bool,
    /// Which way packets go.
    pub path: PathKind,
    /// The address, or the relay's URL.
    #[schema(required)]
    pub address: Option<String>,
    /// Round trip on that way, microseconds.
    pub round_trip_us: u64,
    /// Bytes sent in UDP packets.
    pub sent_bytes: u64,
    /// Bytes received in UDP packets.
    pub received_bytes: u64,
    /// Since when it stands, Unix seconds.
    pub since_unix_s: u64,
    /// Streams of requests that are open.
    pub streams: u64,
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Straight to the other machine.
    Direct,
    /// Through a relay.
    Relayed,
    /// Not settled yet, or of a kind that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Status {
    /// The wire form of a snapshot. `api_url` is where the node's inference API is.
    #[must_use]
    pub fn of(snapshot: &Snapshot, api_url: Option<&str>) -> Self {
        let mesh = snapshot.mesh.as_deref();
        let now_unix_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs();
        Self {
            schema: SCHEMA,
            node: NodeStatus::of(snapshot, api_url),
            mesh: mesh.map(Mesh::from),
            models: snapshot.models.iter().map(Model::from).collect(),
            peers: mesh.map_or_else(Vec::new, |mesh| {
                let others = mesh.members.iter().filter(|member| member.id != mesh.me);
                others.map(Peer::from).collect()
            }),
            targets: snapshot.targets.iter().map(Target::from).collect(),
            demand: snapshot.demand.iter().map(Demand::from).collect(),
            links: mesh.map_or_else(Vec::new, |mesh| {
                let links = mesh.links.iter();
                links.map(|link| Link::of(link, now_unix_s)).collect()
            }),
        }
    }
}

impl NodeStatus {
    fn of(snapshot: &Snapshot, api_url: Option<&str>) -> Self {
        let mesh = snapshot.mesh.as_deref();
        let machine = &snapshot.machine;
        Self {
            id: mesh.map(|mesh| mesh.me.to_string()),
            name: machine.name.clone(),
            region: machine.region.clone(),
            version: snapshot.version.to_owned(),
            role: mesh.map_or_else(|| role_alone(snapshot), |mesh| mesh.role.into()),
            stopping: snapshot.shutting_down,
            started_unix_s: snapshot.started_unix_s,
            devices: machine.devices.clone(),
            memory_total_bytes: machine.memory_total_bytes,
            memory_free_bytes: machine.memory_free_bytes,
            bandwidth_mb_s: machine.bandwidth_mb_s,
            api_url: api_url.map(str::to_owned),
        }
    }
}

/// What a node in no mesh does.
fn role_alone(snapshot: &Snapshot) -> Role {
    let any = |wanted: fn(&node::ModelState) -> bool| {
        snapshot.models.iter().any(|model| wanted(&model.state))
    };
    if any(|state| matches!(state, node::ModelState::Ready)) {
        Role::Serving
    } else if any(|state| matches!(state, node::ModelState::Loading { .. })) {
        Role::Joining
    } else if snapshot.models.is_empty() {
        Role::Idle
    } else {
        Role::Standby
    }
}

impl From<&node::MeshStatus> for Mesh {
    fn from(mesh: &node::MeshStatus) -> Self {
        Self {
            id: mesh.id.to_string(),
            name: mesh.name.clone(),
            clients: count(mesh.clients),
        }
    }
}

impl From<node::Role> for Role {
    fn from(role: node::Role) -> Self {
        match role {
            node::Role::Idle => Self::Idle,
            node::Role::Standby => Self::Standby,
            node::Role::Joining => Self::Joining,
            node::Role::Serving => Self::Serving,
            node::Role::Client => Self::Client,
        }
    }
}

impl From<&node::ModelStatus> for Model {
    fn from(model: &node::ModelStatus) -> Self {
        let (state, progress, reason) = match &model.state {
            node::ModelState::Loading { progress } => (ModelPhase::Loading, *progress, None),
            node::ModelState::Ready => (ModelPhase::Ready, 1.0, None),
            node::ModelState::Waiting { reason } => {
                (ModelPhase::Waiting, 0.0, Some(reason.clone()))
            }
            node::ModelState::Elsewhere { host } => (
                ModelPhase::Elsewhere,
                1.0,
                Some(format!("runs whole on {host}")),
            ),
            node::ModelState::Dropping => (ModelPhase::Dropping, 1.0, None),
            node::ModelState::Failed { reason } => (ModelPhase::Failed, 0.0, Some(reason.clone())),
        };
        let info = model.info.as_deref();
        Self {
            name: model.name.clone(),
            state,
            progress,
            reason,
            fingerprint: info.map_or_else(String::new, |info| info.fingerprint.clone()),
            size_bytes: info.map_or(0, |info| info.size_bytes),
            context_tokens: info.map_or(0, |info| info.context_tokens),
            slots: info.map_or(0, |info| info.slots),
            running: model.load.running,
            waiting: model.load.waiting,
            generated_tokens: model.load.generated_tokens_total,
            split: model.layout.as_deref().map(Split::from),
            loading: model.loading.iter().map(SplitLoading::from).collect(),
        }
    }
}

impl From<&node::MemberStatus> for Peer {
    fn from(member: &node::MemberStatus) -> Self {
        let machine = &member.machine;
        Self {
            id: member.id.to_string(),
            name: machine.name.clone(),
            region: machine.region.clone(),
            liveness: member.liveness.into(),
            role: member.role.into(),
            version: member.version.clone(),
            started_unix_ms: member.started_unix_ms,
            devices: machine.devices.clone(),
            memory_total_bytes: machine.memory_total_bytes,
            memory_free_bytes: machine.memory_free_bytes,
            bandwidth_mb_s: machine.bandwidth_mb_s,
            serving: member.serving.iter().map(HostedModel::from).collect(),
            local: member.local.clone(),
            wanted: member.wanted.clone(),
            round_trip_us: member.round_trip_us,
            connected: member.connected,
        }
    }
}

impl From<mesh::proto::Liveness> for Liveness {
    fn from(liveness: mesh::proto::Liveness) -> Self {
        match liveness {
            mesh::proto::Liveness::Alive => Self::Alive,
            mesh::proto::Liveness::Suspect => Self::Suspect,
            mesh::proto::Liveness::Dead => Self::Dead,
            mesh::proto::Liveness::Left => Self::Left,
        }
    }
}

impl From<&node::HostedModel> for HostedModel {
    fn from(model: &node::HostedModel) -> Self {
        Self {
            name: model.name.clone(),
            fingerprint: model.fingerprint.clone(),
            size_bytes: model.size_bytes,
            context_tokens: model.context_tokens,
            slots: model.slots,
            running: model.busy,
            waiting: model.queued,
        }
    }
}

impl From<&node::Target> for Target {
    fn from(target: &node::Target) -> Self {
        let hosts = target.hosts.iter().map(|host| Host {
            node: host.node.map(|node| node.to_string()),
            name: host.name.clone(),
            local: host.local,
            slots: host.slots,
            running: host.busy,
            waiting: host.queued,
        });
        Self {
            model: target.model.clone(),
            size_bytes: target.size_bytes,
            context_tokens: target.context_tokens,
            hosts: hosts.collect(),
        }
    }
}

impl From<&node::Demand> for Demand {
    fn from(demand: &node::Demand) -> Self {
        // A decaying rate changes at each look; nobody wants to see the third digit move.
        let tenths = |rate: f32| (rate * 10.0).round() / 10.0;
        Self {
            model: demand.model.clone(),
            per_minute: tenths(demand.per_minute),
            here_per_minute: tenths(demand.here_per_minute),
        }
    }
}

impl Link {
    fn of(link: &mesh::net::Link, now_unix_s: u64) -> Self {
        let (path, address) = match &link.path {
            mesh::net::Path::Direct(address) => (PathKind::Direct, Some(address.to_string())),
            mesh::net::Path::Relayed(url) => (PathKind::Relayed, Some(url.clone())),
            mesh::net::Path::Unknown => (PathKind::Unknown, None),
        };
        Self {
            node: link.node.to_string(),
            client: link.role == mesh::Role::Client,
            path,
            address,
            round_trip_us: u64::try_from(link.round_trip.as_micros()).unwrap_or(u64::MAX),
            sent_bytes: link.sent_bytes,
            received_bytes: link.received_bytes,
            since_unix_s: now_unix_s.saturating_sub(link.age.as_secs()),
            streams: count(link.streams),
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
