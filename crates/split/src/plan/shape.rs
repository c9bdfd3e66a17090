//! What the planner knows of a model: bytes of each layer, of embedding and head, and where it may
//! be cut. It does not know where the numbers come from; `header` and `published` fill them in.

use thiserror::Error;

/// Most layers of a model, as in llama.cpp (`LLAMA_MAX_LAYERS`).
pub const LAYERS_MAX: usize = 512;

/// Most bytes of any one number in a shape: a pebibyte; sums and products of such numbers stay exact.
const BYTES_MAX: u64 = 1 << 50;

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Bytes of all its weights.
    pub weight_bytes: u64,
    /// Bytes read for one token: all, or with experts those of the chosen ones.
    pub active_bytes: u64,
    /// Bytes of KV cache a token; 0 for layers with a state instead.
    pub kv_token_bytes: u64,
    /// Most tokens that the cache holds, for layers with a sliding window whose cache is bounded.
    pub kv_tokens_max: Option<u32>,
    /// Bytes of the constant state of one sequence (linear attention, recurrent layers).
    pub state_bytes: u64,
}

/// The numbers of a model, before they are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// What to call it in messages, for instance its architecture.
    pub architecture: String,
    /// All layers, in order.
    pub layers: Vec<Layer>,
    /// Bytes of the token embedding, which the host keeps.
    pub embedding_bytes: u64,
    /// Bytes of the last norm and the output matrix; without the matrix where it is the embedding.
    pub head_bytes: u64,
    /// Bytes read for the logits of one token.
    pub head_active_bytes: u64,
    /// Elements of a hidden state.
    pub width: u32,
    /// First layers of possible stages, ascending, without 0. Empty where the architecture can't be split.
    pub cuts: Vec<u32>,
}

/// A model whose numbers make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    parts: Parts,
}

/// Why numbers are no model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// None, or more than [`LAYERS_MAX`].
    #[error("a model has 1 to {LAYERS_MAX} layers, not {layers}")]
    Layers {
        /// How many there are.
        layers: usize,
    },
    /// More bytes than any model has.
    #[error("{what} takes {bytes} bytes, which can't be")]
    Bytes {
        /// The part of the model.
        what: String,
        /// Its size.
        bytes: u64,
    },
    /// A cut outside the model, or out of order.
    #[error("layer {cut} can't be the first of a stage in a model of {layers} layers")]
    Cut {
        /// The cut.
        cut: u32,
        /// Layers of the model.
        layers: usize,
    },
}

impl ModelShape {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`ShapeError`] when there are no layers or too many, a size is impossible, or a cut is not inside.
    pub fn new(parts: Parts) -> Result<Self, ShapeError> {
        let layers = parts.layers.len();
        if layers == 0 || layers > LAYERS_MAX {
            return Err(ShapeError::Layers { layers });
        }
        let ends = [
            ("the embedding", parts.embedding_bytes),
            ("the head", parts.head_bytes),
            ("the active head", parts.head_active_bytes),
        ];
        for (what, bytes) in ends {
            check_bytes(bytes, || what.to_owned())?;
        }
        for (index, layer) in parts.layers.iter().enumerate() {
            for bytes in [
                layer.weight_bytes,
                layer.active_bytes,
                layer.kv_token_bytes,
                layer.state_bytes,
            ] {
                check_bytes(bytes, || format!("layer {index}"))?;
            }
        }
        let mut before = 0;
        for &cut in &parts.cuts {
            if cut <= before || cut as usize >= layers {
                return Err(ShapeError::Cut { cut, layers });
            }
            before = cut;
        }
        Ok(Self { parts })
    }

    /// The numbers.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Number of layers.
    #[must_use]
    pub fn layer_count(&self) -> u32 {
        // At most LAYERS_MAX.
        u32::try_from(self.parts.layers.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of all weights.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        let layers: u64 = self.parts.layers.iter().map(|l| l.weight_bytes).sum();
        layers + self.parts.embedding_bytes + self.parts.head_bytes
    }

    /// Cuts at every multiple of `period`: the layer pattern of an architecture must not be broken.
    #[must_use]
    pub fn cuts_every(layers: u32, period: u32) -> Vec<u32> {
        (1..layers)
            .filter(|layer| layer % period.max(1) == 0)
            .collect()
    }
}

fn check_bytes(bytes: u64, what: impl Fn() -> String) -> Result<(), ShapeError> {
    if bytes > BYTES_MAX {
        return Err(ShapeError::Bytes {
            what: what(),
            bytes,
        });
    }
    Ok(())
}
