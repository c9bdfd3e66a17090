//! Owns what can reach the actor: from its own tasks, and from the handle.

use std::sync::Arc;

use iroh::endpoint::Connection;
use tokio::sync::{mpsc, oneshot};

use super::super::hello::{Candidate, HelloError};
use super::super::links::Link;
use super::super::peer::Ending;
use super::super::stream::InUse;
use super::super::wire::{Join, Joined};
use super::MeshError;
use crate::NodeId;
use crate::admission::{InvitationState, Invite, Refusal, Target};
use crate::announcement::NodeInfo;
use crate::proto::Message;
use crate::ticket::Ticket;

/// What happened on the network.
pub(crate) enum Input {
    /// A node shows a ticket.
    Join {
        node: NodeId,
        request: Join,
        reply: oneshot::Sender<Result<Joined, Refusal>>,
    },
    /// A dial has a connection and is about to say hello; it goes on if the answer is yes.
    Shaking {
        node: NodeId,
        dial: u64,
        go: oneshot::Sender<bool>,
    },
    /// A dial came to nothing.
    DialEnded {
        node: NodeId,
        dial: u64,
        error: HelloError,
    },
    /// A peer has shown its membership, on a connection that the peer opened or dial `dial` did.
    Register {
        candidate: Candidate,
        dial: Option<u64>,
        reply: oneshot::Sender<Result<Registered, Refusal>>,
    },
    /// A peer sent a message.
    Message {
        node: NodeId,
        serial: u64,
        message: Message,
    },
    /// A connection ended.
    Closed {
        node: NodeId,
        serial: u64,
        ending: Ending,
    },
    /// A dial for bulk is over.
    BulkDialled {
        node: NodeId,
        dial: u64,
        outcome: Result<Candidate, HelloError>,
    },
    /// A peer has shown its membership on a connection for bulk that it opened.
    RegisterBulk {
        candidate: Candidate,
        reply: oneshot::Sender<Result<BulkRegistered, Refusal>>,
    },
    /// A connection for bulk ended.
    BulkClosed {
        node: NodeId,
        serial: u64,
        ending: Ending,
    },
    /// Somebody was not let in. `what` says to what, as a sentence about this node.
    TurnedAway {
        node: NodeId,
        what: &'static str,
        reason: String,
    },
}

/// A connection was taken up.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) serial: u64,
    pub(crate) outbox: mpsc::Receiver<Arc<[u8]>>,
    pub(crate) in_use: InUse,
}

/// A connection for bulk was taken up.
#[derive(Debug)]
pub(crate) struct BulkRegistered {
    pub(crate) serial: u64,
    pub(crate) in_use: InUse,
}

/// A connection on which the application may open streams.
#[derive(Debug)]
pub(crate) struct OpenPeer {
    pub(crate) connection: Connection,
    pub(crate) in_use: InUse,
}

/// What the handle asks.
pub(crate) enum Command {
    /// A connection to this member, dialled if need be.
    Open {
        node: NodeId,
        reply: oneshot::Sender<Result<OpenPeer, MeshError>>,
    },
    /// A connection for bulk to a member that is connected, dialled if need be.
    OpenBulk {
        node: NodeId,
        reply: oneshot::Sender<Result<OpenPeer, MeshError>>,
    },
    /// What this node says of itself has changed.
    Announce(Box<NodeInfo>),
    /// A new ticket.
    Invite {
        invite: Invite,
        reply: oneshot::Sender<Result<Ticket, MeshError>>,
    },
    /// The tickets issued here.
    Invites {
        reply: oneshot::Sender<Vec<InvitationState>>,
    },
    /// Takes something back; whether this node knew it.
    Revoke {
        target: Target,
        reply: oneshot::Sender<Result<bool, MeshError>>,
    },
    /// Open connections.
    Links { reply: oneshot::Sender<Vec<Link>> },
    /// A fresh table is wanted now.
    PullNow,
    /// The end.
    Leave { done: oneshot::Sender<()> },
}
