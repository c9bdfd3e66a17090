//! Owns what goes into the state machine and what comes out.

use std::sync::Arc;

use super::message::Message;
use crate::announcement::NodeInfo;
use crate::{MeshId, NodeId, Role};

/// What a state machine is made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// The mesh.
    pub mesh: MeshId,
    /// What its membership allows. Clients never announce themselves.
    pub role: Role,
    /// The wall clock at the start, in Unix milliseconds: the first incarnation, so that a
    /// restarted node is newer than its former self. A clock that went back is noticed and made up for.
    pub unix_ms: u64,
    /// Seed of all random choices.
    pub seed: u64,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The node starts or joins. The first event.
    Started {
        /// Members to dial while nobody is known, the first [`BOOTSTRAP_MAX`](super::BOOTSTRAP_MAX)
        /// of them. `net` knows their addresses.
        bootstrap: Vec<NodeId>,
        /// Revocations kept from earlier runs.
        revocations: Vec<Vec<u8>>,
        /// What to say of this node.
        info: NodeInfo,
    },
    /// A connection stands and the peer's membership is checked, whoever dialled. A second
    /// connection to the same peer replaces the first without an event between.
    PeerConnected {
        /// The peer.
        node: NodeId,
        /// What its membership allows.
        role: Role,
    },
    /// The connection is gone.
    PeerClosed {
        /// The peer.
        node: NodeId,
        /// The peer or this node closed it on purpose; otherwise it was lost.
        clean: bool,
    },
    /// A dial asked for by [`Effect::Connect`] came to nothing.
    DialFailed {
        /// Who could not be reached.
        node: NodeId,
    },
    /// A message came from a connected peer.
    Message {
        /// The peer.
        from: NodeId,
        /// What it sent.
        message: Message,
    },
    /// `net` measured a round trip on an open connection.
    RoundTrip {
        /// The peer.
        node: NodeId,
        /// In microseconds.
        us: u32,
    },
    /// The time of the last [`Effect::Wake`] has come. More of them do no harm.
    Tick,
    /// What the node says of itself has changed.
    LocalChanged(NodeInfo),
    /// A revocation was made here, or came by another way.
    Revoke(Vec<u8>),
    /// A node that pulls wants a fresh table now: a model was not found, or a host failed.
    PullNow,
    /// The node goes. After it nothing more is said.
    Leave,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send this to a connected peer. A queue of `net` that is full may drop it: tables are compared.
    Send {
        /// The peer.
        to: NodeId,
        /// What to send.
        message: Message,
    },
    /// Dial this node and answer with `PeerConnected` or `DialFailed`.
    Connect {
        /// Whom.
        node: NodeId,
        /// Its addresses as it announced them; none for a bootstrap node.
        addresses: Vec<Vec<u8>>,
    },
    /// The protocol needs this connection no more. Close it when nothing else uses it, unless the
    /// protocol [needs](super::State::needs) it again by then.
    Release {
        /// The peer.
        node: NodeId,
    },
    /// Close the connection now.
    Disconnect {
        /// The peer.
        node: NodeId,
        /// Why.
        offence: Offence,
    },
    /// [`State::view`](super::State::view) gives something new. Views cost time in proportion to
    /// the members: a burst of changes needs only one.
    Changed,
    /// A revocation is new here: keep it on disk and close what it ends.
    Revoked(Arc<[u8]>),
    /// Send [`Event::Tick`] at this time, in place of any time given before.
    Wake {
        /// On the clock of `now_ms`.
        at_ms: u64,
    },
    /// Everything is said. When the sends before it are out, the connections may close.
    Left,
}

/// What a peer did to lose its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// It passed on an announcement that its author never signed, or of another mesh.
    #[error("it passed on a forged announcement")]
    Forgery,
    /// It, or the one who admitted it, was expelled.
    #[error("it was expelled")]
    Expelled,
    /// It passed on something that is no revocation of this mesh.
    #[error("it passed on a false revocation")]
    FalseRevocation,
}
