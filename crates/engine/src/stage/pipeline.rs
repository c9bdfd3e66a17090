//! The parts of a model, put together again: tokens in, logits out.

use llama::{Batch, Model, Pos, SeqId};

use super::{EmbeddingTable, StageBatch, StageError, Tail};
use crate::local::{Forward, ForwardError};

/// Whatever evaluates the layers before the tail: here, on other machines, or some of both. Each call
/// goes through all of it, in the order of the layers.
pub trait Stages: Send {
    /// Replaces `hidden` by what the last of the layers made of the batch, whose rows are the first
    /// layer's input. As many rows come back, in the same order.
    ///
    /// # Errors
    /// As [`StageRunner::run`](super::StageRunner::run). After [`StageError::NoRoom`] some layers may hold the rows and others
    /// not: the caller cuts them.
    fn run(&mut self, batch: &StageBatch<'_>, hidden: &mut Vec<f32>) -> Result<(), StageError>;

    /// As [`StageRunner::copy`](super::StageRunner::copy), in all layers.
    ///
    /// # Errors
    /// As there, or [`StageError::Lost`].
    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError>;

    /// As [`StageRunner::cut`](super::StageRunner::cut), in all layers.
    ///
    /// # Errors
    /// As there, or [`StageError::Lost`].
    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError>;

    /// Forgets all sequences.
    ///
    /// # Errors
    /// [`StageError::Lost`].
    fn clear(&mut self) -> Result<(), StageError>;
}

/// Token embedding, stages and tail. It stands where a whole model's context stands.
pub struct Pipeline {
    embedding: EmbeddingTable,
    stages: Box<dyn Stages>,
    tail: Tail,
    /// Rows of the step: the first layer's input, and the tail's.
    first: Vec<f32>,
    last: Vec<f32>,
    /// What went wrong between two steps; the next step tells it.
    failed: Option<StageError>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("embedding", &self.embedding)
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Puts the parts of one model together.
    ///
    /// # Errors
    /// [`StageError::Size`] if table and tail are not of models of one width.
    pub fn new(
        embedding: EmbeddingTable,
        stages: Box<dyn Stages>,
        tail: Tail,
    ) -> Result<Self, StageError> {
        if embedding.width() != tail.width() {
            return Err(StageError::Size {
                what: "elements of a token's row",
                got: embedding.width(),
                wanted: tail.width(),
            });
        }
        Ok(Self {
            embedding,
            stages,
            tail,
            first: Vec::new(),
            last: Vec::new(),
            failed: None,
        })
    }

    /// Evaluates rows of tokens; `outputs` says which give logits.
    ///
    /// # Errors
    /// As [`StageRunner::run`](super::StageRunner::run), [`StageError::Token`], [`StageError::Embedding`],
    /// [`StageError::Lost`]; or what went wrong with a sequence since the last step. After
    /// [`StageError::NoRoom`] all parts hold what they held before.
    pub fn run(
        &mut self,
        tokens: &[i32],
        positions: &[i32],
        sequences: &[i32],
        outputs: &[bool],
    ) -> Result<(), StageError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.embedding.look_up(tokens, &mut self.first)?;
        let batch = StageBatch {
            hidden: &self.first,
            positions,
            sequences,
        };
        let result = self.stages.run(&batch, &mut self.last).and_then(|()| {
            let hidden = self.last.as_slice();
            self.tail.run(&StageBatch { hidden, ..batch }, outputs)
        });
        if result == Err(StageError::NoRoom) {
            self.undo(positions, sequences)?;
        }
        result
    }

    /// The logits of row `row` of the last batch, as [`Tail::logits`].
    pub fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        self.tail.logits(row)
    }

    /// As [`StageRunner::copy`](super::StageRunner::copy), in all parts.
    ///
    /// # Errors
    /// As [`Stages::copy`].
    pub fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        self.stages.copy(from, to, tokens)?;
        self.tail.copy(from, to, tokens)
    }

    /// As [`StageRunner::cut`](super::StageRunner::cut), in all parts.
    ///
    /// # Errors
    /// As [`Stages::cut`].
    pub fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        self.stages.cut(sequence, from)?;
        self.tail.cut(sequence, from)
    }

    /// Forgets all sequences, and what went wrong with them.
    ///
    /// # Errors
    /// As [`Stages::clear`].
    pub fn clear(&mut self) -> Result<(), StageError> {
        self.failed = None;
        self.tail.clear();
        self.stages.clear()
    }

    /// Takes the rows of a batch out of the parts that have evaluated it: the first part that had no
    /// room stopped the rest.
    fn undo(&mut self, positions: &[i32], sequences: &[i32]) -> Result<(), StageError> {
        let rows = sequences.iter().zip(positions).enumerate();
        for (row, (&sequence, &position)) in rows {
            if sequences[..row].contains(&sequence) {
                continue;
            }
            self.cut(sequence.unsigned_abs(), position.unsigned_abs())?;
        }
        Ok(())
    }

    /// Keeps the first thing that goes wrong for the next step.
    fn keep(&mut self, result: Result<(), StageError>) -> bool {
        let failed = result.err();
        let is_done = failed.is_none();
        self.failed = self.failed.take().or(failed);
        is_done
    }
}

impl Forward for Pipeline {
    fn model(&self) -> &Model {
        self.tail.model()
    }

    fn kv_tokens(&self) -> u32 {
        self.tail.kv_tokens()
    }

    fn evaluate(&mut self, batch: &mut Batch) -> Result<(), ForwardError> {
        self.run(
            batch.tokens(),
            batch.positions(),
            batch.sequences(),
            batch.outputs(),
        )
        .map_err(|error| match error {
            StageError::NoRoom => ForwardError::NoRoom,
            error => ForwardError::Failed(error.to_string()),
        })
    }

    fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        self.tail.logits(row)
    }

    fn copy(&mut self, from: SeqId, to: SeqId, tokens: Pos) {
        let (from, to) = (from.unsigned_abs(), to.unsigned_abs());
        let done = Self::copy(self, from, to, tokens.unsigned_abs());
        self.keep(done);
    }

    fn cut(&mut self, sequence: SeqId, from: Pos) -> bool {
        let done = Self::cut(self, sequence.unsigned_abs(), from.unsigned_abs());
        self.keep(done)
    }

    /// The parts' memory is not fetched: the scheduler gets no room for it.
    fn save(&mut self, _sequence: SeqId) -> Vec<u8> {
        Vec::new()
    }

    fn load(&mut self, _sequence: SeqId, _bytes: &[u8]) -> bool {
        false
    }

    fn clear(&mut self) {
        let done = Self::clear(self);
        self.keep(done);
    }
}
