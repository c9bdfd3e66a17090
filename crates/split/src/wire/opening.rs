//! How streams begin: what they are for, and whether the receiver takes them.

use gguf::Fingerprint;
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
    /// A host asks how fast the receiver computes a model; a [`Pace`] comes back, or nothing.
    Measure {
        /// Which model.
        model: Fingerprint,
    },
}

/// How fast a machine computes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of weights a second when tokens are decoded.
    pub decode_bytes_per_s: u64,
    /// Bytes that each row of a prompt reads, a second.
    pub prefill_bytes_per_s: u64,
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
    Measure {
        model: Fixed<32>,
    },
}

#[derive(Serialize, Deserialize)]
struct PaceWire {
    decode: u64,
    prefill: u64,
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
            Self::Measure { model } => OpeningWire::Measure {
                model: Fixed(model.0),
            },
        })
    }
}

impl Pace {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&PaceWire {
            decode: self.decode_bytes_per_s,
            prefill: self.prefill_bytes_per_s,
        })
    }
}

/// Reads a [`Pace`].
///
/// # Errors
/// [`WireError`].
pub fn read_pace(bytes: &[u8]) -> Result<Pace, WireError> {
    let PaceWire { decode, prefill } = codec::decode(bytes, MESSAGE_BYTES_MAX)?;
    Ok(Pace {
        decode_bytes_per_s: decode,
        prefill_bytes_per_s: prefill,
    })
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
        OpeningWire::Measure { model } => Opening::Measure {
            model: Fingerprint(model.0),
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
