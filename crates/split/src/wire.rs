//! What travels between the machines of a ring.
//!
//! Every stream begins with an [`Opening`]. On a control stream CBOR messages follow, each behind its
//! length; unknown fields are skipped, so that versions can mix. On a data stream one CBOR answer
//! comes back, and then [`Frame`]s go one way: a fixed header, operations on the KV cache, rows.
//!
//! Owns bytes and limits only; what a message means is decided in `worker` and `ring`. Whatever
//! bytes come, nothing here panics or allocates more than has arrived.

mod control;
mod frame;
mod framing;
mod message;
mod opening;

pub use control::{Alive, FromWorker, Lease, Ready, ToWorker, read_from_worker, read_to_worker};
pub use frame::{
    CacheOp, FRAME_VERSION, Frame, FrameFormat, Outcome, Places, decode_frame, encode_frame,
};
pub use framing::{FrameStreamError, read_frame};
pub use message::{MessageStreamError, read_message, write_message};
pub use opening::{Answer, Opening, Pace, read_answer, read_opening, read_pace};

/// Most bytes of a CBOR message; ours have some hundred.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Most operations of one frame. A step has a few for each sequence; more go in a frame of their own.
pub const OPS_MAX: u32 = 1_024;

/// Longest text in a message, in characters.
pub const TEXT_CHARS_MAX: usize = 500;

/// Bytes that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not the expected CBOR.
    #[error(transparent)]
    Decode(#[from] mesh::codec::DecodeError),
    /// Not a frame of this protocol.
    #[error("not a frame of this protocol")]
    Magic,
    /// A value that no honest peer sends.
    #[error("{what} is {value}; at most {value_max} is allowed")]
    Range {
        /// Which.
        what: &'static str,
        /// What came.
        value: u64,
        /// The limit.
        value_max: u64,
    },
    /// A frame whose length differs from what its header says.
    #[error("{got} bytes in a frame of {wanted}")]
    Length {
        /// Bytes that came.
        got: u64,
        /// Bytes that belong to it.
        wanted: u64,
    },
}

fn range(what: &'static str, value: u64, value_max: u64) -> Result<(), WireError> {
    match value > value_max {
        true => Err(WireError::Range {
            what,
            value,
            value_max,
        }),
        false => Ok(()),
    }
}

/// No longer than a message may hold.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
