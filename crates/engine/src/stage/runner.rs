//! One of the parts that give hidden states.

use std::path::Path;

use gguf::{SliceOrigin, SliceRole};

use super::part::Part;
use super::{StageBatch, StageError, StageMemory};

/// Room that a part is loaded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOptions {
    /// KV cells, shared by all sequences. The same in all parts, so that they are full together.
    pub kv_tokens: u32,
    /// Sequences that it knows, at most 256.
    pub sequences: u32,
    /// Most rows of one call; sizes the buffers.
    pub rows_max: u32,
    /// Most rows of one call that give logits; for the tail.
    pub outputs_max: u32,
    /// Compute threads; default: one per physical core.
    pub threads: Option<u32>,
    /// Layers on the GPU; default: all, where there is one.
    pub gpu_layers: Option<u32>,
    /// Device by name.
    pub device: Option<String>,
}

/// A part of a model that takes hidden states in and gives hidden states out. Used by one thread at
/// a time; each call blocks while it computes.
#[derive(Debug)]
pub struct StageRunner {
    part: Part,
}

impl StageRunner {
    /// Loads the part at `path`: a GGUF of consecutive layers.
    ///
    /// # Errors
    /// [`StageError::Load`] if the file is damaged, or memory is short.
    pub fn open(path: &Path, options: &StageOptions) -> Result<Self, StageError> {
        let part = Part::open(path, options, SliceRole::Stage)?;
        Ok(Self { part })
    }

    /// Evaluates a batch: as many rows come out, in the same order, valid until the next call.
    ///
    /// # Errors
    /// Whatever is wrong with the batch, before anything is evaluated; [`StageError::NoRoom`], with
    /// the memory as it was; [`StageError::Failed`].
    pub fn run(&mut self, batch: &StageBatch<'_>) -> Result<&[f32], StageError> {
        self.part.evaluate(batch, None)?;
        Ok(self.part.context.hidden())
    }

    /// Makes the first `tokens` positions of `from` also those of `to`, which forgets what it had.
    /// Cells are shared, not copied.
    ///
    /// # Errors
    /// [`StageError::Sequence`].
    pub fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        self.part.copy(from, to, tokens)
    }

    /// Forgets a sequence from position `from` on; all of it with 0.
    ///
    /// # Errors
    /// [`StageError::Sequence`]; [`StageError::Cut`] where recurrent layers can't go back.
    pub fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        self.part.cut(sequence, from)
    }

    /// Forgets all sequences.
    pub fn clear(&mut self) {
        self.part.context.clear();
    }

    /// Positions that a sequence holds.
    ///
    /// # Errors
    /// [`StageError::Sequence`].
    pub fn tokens(&self, sequence: u32) -> Result<u32, StageError> {
        let sequence = self.part.sequence(sequence)?;
        let last = self.part.context.sequence_last(sequence);
        Ok(last.map_or(0, |last| last.unsigned_abs() + 1))
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

    /// Sequences that it knows.
    #[must_use]
    pub fn sequences(&self) -> u32 {
        self.part.sequences()
    }

    /// Most rows of a call.
    #[must_use]
    pub fn rows_max(&self) -> usize {
        self.part.rows_max()
    }

    /// KV cells in all; llama.cpp may have rounded the wish up.
    #[must_use]
    pub fn kv_tokens(&self) -> u32 {
        self.part.context.kv_tokens()
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> u32 {
        self.part.context.model().layers()
    }

    /// Whether sequences can't be cut back.
    #[must_use]
    pub fn is_recurrent(&self) -> bool {
        self.part.context.model().is_recurrent()
    }

    /// What it takes.
    #[must_use]
    pub fn memory(&self) -> StageMemory {
        self.part.memory()
    }
}
