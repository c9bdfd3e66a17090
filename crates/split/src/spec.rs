//! What a host asks of a worker: which layers of which model, and with how much room. Checked before
//! anything is allocated.

use std::fmt;
use std::ops::Range;

use gguf::Fingerprint;

/// Names one ring; drawn at random by its host, the same in all its epochs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingId(pub [u8; 16]);

impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The beginning is enough to tell rings apart in a log.
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingId({self})")
    }
}

/// How hidden states travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As they are computed: split and whole give the same bits.
    #[default]
    F32,
    /// Half the bytes. A message with a value that 16 bits do not hold goes as 32 bits.
    F16,
}

/// A range of layers, and the room they are loaded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSpec {
    /// Of which model.
    pub model: Fingerprint,
    /// Which layers.
    pub layers: Range<u32>,
    /// Elements of a row.
    pub width: u32,
    /// KV cells, shared by all sequences.
    pub kv_tokens: u32,
    /// Sequences, numbered from 0.
    pub sequences: u32,
    /// Most rows of one call.
    pub rows_max: u32,
}

/// Most layers of a model; the deepest have some hundred.
const LAYERS_MAX: u32 = 4_096;
/// Widest row; the widest models have a fifth.
pub(crate) const WIDTH_MAX: u32 = 1 << 16;
/// Most KV cells: the longest contexts there are, sixteen times over.
const KV_TOKENS_MAX: u32 = 1 << 24;
/// Most sequences; llama.cpp has no more.
pub(crate) const SEQUENCES_MAX: u32 = 256;
/// Most rows of one call; an engine's steps have up to 2,048.
pub(crate) const ROWS_MAX: u32 = 1 << 13;
/// Most bytes of one call's rows: 2,048 rows of the widest model. A worker holds some such frames.
pub(crate) const HIDDEN_BYTES_MAX: u64 = 256 << 20;

/// A spec that no honest host asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} is out of range; hint: at most {value_max}, and never 0")]
pub struct SpecError {
    /// Which number.
    pub what: &'static str,
    /// What was asked for.
    pub value: u64,
    /// The limit.
    pub value_max: u64,
}

impl StageSpec {
    /// Number of layers.
    #[must_use]
    pub fn layer_count(&self) -> u32 {
        self.layers.end.saturating_sub(self.layers.start)
    }

    /// Refuses numbers beyond all reason. What a stage really takes is found out by whoever loads it.
    ///
    /// # Errors
    /// The first number that is out of range.
    pub fn check(&self) -> Result<(), SpecError> {
        let limits = [
            ("last layer", self.layers.end.into(), LAYERS_MAX.into()),
            (
                "number of layers",
                self.layer_count().into(),
                LAYERS_MAX.into(),
            ),
            ("width", self.width.into(), WIDTH_MAX.into()),
            (
                "number of KV cells",
                self.kv_tokens.into(),
                KV_TOKENS_MAX.into(),
            ),
            (
                "number of sequences",
                self.sequences.into(),
                SEQUENCES_MAX.into(),
            ),
            ("number of rows", self.rows_max.into(), ROWS_MAX.into()),
            ("bytes of a call", self.hidden_bytes(), HIDDEN_BYTES_MAX),
        ];
        match (limits.into_iter()).find(|(_, value, most)| *value == 0 || value > most) {
            Some((what, value, value_max)) => Err(SpecError {
                what,
                value,
                value_max,
            }),
            None => Ok(()),
        }
    }

    /// Bytes of the rows of the largest call.
    #[must_use]
    pub fn hidden_bytes(&self) -> u64 {
        u64::from(self.rows_max) * u64::from(self.width) * size_of::<f32>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> StageSpec {
        StageSpec {
            model: Fingerprint([1; 32]),
            layers: 3..7,
            width: 4_096,
            kv_tokens: 8_192,
            sequences: 8,
            rows_max: 2_048,
        }
    }

    #[test]
    fn absurd_numbers_are_refused() {
        assert_eq!(spec().check(), Ok(()));
        let check = |change: fn(&mut StageSpec), what: &str| {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(spec.check().unwrap_err().what, what);
        };
        check(|s| s.layers = 7..7, "number of layers");
        check(|s| s.layers.start = 8, "number of layers");
        check(|s| s.layers.end = u32::MAX, "last layer");
        check(|s| s.width = 0, "width");
        check(|s| s.kv_tokens = u32::MAX, "number of KV cells");
        check(|s| s.sequences = 257, "number of sequences");
        check(|s| s.rows_max = u32::MAX, "number of rows");
        check(|s| s.width = WIDTH_MAX, "bytes of a call");
    }
}
