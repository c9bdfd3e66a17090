//! What a part of a model takes.

use std::path::Path;

use super::{StageError, StageOptions};
use crate::local::load::OVERHEAD_BYTES;

/// Rows of the model's width that the activations of one row take, about.
const ACTIVATION_ROWS: u64 = 16;

/// Memory of a part, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageMemory {
    /// Weights, memory-mapped.
    pub weights: u64,
    /// KV cache. Layers with a sliding window count in full; recurrent state is left out.
    pub kv: u64,
    /// Everything else, about.
    pub buffers: u64,
}

impl StageMemory {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.weights, self.kv, self.buffers]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    pub(super) fn of(gguf: &gguf::Model, options: &StageOptions) -> Result<Self, StageError> {
        let load = |e: gguf::KeyError| StageError::Load(e.to_string());
        let metadata = gguf.metadata();
        let width = u64::from(metadata.embedding_length().map_err(load)?);
        // Saturating: the numbers are a file's, and may be anything.
        let kv_token = metadata.kv_bytes_per_token().unwrap_or(0);
        let row = width * size_of::<f32>() as u64;
        let activations = (row * ACTIVATION_ROWS).saturating_mul(options.rows_max.into());
        Ok(Self {
            weights: gguf.tensor_bytes().map_err(load)?,
            kv: kv_token.saturating_mul(options.kv_tokens.into()),
            buffers: activations.saturating_add(OVERHEAD_BYTES),
        })
    }
}

/// What the part at `path` would take.
///
/// # Errors
/// [`StageError::Load`] if the file is damaged or can't be understood.
pub fn memory_needed(path: &Path, options: &StageOptions) -> Result<StageMemory, StageError> {
    let gguf = gguf::Model::open(path).map_err(|e| StageError::Load(e.to_string()))?;
    StageMemory::of(&gguf, options)
}
