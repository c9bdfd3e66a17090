//! What travels between two nodes for a request: frames of CBOR on one stream a call.
//!
//! Owns the wire types and their conversion from and to the engine's types. Unknown fields are
//! skipped and missing ones have defaults, so that versions can mix; an unknown kind of call or
//! reply is an error.
//!
//! A call is one frame from the ingress. The host answers with [`Reply::Accepted`] or
//! [`Reply::Failed`], then what belongs to the call; while it has nothing to say it sends
//! [`Reply::Alive`].

mod call;
mod error;
mod frame;
mod model;
mod reply;
mod request;
// Only who runs layers of others is asked that.
#[cfg(any(test, feature = "fuzzing", feature = "solo"))]
pub(crate) mod trips;

pub(crate) use call::{Call, TakeUp, call_bytes, read_call};
pub(crate) use frame::{FrameError, read_frame, read_frame_if, write_frames};
pub(crate) use reply::{Reply, read_reply, reply_bytes};

/// Most bytes of a call. The API takes bodies of 16 MiB; as CBOR a body is no longer than as JSON.
pub(crate) const CALL_BYTES_MAX: usize = 24 << 20;

/// Most bytes of one reply: a rendered conversation or the bytes of a long prompt's tokens. Events
/// have some hundred bytes.
pub(crate) const REPLY_BYTES_MAX: usize = 24 << 20;

/// Most values of one embedding: several times the width of the largest models.
pub(crate) const VECTOR_VALUES_MAX: usize = 65_536;

/// A frame that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// Not the expected CBOR.
    #[error(transparent)]
    Decode(#[from] mesh::codec::DecodeError),
    /// CBOR with a value that no honest peer sends.
    #[error("{0} is out of range")]
    Range(&'static str),
}

#[cfg(test)]
mod tests;
