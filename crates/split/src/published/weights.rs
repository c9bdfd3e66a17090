//! The models of the table, and their weights layer by layer. Norms and biases are left out: less than a
//! thousandth.

use super::quantisation::Quantisation;
use crate::plan::{KvBytes, Layer, ModelShape, Parts};

/// How layers look back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Every layer at everything.
    Full,
    /// Every `interval`-th layer at everything, the others through a state of constant size
    /// (gated delta net); queries of full attention come with a gate as large.
    Linear {
        /// Every so many layers one has full attention.
        interval: u64,
        /// Key heads.
        key_heads: u64,
        /// Value heads.
        value_heads: u64,
        /// Elements of either.
        head_length: u64,
        /// Tokens that the convolution sees.
        kernel: u64,
    },
}

/// The other half of each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForward {
    /// Three matrices of this width.
    Dense {
        /// Elements.
        width: u64,
    },
    /// Experts, and one that sees every token.
    Experts {
        /// How many.
        count: u64,
        /// How many of them see a token.
        used: u64,
        /// Elements of each, and of the shared one.
        width: u64,
    },
}

/// A model's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub name: &'static str,
    /// `general.architecture` of its GGUF files.
    pub architecture: &'static str,
    /// Layers.
    pub layers: u64,
    /// Elements of a hidden state.
    pub width: u64,
    /// Attention heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Elements of each.
    pub head_length: u64,
    /// How layers look back.
    pub attention: Attention,
    /// The other half.
    pub feed_forward: FeedForward,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
}

const QWEN35_ATTENTION: Attention = Attention::Linear {
    interval: 4,
    key_heads: 16,
    value_heads: 64,
    head_length: 128,
    kernel: 4,
};

/// The table. Sources are named in the module above.
pub const MODELS: [Published; 4] = [
    Published {
        name: "Llama-3.3-70B",
        architecture: "llama",
        layers: 80,
        width: 8192,
        heads: 64,
        kv_heads: 8,
        head_length: 128,
        attention: Attention::Full,
        feed_forward: FeedForward::Dense { width: 28_672 },
        vocabulary: 128_256,
    },
    Published {
        name: "Qwen2.5-72B",
        architecture: "qwen2",
        layers: 80,
        width: 8192,
        heads: 64,
        kv_heads: 8,
        head_length: 128,
        attention: Attention::Full,
        feed_forward: FeedForward::Dense { width: 29_568 },
        vocabulary: 152_064,
    },
    Published {
        name: "Qwen3.5-122B-A10B",
        architecture: "qwen35moe",
        layers: 48,
        width: 3072,
        heads: 32,
        kv_heads: 2,
        head_length: 256,
        attention: QWEN35_ATTENTION,
        feed_forward: FeedForward::Experts {
            count: 256,
            used: 8,
            width: 1024,
        },
        vocabulary: 248_320,
    },
    Published {
        name: "Qwen3.5-397B-A17B",
        architecture: "qwen35moe",
        layers: 60,
        width: 4096,
        heads: 32,
        kv_heads: 2,
        head_length: 256,
        attention: QWEN35_ATTENTION,
        feed_forward: FeedForward::Experts {
            count: 512,
            used: 10,
            width: 1024,
        },
        vocabulary: 248_320,
    },
];

impl Published {
    /// Its shape at a quantisation.
    #[must_use]
    pub fn shape(&self, quantisation: &Quantisation) -> ModelShape {
        let table = quantisation.bytes(self.vocabulary * self.width);
        let period = match self.attention {
            Attention::Full => 1,
            Attention::Linear { interval, .. } => interval,
        };
        let parts = Parts {
            architecture: self.architecture.to_owned(),
            layers: (0..self.layers)
                .map(|layer| self.layer(layer, quantisation))
                .collect(),
            embedding_bytes: table,
            head_bytes: table,
            head_active_bytes: table,
            width: small(self.width),
            cuts: ModelShape::cuts_every(small(self.layers), small(period)),
        };
        // The table is ours, and a test makes the shape of each.
        ModelShape::new(parts).unwrap_or_else(|error| unreachable!("{}: {error}", self.name))
    }

    fn layer(&self, index: u64, quantisation: &Quantisation) -> Layer {
        let (attention_elements, kv_token_bytes, state_bytes) = self.attention(index);
        let (shared, routed, used, count) = self.feed_forward(quantisation);
        let fixed = quantisation.bytes(attention_elements) + shared;
        Layer {
            weight_bytes: fixed + routed,
            active_bytes: fixed + routed * used / count,
            kv_token_bytes,
            kv_tokens_max: None,
            state_bytes,
        }
    }

    /// Elements of a layer's attention, bytes that it keeps of a token, and of a sequence.
    fn attention(&self, index: u64) -> (u64, u64, u64) {
        let full = |query_parts: u64| {
            let query = self.heads * self.head_length;
            let kv = self.kv_heads * self.head_length;
            let elements = self.width * (query * query_parts + 2 * kv + query);
            let cache = KvBytes::Grouped {
                heads: small(self.kv_heads),
                key_length: small(self.head_length),
                value_length: small(self.head_length),
            };
            (elements, cache.bytes(), 0)
        };
        match self.attention {
            Attention::Full => full(1),
            Attention::Linear { interval, .. } if (index + 1).is_multiple_of(interval) => full(2),
            Attention::Linear {
                key_heads,
                value_heads,
                head_length,
                kernel,
                ..
            } => {
                let (keys, values) = (key_heads * head_length, value_heads * head_length);
                // Queries and keys, values, their gate, the way out; alpha and beta of each head.
                let elements = self.width * (2 * keys + 3 * values + 2 * value_heads);
                let state = (kernel - 1) * (2 * keys + values) + head_length * values;
                (elements, 0, state * 4)
            }
        }
    }

    /// Bytes that every token reads, bytes of experts, and how many of how many see a token.
    fn feed_forward(&self, quantisation: &Quantisation) -> (u64, u64, u64, u64) {
        let matrices = |width: u64| {
            let one = self.width * width;
            (
                quantisation.bytes(2 * one),
                quantisation.down_bytes(one, width),
            )
        };
        match self.feed_forward {
            FeedForward::Dense { width } => {
                let (up, down) = matrices(width);
                (up + down, 0, 0, 1)
            }
            FeedForward::Experts { count, used, width } => {
                let (up, down) = matrices(width);
                let router = quantisation.bytes(count * self.width);
                (up + down + router, (up + down) * count, used, count)
            }
        }
    }
}

/// Numbers of the table are small.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
