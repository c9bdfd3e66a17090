//! Owns one simulated node: its place between lives, and what a life holds besides the real state
//! machine: connections, dials and its own clock.

use std::collections::BTreeMap;

use super::authority::SimulatedAuthority;
use super::happening::Happening;
use super::mixing::{mix, node_id};
use super::traffic::Traffic;
use crate::announcement::{Compute, Model, ModelRate, NodeInfo, NodeState, ServedModel};
use crate::bucket::Bucket;
use crate::proto::{BOOTSTRAP_MAX, Config, State};
use crate::{MeshId, NodeId, Role};

/// Wall clocks begin here: some day in 2027, in Unix milliseconds.
const UNIX_MS_AT_START: u64 = 1_800_000_000_000;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It runs a model.
    Serving,
    /// It could run one; it pulls the table.
    Idle,
    /// It never runs one; it pulls the table.
    Client,
}

impl Kind {
    pub(super) fn role(self) -> Role {
        match self {
            Self::Serving | Self::Idle => Role::Serve,
            Self::Client => Role::Client,
        }
    }

    pub(super) fn state(self) -> NodeState {
        match self {
            Self::Serving => NodeState::Serving,
            Self::Idle => NodeState::Idle,
            Self::Client => NodeState::Client,
        }
    }
}

/// A machine that may run a node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) kind: Kind,
    /// Whom it dials first: members that its ticket or its files name.
    pub(super) bootstrap: Vec<usize>,
    pub(super) revocations: Vec<Vec<u8>>,
    /// How far its wall clock is ahead, in milliseconds.
    pub(super) skew_ms: i64,
    pub(super) info: NodeInfo,
    /// How often it was started.
    pub(super) lives: u64,
    pub(super) life: Option<Life>,
    /// Stopped since, with everything that it has not noticed meanwhile.
    pub(super) paused_at_ms: Option<u64>,
    pub(super) held: Vec<Happening>,
    pub(super) traffic: Traffic,
}

/// A running program.
pub(super) struct Life {
    pub(super) state: State,
    pub(super) started_at_ms: u64,
    /// When it wants to be woken, on the simulation's clock.
    pub(super) wake_at_ms: u64,
    pub(super) peers: BTreeMap<usize, Peer>,
    pub(super) dials: BTreeMap<usize, Dial>,
}

/// One end of a connection.
pub(super) struct Peer {
    /// The same at both ends.
    pub(super) connection: u64,
    pub(super) role: Role,
    /// Which life of the other it leads to.
    pub(super) instance: u64,
    pub(super) dialled: bool,
    pub(super) since_ms: u64,
    /// Nothing that is sent arrives before.
    pub(super) open_ms: u64,
    /// When the last message sent will arrive: later ones come after it.
    pub(super) arrival_ms: u64,
    /// Nothing comes from the other side since.
    pub(super) silent_since_ms: Option<u64>,
    pub(super) unused_since_ms: Option<u64>,
    /// What the other may send, as `net` counts it.
    pub(super) messages: Bucket,
    pub(super) bytes: Bucket,
}

/// A connection that this node is opening.
pub(super) struct Dial {
    pub(super) serial: u64,
    pub(super) shaking: bool,
}

impl Node {
    pub(super) fn new(seed: u64, index: usize, kind: Kind, bootstrap: Vec<usize>) -> Self {
        Self {
            id: node_id(seed, index),
            kind,
            bootstrap,
            revocations: Vec::new(),
            skew_ms: 0,
            info: info(index, kind.state()),
            lives: 0,
            life: None,
            paused_at_ms: None,
            held: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    /// A new life that has not started yet.
    pub(super) fn be_born(&mut self, seed: u64, now_ms: u64) {
        self.lives += 1;
        let unix_ms = (UNIX_MS_AT_START + now_ms).saturating_add_signed(self.skew_ms);
        let config = Config {
            me: self.id,
            mesh: mesh(seed),
            role: self.kind.role(),
            unix_ms,
            seed: mix(seed ^ mix(self.lives) ^ u64::from_le_bytes(first_bytes(self.id))),
        };
        self.life = Some(Life {
            state: State::new(config, Box::new(SimulatedAuthority::new(self.id))),
            started_at_ms: now_ms,
            wake_at_ms: u64::MAX,
            peers: BTreeMap::new(),
            dials: BTreeMap::new(),
        });
    }

    /// The load of the machine changes: what a busy node says of itself every few seconds.
    pub(super) fn change_load(&mut self, draw: u64) {
        self.info.memory_free_bytes = self.info.memory_total_bytes / 100 * (draw % 100);
        for served in &mut self.info.serving {
            served.busy = u32::try_from(draw % 5).unwrap_or(0);
            served.queued = u32::try_from(draw % 3).unwrap_or(0);
        }
        for rate in &mut self.info.rates {
            rate.per_minute = f32::from(u8::try_from(draw % 200).unwrap_or(0)) / 4.0;
        }
    }

    /// Members to start from at most, as the real node keeps them.
    pub(super) fn keep_bootstrap(&mut self, known: Vec<usize>) {
        if !known.is_empty() {
            self.bootstrap = known;
            self.bootstrap.truncate(BOOTSTRAP_MAX);
        }
    }
}

fn first_bytes(node: NodeId) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&node.as_bytes()[..8]);
    first
}

fn mesh(seed: u64) -> MeshId {
    MeshId::from_bytes(*node_id(!seed, 0).as_bytes())
}

/// What a machine with a graphics card, one running model and two more on its disk says of itself.
fn info(index: usize, state: NodeState) -> NodeInfo {
    let model = |number: usize| Model {
        name: format!("unsloth/Qwen3-{number}B-Instruct-GGUF:Q4_K_M"),
        fingerprint: format!("b3:{:064x}", mix(number as u64)),
        size_bytes: 5_000_000_000 + number as u64,
        context_length: 32_768,
        draft: false,
        embeds: false,
    };
    let serving = (state == NodeState::Serving).then(|| ServedModel {
        model: model(index % 7),
        slots: 4,
        busy: 1,
        queued: 0,
    });
    let host = u8::try_from(index % 250).unwrap_or(0);
    NodeInfo {
        state,
        name: format!("machine-{index}"),
        region: "eu-west".into(),
        version: "0.1.0".into(),
        started_at_unix_ms: UNIX_MS_AT_START,
        addresses: vec![
            [b"\x01https://euw1-1.relay.example./".as_slice(), &[]].concat(),
            vec![0, 192, 168, 1, host, 0x9c, 0x40],
            vec![0, 203, 0, 113, host, 0x9c, 0x40],
        ],
        devices: vec!["NVIDIA GeForce RTX 4090, 24 GB".into()],
        memory_total_bytes: 24 << 30,
        memory_free_bytes: 12 << 30,
        compute: Some(Compute {
            bandwidth_mb_s: 80_000,
            threads: 16,
        }),
        rates: serving
            .iter()
            .map(|served| ModelRate {
                model: served.model.name.clone(),
                per_minute: 4.0,
            })
            .collect(),
        serving: serving.into_iter().collect(),
        wanted: Vec::new(),
        local: vec![model(index % 7), model(8)],
        splits: Vec::new(),
    }
}
