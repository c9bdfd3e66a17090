//! Data frames. All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0..2 | `SM` |
//! | 2 | version of the layout |
//! | 3 | bits 0 and 1: how rows travel (0 as f32, 1 as f16); bit 2: a stage had no room; bit 3: rows without values |
//! | 4..8 | epoch |
//! | 8..16 | number of the frame in its epoch, from 0 |
//! | 16..20 | operations |
//! | 20..24 | rows |
//! | 24..28 | elements of a row |
//! | 28..32 | microseconds that stages have spent computing it, as they say |
//! | then | operations of 16 bytes; positions; sequences; rows |
//!
//! Operations travel with the rows, so that every stage applies them in the order in which the host
//! asked for them, and without a trip of their own.

use half::slice::HalfFloatSliceExt;

use super::{OPS_MAX, WireError, range};
use crate::spec::{Precision, StageSpec};

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 32;

const MAGIC: [u8; 2] = *b"SM";
/// How frames are written. A worker learns from its lease whether its host writes them likewise.
pub const FRAME_VERSION: u8 = 2;
const FLAG_F16: u8 = 1;
const FLAG_NO_ROOM: u8 = 4;
const FLAG_BARE: u8 = 8;
const FLAGS: u8 = FLAG_F16 | FLAG_NO_ROOM | FLAG_BARE;
const OP_BYTES: usize = 16;
const OP_COPY: u32 = 1;
const OP_CUT: u32 = 2;
const OP_CLEAR: u32 = 3;
const OP_REPLAY: u32 = 4;

/// Something that happens to the KV cache of all stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOp {
    /// The first `tokens` positions of `from` become those of `to` too.
    Copy {
        /// Which sequence has them.
        from: u32,
        /// Which gets them.
        to: u32,
        /// How many.
        tokens: u32,
    },
    /// A sequence forgets its positions from `from` on.
    Cut {
        /// Which.
        sequence: u32,
        /// First position that is forgotten.
        from: u32,
    },
    /// Everything is forgotten.
    Clear,
    /// Rows that were evaluated before go once more to stages that have lost what they made of them. The
    /// operations behind this one are for those stages alone.
    Replay {
        /// The stages that have, a bit for each place in the ring. Of the others, those whose next one is among
        /// them send the rows that they sent before.
        fresh: Places,
    },
}

/// Some places of a ring, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Places(pub u32);

impl Places {
    /// Whether a place is among them.
    #[must_use]
    pub fn has(self, place: u32) -> bool {
        self.0.checked_shr(place).is_some_and(|bits| bits & 1 == 1)
    }
}

impl FromIterator<u32> for Places {
    fn from_iter<T: IntoIterator<Item = u32>>(places: T) -> Self {
        let bits = places
            .into_iter()
            .filter_map(|place| 1_u32.checked_shl(place));
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// What became of a frame's rows so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They are there.
    Rows,
    /// A stage had no room for them in its KV cache: the rest of the ring skips them.
    NoRoom,
}

/// Rows of one call on their way, and what happens to the KV cache before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Which life of the ring it belongs to.
    pub epoch: u32,
    /// Its number in that life.
    pub number: u64,
    /// Applied in this order, before the rows.
    pub ops: Vec<CacheOp>,
    /// Whether there are rows.
    pub outcome: Outcome,
    /// Position of each row in its sequence.
    pub positions: Vec<i32>,
    /// Sequence of each row.
    pub sequences: Vec<i32>,
    /// The rows, one after the other; empty where whoever receives them needs no values.
    pub hidden: Vec<f32>,
    /// Time that stages have spent computing them, as they say, microseconds.
    pub busy_us: u32,
}

/// What the frames of one ring have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameFormat {
    /// Elements of a row.
    pub width: u32,
    /// Most rows.
    pub rows_max: u32,
}

impl From<&StageSpec> for FrameFormat {
    fn from(spec: &StageSpec) -> Self {
        Self {
            width: spec.width,
            rows_max: spec.rows_max,
        }
    }
}

impl Frame {
    /// The stages that rows go to once more; `None` for all, as usual.
    #[must_use]
    pub fn replay(&self) -> Option<Places> {
        self.ops.iter().find_map(|op| match op {
            CacheOp::Replay { fresh } => Some(*fresh),
            _ => None,
        })
    }

    /// Whether there are rows, but no values.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.hidden.is_empty() && !self.positions.is_empty()
    }

    /// Takes the rows out, because a stage has no room for them.
    pub fn refuse_rows(&mut self) {
        self.outcome = Outcome::NoRoom;
        self.positions.clear();
        self.sequences.clear();
        self.hidden.clear();
    }
}

/// A header that keeps all limits.
#[derive(Debug)]
pub(super) struct Header {
    precision: Precision,
    outcome: Outcome,
    is_bare: bool,
    epoch: u32,
    number: u64,
    ops: u32,
    rows: u32,
    width: u32,
    busy_us: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    if let Some(found) = bytes.get(at..at + 4) {
        out.copy_from_slice(found);
    }
    u32::from_le_bytes(out)
}

impl Header {
    pub(super) fn read(
        bytes: &[u8; HEADER_BYTES],
        format: &FrameFormat,
    ) -> Result<Self, WireError> {
        let [m0, m1, version, flags, ..] = *bytes;
        if [m0, m1] != MAGIC || version != FRAME_VERSION || flags & !FLAGS != 0 {
            return Err(WireError::Magic);
        }
        let number = u64::from(u32_at(bytes, 8)) | u64::from(u32_at(bytes, 12)) << 32;
        let header = Self {
            precision: match flags & FLAG_F16 {
                0 => Precision::F32,
                _ => Precision::F16,
            },
            outcome: match flags & FLAG_NO_ROOM {
                0 => Outcome::Rows,
                _ => Outcome::NoRoom,
            },
            is_bare: flags & FLAG_BARE != 0,
            epoch: u32_at(bytes, 4),
            number,
            ops: u32_at(bytes, 16),
            rows: u32_at(bytes, 20),
            width: u32_at(bytes, 24),
            busy_us: u32_at(bytes, 28),
        };
        range("number of operations", header.ops.into(), OPS_MAX.into())?;
        let rows_max = match header.outcome {
            Outcome::Rows => format.rows_max,
            Outcome::NoRoom => 0,
        };
        range("number of rows", header.rows.into(), rows_max.into())?;
        if header.width != format.width {
            return Err(WireError::Range {
                what: "width",
                value: header.width.into(),
                value_max: format.width.into(),
            });
        }
        Ok(header)
    }

    /// Bytes that follow.
    pub(super) fn body_bytes(&self) -> u64 {
        let element = match self.precision {
            _ if self.is_bare => 0,
            Precision::F32 => 4,
            Precision::F16 => 2,
        };
        let row = 8 + u64::from(self.width) * element;
        u64::from(self.ops) * OP_BYTES as u64 + u64::from(self.rows) * row
    }

    pub(super) fn frame(&self, body: &[u8]) -> Result<Frame, WireError> {
        let (got, wanted) = (body.len() as u64, self.body_bytes());
        if got != wanted {
            return Err(WireError::Length { got, wanted });
        }
        let rows = self.rows as usize;
        // The lengths add up to the body's, which was just compared.
        let (ops, rest) = body.split_at(self.ops as usize * OP_BYTES);
        let (positions, rest) = rest.split_at(rows * 4);
        let (sequences, hidden) = rest.split_at(rows * 4);
        let ops = ops.as_chunks::<OP_BYTES>().0;
        Ok(Frame {
            epoch: self.epoch,
            number: self.number,
            busy_us: self.busy_us,
            ops: ops.iter().map(read_op).collect::<Result<_, _>>()?,
            outcome: self.outcome,
            positions: integers(positions),
            sequences: integers(sequences),
            hidden: match self.precision {
                Precision::F32 => {
                    let values = hidden.as_chunks::<4>().0;
                    values.iter().map(|v| f32::from_le_bytes(*v)).collect()
                }
                Precision::F16 => {
                    let values = hidden.as_chunks::<2>().0;
                    let values: Vec<_> = values
                        .iter()
                        .map(|v| half::f16::from_le_bytes(*v))
                        .collect();
                    values.to_f32_vec()
                }
            },
        })
    }
}

fn integers(bytes: &[u8]) -> Vec<i32> {
    let values = bytes.as_chunks::<4>().0;
    values.iter().map(|v| i32::from_le_bytes(*v)).collect()
}

fn read_op(bytes: &[u8; OP_BYTES]) -> Result<CacheOp, WireError> {
    let [code, a, b, c] = [0, 4, 8, 12].map(|at| u32_at(bytes, at));
    Ok(match code {
        OP_COPY => CacheOp::Copy {
            from: a,
            to: b,
            tokens: c,
        },
        OP_CUT => CacheOp::Cut {
            sequence: a,
            from: b,
        },
        OP_CLEAR => CacheOp::Clear,
        OP_REPLAY => CacheOp::Replay { fresh: Places(a) },
        code => {
            return Err(WireError::Range {
                what: "code of an operation",
                value: code.into(),
                value_max: OP_REPLAY.into(),
            });
        }
    })
}

/// The rows as 16-bit floats; `None` if one of them is too large for that.
fn halves(hidden: &[f32]) -> Option<Vec<half::f16>> {
    let most = f32::from(half::f16::MAX);
    let fits = hidden.iter().all(|value| value.abs() <= most);
    fits.then(|| {
        let mut out = vec![half::f16::ZERO; hidden.len()];
        out.convert_from_f32_slice(hidden);
        out
    })
}

/// The bytes of a frame. With [`Precision::F16`] a frame with a value that does not fit goes as f32.
///
/// # Panics
/// Never for frames that keep the limits of [`FrameFormat`], which is what this process makes.
#[must_use]
pub fn encode_frame(frame: &Frame, width: u32, precision: Precision) -> Vec<u8> {
    let halves = match precision {
        Precision::F32 => None,
        Precision::F16 => halves(&frame.hidden),
    };
    let mut flags = 0;
    if halves.is_some() {
        flags |= FLAG_F16;
    }
    if frame.outcome == Outcome::NoRoom {
        flags |= FLAG_NO_ROOM;
    }
    if frame.is_bare() {
        flags |= FLAG_BARE;
    }
    let rows = frame.positions.len();
    let room = HEADER_BYTES + frame.ops.len() * OP_BYTES + rows * 8 + frame.hidden.len() * 4;
    let mut bytes = Vec::with_capacity(room);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[FRAME_VERSION, flags]);
    bytes.extend_from_slice(&frame.epoch.to_le_bytes());
    bytes.extend_from_slice(&frame.number.to_le_bytes());
    for number in [count(frame.ops.len()), count(rows), width, frame.busy_us] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for op in &frame.ops {
        let numbers = match *op {
            CacheOp::Copy { from, to, tokens } => [OP_COPY, from, to, tokens],
            CacheOp::Cut { sequence, from } => [OP_CUT, sequence, from, 0],
            CacheOp::Clear => [OP_CLEAR, 0, 0, 0],
            CacheOp::Replay { fresh } => [OP_REPLAY, fresh.0, 0, 0],
        };
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
    append(&mut bytes, &frame.positions, i32::to_le_bytes);
    append(&mut bytes, &frame.sequences, i32::to_le_bytes);
    match halves {
        Some(halves) => append(&mut bytes, &halves, half::f16::to_le_bytes),
        None => append(&mut bytes, &frame.hidden, f32::to_le_bytes),
    }
    bytes
}

/// Appends values; written so that the compiler makes one copy of it.
fn append<T: Copy, const N: usize>(bytes: &mut Vec<u8>, values: &[T], each: fn(T) -> [u8; N]) {
    let start = bytes.len();
    bytes.resize(start + values.len() * N, 0);
    let places = bytes[start..].as_chunks_mut::<N>().0;
    for (place, value) in places.iter_mut().zip(values) {
        *place = each(*value);
    }
}

/// Reads one frame that fills `bytes`.
///
/// # Errors
/// [`WireError`].
pub fn decode_frame(bytes: &[u8], format: &FrameFormat) -> Result<Frame, WireError> {
    let Some((header, body)) = bytes.split_first_chunk() else {
        return Err(WireError::Length {
            got: bytes.len() as u64,
            wanted: HEADER_BYTES as u64,
        });
    };
    Header::read(header, format)?.frame(body)
}
