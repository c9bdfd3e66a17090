//! Owns the read-only picture of the mesh that everything else works with.

use std::sync::Arc;

use super::choice::prefix;
use super::state::State;
use super::table::Standing;
use crate::announcement::{Announcement, Signed};
use crate::{MeshId, NodeId, Role};

/// The mesh as this node sees it. Never changes; [`State::view`] gives the next one.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// This node.
    pub me: NodeId,
    /// The mesh.
    pub mesh: MeshId,
    /// Counts the views of this node.
    pub version: u64,
    /// All members with an announcement, the departed of the last half hour included, in the
    /// order of their ids. This node is among them if it announces itself.
    pub members: Vec<Member>,
    /// Connected nodes that pull the table from this one.
    pub clients: usize,
}

/// One member.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// Whether it lives.
    pub liveness: Liveness,
    /// Which of its lives.
    pub incarnation: u64,
    /// When it last said something of itself, on the clock of `now_ms`; 0 for before the start.
    pub said_at_ms: u64,
    /// It and this node pass news to each other.
    pub neighbour: bool,
    /// There is an open connection to it.
    pub connected: bool,
    /// Round trip of that connection in microseconds, once measured.
    pub round_trip_us: Option<u32>,
    signed: Arc<Signed>,
}

/// Whether a member lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// As far as anybody knows.
    Alive,
    /// Somebody hears nothing from it. Prefer others, but believe it.
    Suspect,
    /// Declared dead, or silent for too long.
    Dead,
    /// It said goodbye.
    Left,
}

/// What one node believes of a member, without the rest of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Belief {
    /// Whether it lives.
    pub liveness: Liveness,
    /// Which of its lives.
    pub incarnation: u64,
}

impl Liveness {
    /// Whether such a member lives or may live.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

impl Belief {
    /// Whether it lives or may live.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        self.liveness.is_alive()
    }
}

impl View {
    /// The member with this id.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let found = self.members.binary_search_by_key(&node, |m| m.node);
        found.ok().and_then(|index| self.members.get(index))
    }

    /// Members that live or may live.
    pub fn alive(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_alive())
    }

    /// The round trip between two members in microseconds, as either of them announces it.
    #[must_use]
    pub fn round_trip_us(&self, one: NodeId, other: NodeId) -> Option<u32> {
        let told = |from: NodeId, to: NodeId| {
            let told = &self.member(from)?.announcement().round_trips;
            told.iter().find(|r| r.peer == prefix(to)).map(|r| r.us)
        };
        told(one, other).or_else(|| told(other, one))
    }
}

impl Member {
    /// What it last said of itself.
    #[must_use]
    pub fn announcement(&self) -> &Announcement {
        self.signed.announcement()
    }

    /// The same with its signature.
    #[must_use]
    pub fn signed(&self) -> &Arc<Signed> {
        &self.signed
    }

    /// What its membership allows, as it says.
    #[must_use]
    pub fn role(&self) -> Role {
        self.announcement().role
    }

    /// Whether it lives or may live.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.liveness.is_alive()
    }
}

impl State {
    /// What this node believes of one member. Cheaper than a [`view`](Self::view) of all.
    #[must_use]
    pub fn belief(&self, node: NodeId) -> Option<Belief> {
        let record = self.table.get(node)?;
        Some(Belief {
            liveness: self.liveness(node, record.standing),
            incarnation: record.incarnation,
        })
    }

    fn liveness(&self, node: NodeId, standing: Standing) -> Liveness {
        match standing {
            Standing::Alive if self.detector.suspects(node) => Liveness::Suspect,
            Standing::Alive => Liveness::Alive,
            Standing::Dead | Standing::Expired => Liveness::Dead,
            Standing::Left => Liveness::Left,
        }
    }

    /// The mesh as this node sees it now. Cheap while nothing changes; after a change it takes
    /// time in proportion to the members.
    pub fn view(&mut self) -> Arc<View> {
        if let Some(view) = &self.view {
            return view.clone();
        }
        let members = self.table.members().filter_map(|(node, record)| {
            let peer = self.peers.get(&node);
            Some(Member {
                node,
                liveness: self.liveness(node, record.standing),
                incarnation: record.incarnation,
                said_at_ms: u64::try_from(record.said_at_ms).unwrap_or(0),
                neighbour: self.links.contains(node),
                connected: peer.is_some(),
                round_trip_us: peer.and_then(|peer| peer.round_trip_us),
                signed: record.signed.clone()?,
            })
        });
        let view = Arc::new(View {
            me: self.config.me,
            mesh: self.config.mesh,
            version: self.view_version,
            members: members.collect(),
            clients: self.clients_len(),
        });
        self.view = Some(view.clone());
        view
    }
}
