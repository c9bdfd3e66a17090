//! A model cut into parts that pass hidden states on, each part with the KV cache of its own layers.
//!
//! The host looks tokens up itself ([`EmbeddingTable`]), sends their rows through [`Stages`], and
//! evaluates the last part ([`Tail`]), which has norm, head and vocabulary; [`Pipeline`] is the three
//! together. [`StageRunner`] evaluates one of the parts in between. It knows nothing of how rows
//! travel, of tokens, or of text.
//!
//! Split and whole give the same bits if every part evaluates the same rows in the same call as the
//! whole model would, with as many threads, on the same kind of CPU: kernels are chosen by the number
//! of rows, and attention is shared out over threads. A call is one graph (`n_ubatch` is `n_batch`
//! is [`StageOptions::rows_max`]), so parts may have different limits as long as no call exceeds the
//! smallest of them; cutting a call's rows into several changes the last bits.

mod embedding;
mod error;
mod local;
mod memory;
mod part;
mod pipeline;
mod runner;
mod tail;

use gguf::SplitArchitecture;

pub use embedding::EmbeddingTable;
pub use error::StageError;
pub use local::LocalStages;
pub use memory::{StageMemory, memory_needed};
pub use pipeline::{Pipeline, Stages, Trip};
pub use runner::{StageOptions, StageRunner};
pub use tail::Tail;

/// Rows of hidden states that are evaluated in one call, in an order of the host's choice: the rows
/// of one sequence in the order of their positions, those of several mixed at will.
#[derive(Debug, Clone, Copy)]
pub struct StageBatch<'a> {
    /// The rows one after the other, each of the model's width.
    pub hidden: &'a [f32],
    /// Position of each row in its sequence, from 0 and without gaps.
    pub positions: &'a [i32],
    /// Sequence of each row, from 0.
    pub sequences: &'a [i32],
}

impl StageBatch<'_> {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

/// What is to be known of an architecture that may be split.
fn architecture(model: &gguf::Model) -> Result<&'static SplitArchitecture, String> {
    let name = model.metadata().architecture().map_err(|e| e.to_string())?;
    let architecture = SplitArchitecture::of(name);
    architecture.ok_or_else(|| format!("models of architecture `{name}` can't be split"))
}
