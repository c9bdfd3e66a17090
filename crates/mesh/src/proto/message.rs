//! Owns the messages between nodes, as the protocol sees them. Their bytes are in `wire`.

use std::sync::Arc;

use crate::NodeId;
use crate::announcement::{ModelRate, Signed, departure_hash, item_hash};

/// One message between two connected nodes.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// "You are my neighbour", or no longer. `root` is the digest of the sender's table.
    Link {
        /// Whether the sender chose the receiver.
        wanted: bool,
        /// Digest of the sender's table.
        root: u64,
    },
    /// "I have too many neighbours; pull my table and choose others."
    Refuse,
    /// Full news.
    News {
        /// What is new, at most [`ITEMS_BYTES_SOFT`](super::ITEMS_BYTES_SOFT) and one item more.
        items: Vec<Item>,
    },
    /// "I have these; ask if they do not reach you otherwise."
    Have {
        /// Hashes of news.
        hashes: Vec<u64>,
        /// They do not: they travel by hashes alone.
        offered: bool,
    },
    /// "Send me these."
    Want {
        /// Hashes of news.
        hashes: Vec<u64>,
        /// And from now on send new ones in full.
        graft: bool,
    },
    /// "Your news reaches me otherwise: send me hashes only."
    Prune,
    /// "Is your table the same?"
    Compare {
        /// Digest of the sender's table.
        root: u64,
    },
    /// "It is not. These are the digests of my parts."
    Parts {
        /// Digests of equal parts of the table: a power of two of them.
        digests: Vec<u32>,
    },
    /// "These parts differ, and this is what I have in them."
    Entries {
        /// How many parts there are.
        parts: u32,
        /// Which of them this is about.
        differing: Vec<u8>,
        /// Hashes of everything the sender has in them.
        hashes: Vec<u64>,
    },
    /// "Are you alive?"
    Ping {
        /// Comes back.
        nonce: u64,
        /// The last round trip that the sender measured on this connection, in microseconds.
        round_trip_us: Option<u32>,
    },
    /// "I am."
    Pong {
        /// From the ping.
        nonce: u64,
    },
    /// "Can you reach this node?" Answered only if so.
    Probe {
        /// Who is silent.
        target: NodeId,
    },
    /// "I can."
    Reached {
        /// Who answered.
        target: NodeId,
    },
    /// "What changed since this version of the table?"
    Pull {
        /// The version that the sender has, if any.
        have: Option<TableVersion>,
        /// Digest of the routes that the sender has; equal ones need no table, whoever gave it.
        root: u64,
        /// `have` is a place within the whole table, which the sender is fetching page by page.
        whole: bool,
        /// Demand at the sender, which announces nothing itself.
        rates: Vec<ModelRate>,
    },
    /// "Nothing."
    Unchanged {
        /// The version that the receiver has.
        version: TableVersion,
        /// When to ask again, in milliseconds.
        next_ms: u64,
    },
    /// A page of the routing table.
    Table(Page),
}

/// A page of the routing table.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The version that the receiver has after this page.
    pub version: TableVersion,
    /// The first page of a whole table, not of changes: what no page names is gone.
    pub restart: bool,
    /// Another page follows at once when it is asked for.
    pub more: bool,
    /// Announcements, departures and revocations.
    pub items: Vec<Item>,
    /// When to ask again, in milliseconds.
    pub next_ms: u64,
}

/// A version of one member's routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableVersion {
    /// Which member's, in which of its lives; opaque.
    pub source: u64,
    /// Counts its changes.
    pub change: u64,
}

/// A piece of news.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What happened.
    pub fact: Fact,
    /// How long ago it was said, in milliseconds, as the nodes on its way counted.
    pub age_ms: u64,
    /// To be passed on at once.
    pub urgent: bool,
}

/// What a piece of news tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A node speaks of itself, also for the last time.
    Announced(Arc<Signed>),
    /// Somebody has declared this life of a node ended.
    Died {
        /// Who.
        node: NodeId,
        /// Which life.
        incarnation: u64,
    },
    /// Somebody hears nothing from a node; it should object.
    Suspected {
        /// Who.
        node: NodeId,
        /// Which life.
        incarnation: u64,
        /// The last announcement of it that the accuser has. A later one is an objection.
        sequence: u64,
    },
    /// A signed revocation, opaque here.
    Revoked(Arc<[u8]>),
}

impl Fact {
    /// Whom it is about, if a node.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Announced(signed) => Some(signed.announcement().node),
            Self::Died { node, .. } | Self::Suspected { node, .. } => Some(*node),
            Self::Revoked(_) => None,
        }
    }

    /// Stands for it in digests and lists.
    #[must_use]
    pub fn hash(&self) -> u64 {
        match self {
            Self::Announced(signed) => signed.hash(),
            Self::Died { node, incarnation } => departure_hash(*node, *incarnation),
            Self::Suspected {
                node,
                incarnation,
                sequence,
            } => item_hash(b'S', node.as_bytes(), *incarnation, *sequence),
            Self::Revoked(blob) => item_hash(b'R', blob, 0, 0),
        }
    }
}
