//! Owns what stands on a stream between two members that pass weights: one [`Ask`] one way, frames
//! of [`Answer`]s the other. A frame is its length as four bytes, little-endian, then so many
//! bytes; every length has a bound that the reader checks before it allocates.
//!
//! | bytes of an ask | what |
//! |---|---|
//! | 1 | version |
//! | 1 | kind |
//! | 32 | fingerprint of the model |
//! | 9 | manifest only: first layer, layer behind the last, role |
//! | 8 each | chunks only: tensor and number |

use std::borrow::Cow;
use std::ops::Range;

use gguf::limits::{LAYERS_MAX, TENSORS_MAX};
use gguf::{Fingerprint, SliceRole};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::chunk::{CHUNK_BYTES, ChunkId, SliceKey};

/// The protocol's version. A holder refuses others.
const VERSION: u8 = 1;

/// Most chunks of one ask: 64 MiB, more than a second's worth on most links. Many small tensors
/// go in one ask too.
pub(crate) const CHUNKS_PER_ASK: usize = 64;

/// Bytes of an ask before what depends on its kind.
const ASK_FRONT: usize = 34;

/// Most bytes of an ask: one for chunks.
pub(crate) const ASK_BYTES_MAX: usize = ASK_FRONT + 8 * CHUNKS_PER_ASK;

/// Most bytes of an answer's frame: its kind and a chunk.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 + CHUNK_BYTES as usize;

/// Bytes that are allocated before any of a frame's content has come: a length is only a claim.
const TRUSTED_BYTES: usize = 64 << 10;

/// Most bytes of a bitmap of tensors: every part of a model full of them, and no more than 2 MiB.
pub(crate) const HOLDINGS_BYTES_MAX: u64 = TENSORS_MAX * 16 / 8;

/// What a member asks a holder for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The headers of the model's files.
    Headers(Fingerprint),
    /// Which tensors the holder has.
    Holdings(Fingerprint),
    /// The hashes of a slice's chunks.
    Manifest(SliceKey),
    /// Chunks, to be answered in this order.
    Chunks(Fingerprint, Vec<ChunkId>),
    /// Where a hub has the model's files.
    Place(Fingerprint),
}

/// One frame of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There is no answer, or not to this chunk.
    Refused(Refusal),
    /// It takes longer.
    Alive,
    /// So many bytes follow, as [`Answer::Data`].
    Body(u64),
    /// The next bytes of a body, or one chunk.
    Data(Vec<u8>),
}

/// Why a holder does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it does not have that")]
    Unknown,
    #[error("it does not share that")]
    Closed,
    #[error("it has too much to do")]
    Busy,
    #[error("it cannot read its files")]
    Failed,
}

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Garbled(&'static str);

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("a frame of {bytes} bytes where at most {bytes_max} are allowed")]
    TooLong { bytes: usize, bytes_max: usize },
}

impl Ask {
    pub(crate) fn model(&self) -> Fingerprint {
        match self {
            Self::Headers(model)
            | Self::Holdings(model)
            | Self::Chunks(model, _)
            | Self::Place(model) => *model,
            Self::Manifest(key) => key.model,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let kind = match self {
            Self::Headers(_) => 0,
            Self::Holdings(_) => 1,
            Self::Manifest(_) => 2,
            Self::Chunks(..) => 3,
            Self::Place(_) => 4,
        };
        let mut out = vec![VERSION, kind];
        out.extend_from_slice(&self.model().0);
        match self {
            Self::Headers(_) | Self::Holdings(_) | Self::Place(_) => {}
            Self::Manifest(key) => {
                out.extend_from_slice(&key.layers.start.to_le_bytes());
                out.extend_from_slice(&key.layers.end.to_le_bytes());
                out.push(match key.role {
                    SliceRole::Stage => 0,
                    SliceRole::Tail => 1,
                    SliceRole::Whole => 2,
                });
            }
            Self::Chunks(_, ids) => {
                for id in ids {
                    out.extend_from_slice(&id.tensor.to_le_bytes());
                    out.extend_from_slice(&id.number.to_le_bytes());
                }
            }
        }
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Garbled> {
        let (front, rest) = bytes
            .split_at_checked(ASK_FRONT)
            .ok_or(Garbled("the ask is too short"))?;
        let [version, kind, model @ ..] = front else {
            return Err(Garbled("the ask is too short"));
        };
        if *version != VERSION {
            return Err(Garbled("the ask is of another version"));
        }
        let model = Fingerprint(model.try_into().map_err(|_| Garbled("no fingerprint"))?);
        match kind {
            0 if rest.is_empty() => Ok(Self::Headers(model)),
            1 if rest.is_empty() => Ok(Self::Holdings(model)),
            2 => {
                let (layers, role) = read_slice(rest)?;
                Ok(Self::Manifest(SliceKey {
                    model,
                    layers,
                    role,
                }))
            }
            3 => Ok(Self::Chunks(model, read_chunks(rest)?)),
            4 if rest.is_empty() => Ok(Self::Place(model)),
            _ => Err(Garbled("the ask is of no known kind")),
        }
    }
}

fn read_slice(bytes: &[u8]) -> Result<(Range<u32>, SliceRole), Garbled> {
    let [a, b, c, d, e, f, g, h, role] = *bytes else {
        return Err(Garbled("the slice has another length"));
    };
    let layers = u32::from_le_bytes([a, b, c, d])..u32::from_le_bytes([e, f, g, h]);
    if layers.is_empty() || layers.end > LAYERS_MAX {
        return Err(Garbled("the slice has no layers, or too many"));
    }
    match role {
        0 => Ok((layers, SliceRole::Stage)),
        1 => Ok((layers, SliceRole::Tail)),
        2 => Ok((layers, SliceRole::Whole)),
        _ => Err(Garbled("the slice has no known role")),
    }
}

fn read_chunks(bytes: &[u8]) -> Result<Vec<ChunkId>, Garbled> {
    let (rows, []) = bytes.as_chunks::<8>() else {
        return Err(Garbled("the list of chunks breaks off"));
    };
    if rows.is_empty() || rows.len() > CHUNKS_PER_ASK {
        return Err(Garbled("the list has no chunks, or too many"));
    }
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
    let chunk = |row: &[u8; 8]| ChunkId {
        tensor: number(&row[..4]),
        number: number(&row[4..]),
    };
    Ok(rows.iter().map(chunk).collect())
}

impl Answer {
    /// The kind, and what stands behind it.
    fn encode(&self) -> (u8, Cow<'_, [u8]>) {
        match self {
            Self::Refused(refusal) => {
                let code = match refusal {
                    Refusal::Unknown => 0,
                    Refusal::Closed => 1,
                    Refusal::Busy => 2,
                    Refusal::Failed => 3,
                };
                (0, vec![code].into())
            }
            Self::Alive => (1, Cow::Borrowed(&[])),
            Self::Body(bytes) => (2, bytes.to_le_bytes().to_vec().into()),
            Self::Data(bytes) => (3, bytes.into()),
        }
    }

    /// The whole frame. Whoever writes one to a stream spares the copy.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (kind, payload) = self.encode();
        [&[kind], payload.as_ref()].concat()
    }

    pub(crate) fn from_bytes(mut frame: Vec<u8>) -> Result<Self, Garbled> {
        let garbled = Err(Garbled("the answer is of no known kind"));
        match frame.as_slice() {
            [0, code] => Ok(Self::Refused(match code {
                0 => Refusal::Unknown,
                1 => Refusal::Closed,
                2 => Refusal::Busy,
                // A newer holder may have more reasons.
                _ => Refusal::Failed,
            })),
            [1] => Ok(Self::Alive),
            [2, bytes @ ..] => match bytes.try_into() {
                Ok(bytes) => Ok(Self::Body(u64::from_le_bytes(bytes))),
                Err(_) => garbled,
            },
            [3, _, ..] => {
                frame.remove(0);
                Ok(Self::Data(frame))
            }
            _ => garbled,
        }
    }
}

/// Packs one bit for each tensor, the first in the lowest bit of the first byte.
pub(crate) fn pack_bits(bits: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, bit) in bits.enumerate() {
        if i % 8 == 0 {
            out.push(0);
        }
        if let Some(last) = out.last_mut() {
            *last |= u8::from(bit) << (i % 8);
        }
    }
    out
}

/// The next frame; `None` when the stream ended before one began.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    let first = stream.read(&mut length).await?;
    if first == 0 {
        return Ok(None);
    }
    if let Some(rest) = length.get_mut(first..) {
        stream.read_exact(rest).await?;
    }
    let bytes = u32::from_le_bytes(length) as usize;
    if bytes > bytes_max {
        return Err(FrameError::TooLong { bytes, bytes_max });
    }
    let mut frame = Vec::with_capacity(bytes.min(TRUSTED_BYTES));
    let read = stream.take(bytes as u64).read_to_end(&mut frame).await?;
    if read < bytes {
        return Err(FrameError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(frame))
}

/// Writes an ask as a frame.
pub(crate) async fn write_ask(
    stream: &mut (impl AsyncWrite + Unpin),
    ask: &Ask,
) -> std::io::Result<()> {
    let bytes = ask.to_bytes();
    let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&bytes);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Writes an answer as a frame.
pub(crate) async fn write_answer(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: &Answer,
) -> std::io::Result<()> {
    let (kind, payload) = answer.encode();
    // A payload is no longer than a chunk.
    let mut front = (payload.len() as u32 + 1).to_le_bytes().to_vec();
    front.push(kind);
    stream.write_all(&front).await?;
    stream.write_all(&payload).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests;
