//! What a stage takes: weights with a tenth on top for buffers, and the KV cache at the wanted context.

use super::shape::Layer;

/// What the cache must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Cells of the cache, shared by all sequences.
    pub context_tokens: u32,
    /// Sequences at once.
    pub sequences: u32,
}

/// Bytes of key and value heads for one token of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvBytes {
    /// Ordinary attention: heads and the length of a key and of a value, in elements.
    Grouped {
        /// Key and value heads.
        heads: u32,
        /// Elements of a key.
        key_length: u32,
        /// Elements of a value.
        value_length: u32,
    },
    /// Compressed attention of DeepSeek: one row that holds keys and values.
    Compressed {
        /// Elements of the row.
        row_length: u32,
    },
}

impl KvBytes {
    /// Bytes at 16 bits an element.
    #[must_use]
    pub fn bytes(self) -> u64 {
        const ELEMENT_BYTES: u64 = 2;
        match self {
            Self::Grouped {
                heads,
                key_length,
                value_length,
            } => u64::from(heads)
                .saturating_mul(u64::from(key_length) + u64::from(value_length))
                .saturating_mul(ELEMENT_BYTES),
            Self::Compressed { row_length } => u64::from(row_length) * ELEMENT_BYTES,
        }
    }
}

/// Memory is counted in tenths of a byte: weights × 1.1 stays exact, whichever layers are added up.
pub(super) const TENTHS: u128 = 10;

/// Tenths of a byte that weights take.
pub(super) fn weight_tenths(bytes: u64) -> u128 {
    u128::from(bytes) * 11
}

impl Layer {
    /// Bytes of cache and state.
    #[must_use]
    pub fn kv_bytes(&self, room: Room) -> u64 {
        let tokens = self.kv_tokens_max.map_or(room.context_tokens, |most| {
            most.saturating_mul(room.sequences).min(room.context_tokens)
        });
        // A pebibyte times 2^32 does not fit; saturating keeps nonsense finite, and it fits nowhere.
        let kv = self.kv_token_bytes.saturating_mul(tokens.into());
        let state = self.state_bytes.saturating_mul(room.sequences.into());
        kv.saturating_add(state).min(1 << 60)
    }

    /// Tenths of a byte that the layer takes in all.
    pub(super) fn tenths(&self, room: Room) -> u128 {
        weight_tenths(self.weight_bytes) + u128::from(self.kv_bytes(room)) * TENTHS
    }
}
