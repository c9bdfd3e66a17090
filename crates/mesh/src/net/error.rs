//! Owns why something with a mesh did not work.

use crate::admission::Refusal;
use crate::identity::IdentityError;
use crate::ticket::TicketError;
use crate::{MeshId, NodeId};

/// Why a mesh could not be created, joined or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// The node's files.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What was pasted is no ticket.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// Not let in.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody that the ticket names answered.
    #[error("no node of the mesh could be reached ({}); hint: is one of them running, and can this machine reach it?", list(.0))]
    Unreachable(Vec<Unreached>),
    /// The UDP port that was asked for belongs to somebody else.
    #[error(
        "can't open UDP port {0}: it is in use; hint: another mesh-llm may be running; choose another port with --bind-port, or leave it out for any free one"
    )]
    PortInUse(u16),
    /// The UDP socket.
    #[error("cannot use the network: {0}")]
    Bind(String),
    /// A relay in the settings.
    #[error("`{0}` is not the URL of a relay; hint: relays look like https://relay.example")]
    Relay(String),
    /// No way to anybody.
    #[error("neither direct connections nor relays are allowed; hint: leave out --no-relay")]
    NoPath,
    /// Nothing to come back to.
    #[error("this node is no member of mesh {0}; hint: join it with a ticket")]
    NotAMember(MeshId),
    /// A node nobody knows a way to.
    #[error("node {} cannot be reached: {reason}", node.short())]
    Peer {
        /// Whom.
        node: NodeId,
        /// What happened.
        reason: String,
    },
    /// Asked of a client.
    #[error("a client can neither invite nor revoke; hint: do it on a serving node")]
    ClientsCannot,
    /// It was to put itself out.
    #[error("a node can't expel itself; hint: `mesh-llm leave` takes it out of the mesh")]
    ExpelsItself,
    /// The originator of the mesh was to be put out.
    #[error(
        "node {} is the originator of this mesh, whom nobody can expel; hint: `mesh-llm leave` takes this node out of the mesh instead",
        .0.short()
    )]
    ExpelsOriginator(NodeId),
    /// After `leave`.
    #[error("the mesh was left")]
    Stopped,
    /// The book of invitations could not be written.
    #[error("cannot store the invitations: {0}")]
    NotKept(String),
    /// A bound of this node.
    #[error("too many {0} at once; hint: try again in a moment")]
    TooMany(&'static str),
}

/// A node that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// Which.
    pub node: NodeId,
    /// Why it did not work.
    pub reason: String,
}

fn list(tried: &[Unreached]) -> String {
    let tried: Vec<_> = tried
        .iter()
        .map(|one| format!("{}: {}", one.node.short(), one.reason))
        .collect();
    if tried.is_empty() {
        "the ticket names none".into()
    } else {
        tried.join("; ")
    }
}
