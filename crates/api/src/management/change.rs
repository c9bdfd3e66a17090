//! What changed between two states, as small events that lead from one to the other.
//!
//! Pure: the server keeps the state that it last told, updates it and sends the changes; the
//! reader applies them to its copy. Both then hold the same. Figures that never rest (round
//! trips, bytes, free memory) count as changed once the difference is worth telling.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::status::{Demand, Link, Mesh, Model, NodeStatus, Peer, Status, Target};

/// Round trips nearer than this are the same, microseconds: the clock's own noise.
const ROUND_TRIP_STEP_US: u64 = 200;
/// Bytes of a connection that are told again: heartbeats alone take minutes to reach it.
const TRAFFIC_STEP_BYTES: u64 = 64 * 1024;
/// Free memory that is told again, bytes: any program on the machine moves it a little.
const MEMORY_STEP_BYTES: u64 = 64 * 1024 * 1024;
/// A figure that moved by one part in so many is worth telling.
const SHARE: u64 = 8;

/// One change of a [`Status`].
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// `node` is now this.
    Node(NodeStatus),
    /// `mesh` is now this.
    Mesh(Option<Mesh>),
    /// A model came, or is now this.
    Model(Model),
    /// The model of this name went.
    ModelGone(String),
    /// A peer came, or is now this.
    Peer(Peer),
    /// The peer with this id went.
    PeerGone(String),
    /// A target came, or is now this.
    Target(Target),
    /// The target of this model went.
    TargetGone(String),
    /// `demand` is now this.
    Demand(Vec<Demand>),
    /// A connection came, or is now this.
    Link(Link),
    /// The connection to this node went.
    LinkGone(String),
}

/// What a stream of events consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The whole state: the first event, always.
    Snapshot(Status),
    /// What changed since the event before.
    Change(Change),
}

/// The key of an element that went.
#[derive(Serialize, Deserialize)]
struct Gone {
    key: String,
}

impl Event {
    /// Name and data of the event, as they are sent.
    ///
    /// # Errors
    /// Never with the types of this crate; JSON writers can fail in general.
    pub fn write(&self) -> Result<(&'static str, String), serde_json::Error> {
        let gone = |key: &String| serde_json::to_string(&Gone { key: key.clone() });
        Ok(match self {
            Self::Snapshot(status) => ("snapshot", serde_json::to_string(status)?),
            Self::Change(change) => match change {
                Change::Node(node) => ("node", serde_json::to_string(node)?),
                Change::Mesh(mesh) => ("mesh", serde_json::to_string(mesh)?),
                Change::Model(model) => ("model", serde_json::to_string(model)?),
                Change::ModelGone(key) => ("model_gone", gone(key)?),
                Change::Peer(peer) => ("peer", serde_json::to_string(peer)?),
                Change::PeerGone(key) => ("peer_gone", gone(key)?),
                Change::Target(target) => ("target", serde_json::to_string(target)?),
                Change::TargetGone(key) => ("target_gone", gone(key)?),
                Change::Demand(demand) => ("demand", serde_json::to_string(demand)?),
                Change::Link(link) => ("link", serde_json::to_string(link)?),
                Change::LinkGone(key) => ("link_gone", gone(key)?),
            },
        })
    }

    /// Reads [`Event::write`]; `None` for an event of a newer version.
    ///
    /// # Errors
    /// When the data is not what the name says.
    pub fn read(name: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        fn of<T: DeserializeOwned>(
            data: &str,
            change: impl FnOnce(T) -> Change,
        ) -> Result<Event, serde_json::Error> {
            Ok(Event::Change(change(serde_json::from_str(data)?)))
        }
        let gone = |change: fn(String) -> Change| of(data, |gone: Gone| change(gone.key));
        Ok(Some(match name {
            "snapshot" => Self::Snapshot(serde_json::from_str(data)?),
            "node" => of(data, Change::Node)?,
            "mesh" => of(data, Change::Mesh)?,
            "model" => of(data, Change::Model)?,
            "model_gone" => gone(Change::ModelGone)?,
            "peer" => of(data, Change::Peer)?,
            "peer_gone" => gone(Change::PeerGone)?,
            "target" => of(data, Change::Target)?,
            "target_gone" => gone(Change::TargetGone)?,
            "demand" => of(data, Change::Demand)?,
            "link" => of(data, Change::Link)?,
            "link_gone" => gone(Change::LinkGone)?,
            _ => return Ok(None),
        }))
    }
}

impl Status {
    /// Becomes `now`, as far as the difference is worth telling; gives what to tell.
    pub fn update(&mut self, now: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.node.differs(&now.node) {
            changes.push(Change::Node(now.node.clone()));
        }
        if self.mesh != now.mesh {
            changes.push(Change::Mesh(now.mesh.clone()));
        }
        compare(&self.models, &now.models, &mut changes);
        compare(&self.peers, &now.peers, &mut changes);
        compare(&self.targets, &now.targets, &mut changes);
        if self.demand != now.demand {
            changes.push(Change::Demand(now.demand.clone()));
        }
        compare(&self.links, &now.links, &mut changes);
        for change in &changes {
            self.apply(change.clone());
        }
        changes
    }

    /// Makes one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Node(node) => self.node = node,
            Change::Mesh(mesh) => self.mesh = mesh,
            Change::Model(model) => put(&mut self.models, model),
            Change::ModelGone(key) => self.models.retain(|model| model.key() != key),
            Change::Peer(peer) => put(&mut self.peers, peer),
            Change::PeerGone(key) => self.peers.retain(|peer| peer.key() != key),
            Change::Target(target) => put(&mut self.targets, target),
            Change::TargetGone(key) => self.targets.retain(|target| target.key() != key),
            Change::Demand(demand) => self.demand = demand,
            Change::Link(link) => put(&mut self.links, link),
            Change::LinkGone(key) => self.links.retain(|link| link.key() != key),
        }
    }
}

/// An element of a list in a [`Status`].
trait Element: Clone {
    /// What tells it from the others.
    fn key(&self) -> &str;
    /// Whether the difference to what was told is worth telling.
    fn differs(&self, now: &Self) -> bool;
    /// That it came or changed.
    fn here(self) -> Change;
    /// That the one with this key went.
    fn gone(key: String) -> Change;
}

fn compare<T: Element>(told: &[T], now: &[T], changes: &mut Vec<Change>) {
    let by_key = |list: &[T]| -> BTreeMap<String, usize> {
        let keys = list.iter().enumerate();
        keys.map(|(index, element)| (element.key().to_owned(), index))
            .collect()
    };
    let (old, new) = (by_key(told), by_key(now));
    let gone = told
        .iter()
        .filter(|element| !new.contains_key(element.key()));
    changes.extend(gone.map(|element| T::gone(element.key().to_owned())));
    let news = now.iter().filter(|element| {
        let before = old.get(element.key()).and_then(|&index| told.get(index));
        before.is_none_or(|before| before.differs(element))
    });
    changes.extend(news.map(|element| element.clone().here()));
}

fn put<T: Element>(list: &mut Vec<T>, element: T) {
    match list.iter_mut().find(|known| known.key() == element.key()) {
        Some(known) => *known = element,
        None => list.push(element),
    }
}

/// Whether a figure moved by a good part of itself, and by more than `step`.
fn moved(told: u64, now: u64, step: u64) -> bool {
    told.abs_diff(now) > (told / SHARE).max(step)
}

impl NodeStatus {
    fn differs(&self, now: &Self) -> bool {
        moved(
            self.memory_free_bytes,
            now.memory_free_bytes,
            MEMORY_STEP_BYTES,
        ) || Self {
            memory_free_bytes: now.memory_free_bytes,
            ..self.clone()
        } != *now
    }
}

impl Element for Model {
    fn key(&self) -> &str {
        &self.name
    }

    fn differs(&self, now: &Self) -> bool {
        self != now
    }

    fn here(self) -> Change {
        Change::Model(self)
    }

    fn gone(key: String) -> Change {
        Change::ModelGone(key)
    }
}

impl Element for Peer {
    fn key(&self) -> &str {
        &self.id
    }

    fn differs(&self, now: &Self) -> bool {
        let trip = match (self.round_trip_us, now.round_trip_us) {
            (Some(told), Some(now)) => moved(told.into(), now.into(), ROUND_TRIP_STEP_US),
            (told, now) => told != now,
        };
        let (told, free) = (self.memory_free_bytes, now.memory_free_bytes);
        trip || moved(told, free, MEMORY_STEP_BYTES)
            || Self {
                round_trip_us: now.round_trip_us,
                memory_free_bytes: now.memory_free_bytes,
                ..self.clone()
            } != *now
    }

    fn here(self) -> Change {
        Change::Peer(self)
    }

    fn gone(key: String) -> Change {
        Change::PeerGone(key)
    }
}

impl Element for Target {
    fn key(&self) -> &str {
        &self.model
    }

    fn differs(&self, now: &Self) -> bool {
        self != now
    }

    fn here(self) -> Change {
        Change::Target(self)
    }

    fn gone(key: String) -> Change {
        Change::TargetGone(key)
    }
}

impl Element for Link {
    fn key(&self) -> &str {
        &self.node
    }

    fn differs(&self, now: &Self) -> bool {
        let sent = self.sent_bytes.abs_diff(now.sent_bytes);
        let received = self.received_bytes.abs_diff(now.received_bytes);
        sent.saturating_add(received) >= TRAFFIC_STEP_BYTES
            || moved(self.round_trip_us, now.round_trip_us, ROUND_TRIP_STEP_US)
            || Self {
                round_trip_us: now.round_trip_us,
                sent_bytes: now.sent_bytes,
                received_bytes: now.received_bytes,
                // Counted back from the age, it may be a second off at each look.
                since_unix_s: now.since_unix_s,
                ..self.clone()
            } != *now
    }

    fn here(self) -> Change {
        Change::Link(self)
    }

    fn gone(key: String) -> Change {
        Change::LinkGone(key)
    }
}
