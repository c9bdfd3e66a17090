//! How streams begin: what they are for, and whether the receiver takes them.

use mesh::codec::{self, Fixed};
use serde::{Deserialize, Serialize};

use super::{MESSAGE_BYTES_MAX, WireError};
use crate::spec::RingId;

/// The first message on every stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A host talks to a worker about one stage.
    Control,
    /// Hidden states come, for whoever has this place in the ring.
    Data {
        /// Which ring.
        ring: RingId,
        /// Which life of it.
        epoch: u32,
        /// Place of the receiver: workers from 0 on, then the host.
        place: u32,
    },
}

/// What the receiver of a data stream says to its opener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Go ahead.
    Welcome,
    /// Nobody here waits for it, or not for this peer.
    NotExpected,
}

#[derive(Serialize, Deserialize)]
enum OpeningWire {
    Control,
    Data {
        ring: Fixed<16>,
        epoch: u32,
        place: u32,
    },
}

#[derive(Serialize, Deserialize)]
enum AnswerWire {
    Welcome,
    NotExpected,
}

impl Opening {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&match *self {
            Self::Control => OpeningWire::Control,
            Self::Data { ring, epoch, place } => OpeningWire::Data {
                ring: Fixed(ring.0),
                epoch,
                place,
            },
        })
    }
}

/// Reads an [`Opening`].
///
/// # Errors
/// [`WireError`].
pub fn read_opening(bytes: &[u8]) -> Result<Opening, WireError> {
    Ok(match codec::decode(bytes, MESSAGE_BYTES_MAX)? {
        OpeningWire::Control => Opening::Control,
        OpeningWire::Data { ring, epoch, place } => Opening::Data {
            ring: RingId(ring.0),
            epoch,
            place,
        },
    })
}

impl Answer {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&match self {
            Self::Welcome => AnswerWire::Welcome,
            Self::NotExpected => AnswerWire::NotExpected,
        })
    }
}

/// Reads an [`Answer`].
///
/// # Errors
/// [`WireError`].
pub fn read_answer(bytes: &[u8]) -> Result<Answer, WireError> {
    Ok(match codec::decode(bytes, MESSAGE_BYTES_MAX)? {
        AnswerWire::Welcome => Answer::Welcome,
        AnswerWire::NotExpected => Answer::NotExpected,
    })
}
