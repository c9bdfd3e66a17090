//! What can go wrong between machines, and who is to blame.

use mesh::NodeId;

/// Whose fault it is that a stage ended, as its worker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its own: it could not load or compute.
    Own,
    /// Whoever sends it rows broke the protocol.
    Previous,
    /// Whoever sends it rows is gone.
    PreviousGone,
    /// Whoever takes its rows is gone, or takes none.
    NextGone,
    /// Nobody's: the lease ended, or the machine leaves.
    Ended,
}

/// Why a worker does not take a stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has less memory than that, or others use it.
    #[error("{needed_bytes} bytes are needed and {free_bytes} are free")]
    NoMemory {
        /// What the stage would take.
        needed_bytes: u64,
        /// What nobody has leased.
        free_bytes: u64,
    },
    /// It serves as many rings as it may.
    #[error("it serves as many rings as it may")]
    Full,
    /// The ring's number belongs to another host.
    #[error("the ring belongs to another host")]
    Taken,
    /// It knows a newer life of the ring.
    #[error("epoch {epoch} of the ring was asked for before")]
    OldEpoch {
        /// The newest that it knows.
        epoch: u32,
    },
    /// Numbers beyond all reason.
    #[error("{text}")]
    OutOfRange {
        /// Which.
        text: String,
    },
    /// It can't have these layers.
    #[error("{text}")]
    NoModel {
        /// Why.
        text: String,
    },
    /// The host asked again before this was granted.
    #[error("the host asked again")]
    Replaced,
}

/// A ring is broken. Nobody can prove who broke it: a worker that accuses another may lie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Loss {
    /// Who is the most likely one; `None` if it is this host.
    pub suspect: Option<NodeId>,
    /// Who says so, if the host has not seen it itself.
    pub accuser: Option<NodeId>,
    /// What happened, for people.
    pub text: String,
}
