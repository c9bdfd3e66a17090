//! The last part of a model: it takes hidden states in and gives logits.

use std::path::Path;

use gguf::{SliceOrigin, SliceRole};
use llama::Model;

use super::part::Part;
use super::{StageBatch, StageError, StageMemory, StageOptions};

/// The part with norm, head and vocabulary. It stays on the host.
#[derive(Debug)]
pub struct Tail {
    part: Part,
}

impl Tail {
    /// Loads the part at `path`: a GGUF of the last layers, with everything that follows them.
    ///
    /// # Errors
    /// [`StageError::Load`] if the file is damaged, or memory is short.
    pub fn open(path: &Path, options: &StageOptions) -> Result<Self, StageError> {
        let part = Part::open(path, options, SliceRole::Tail)?;
        Ok(Self { part })
    }

    /// Evaluates a batch; `outputs` says which rows give logits.
    ///
    /// # Errors
    /// As [`StageRunner::run`](super::StageRunner::run).
    pub fn run(&mut self, batch: &StageBatch<'_>, outputs: &[bool]) -> Result<(), StageError> {
        if outputs.len() != batch.len() {
            return Err(StageError::Size {
                what: "outputs",
                got: outputs.len(),
                wanted: batch.len(),
            });
        }
        self.part.evaluate(batch, Some(outputs))
    }

    /// The logits of row `row` of the last batch, one per token of the vocabulary; `None` if the row
    /// gave none. They may be changed in place.
    pub fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        self.part.context.logits(row)
    }

    /// As [`StageRunner::copy`](super::StageRunner::copy).
    ///
    /// # Errors
    /// As there.
    pub fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        self.part.copy(from, to, tokens)
    }

    /// As [`StageRunner::cut`](super::StageRunner::cut).
    ///
    /// # Errors
    /// As there.
    pub fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        self.part.cut(sequence, from)
    }

    /// Forgets all sequences.
    pub fn clear(&mut self) {
        self.part.context.clear();
    }

    /// KV cells in all.
    #[must_use]
    pub fn kv_tokens(&self) -> u32 {
        self.part.context.kv_tokens()
    }

    /// Of which model and which layers it is.
    #[must_use]
    pub fn origin(&self) -> &SliceOrigin {
        self.part.origin()
    }

    /// Elements of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.part.width()
    }

    /// What it takes.
    #[must_use]
    pub fn memory(&self) -> StageMemory {
        self.part.memory()
    }

    pub(crate) fn model(&self) -> &Model {
        self.part.context.model()
    }
}
