//! What the decode thread asks for logits: a whole model, or the parts of one.

use llama::{Batch, Context, DecodeError, Model, Pos, SeqId};

/// Why a step gave no logits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardError {
    /// No room in the KV cache, which is as before the step.
    #[error("no room in the KV cache")]
    NoRoom,
    /// Anything else: the KV cache is not to be trusted any more.
    #[error("{0}")]
    Failed(String),
}

/// Evaluates steps, and keeps the KV cache of all sequences. Used by one thread.
pub(crate) trait Forward: Send {
    /// The model that has the vocabulary.
    fn model(&self) -> &Model;

    /// KV cells in all.
    fn kv_tokens(&self) -> u32;

    /// Evaluates the rows of one step.
    fn evaluate(&mut self, batch: &mut Batch) -> Result<(), ForwardError>;

    /// The logits of row `row` of the last step, one per token; `None` if the row gave none. They may
    /// be changed in place.
    fn logits(&mut self, row: usize) -> Option<&mut [f32]>;

    /// Makes the first `tokens` positions of `from` also those of `to`, which is empty.
    fn copy(&mut self, from: SeqId, to: SeqId, tokens: Pos);

    /// Forgets a sequence from position `from` on. False: recurrent layers can't go back.
    fn cut(&mut self, sequence: SeqId, from: Pos) -> bool;

    /// What is kept of a sequence, for [`load`](Self::load); empty if that can't be had.
    fn save(&mut self, sequence: SeqId) -> Vec<u8>;

    /// Gives an empty sequence what [`save`](Self::save) took. False: no room.
    fn load(&mut self, sequence: SeqId, bytes: &[u8]) -> bool;

    /// Forgets everything.
    fn clear(&mut self);
}

/// A whole model.
impl Forward for Context {
    fn model(&self) -> &Model {
        Context::model(self)
    }

    fn kv_tokens(&self) -> u32 {
        Context::kv_tokens(self)
    }

    fn evaluate(&mut self, batch: &mut Batch) -> Result<(), ForwardError> {
        self.decode(batch).map_err(|error| match error {
            DecodeError::NoKvSlot => ForwardError::NoRoom,
            error => ForwardError::Failed(error.to_string()),
        })
    }

    fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        Context::logits(self, row)
    }

    fn copy(&mut self, from: SeqId, to: SeqId, tokens: Pos) {
        self.sequence_copy(from, to, tokens);
    }

    fn cut(&mut self, sequence: SeqId, from: Pos) -> bool {
        self.sequence_remove(sequence, from, None)
    }

    fn save(&mut self, sequence: SeqId) -> Vec<u8> {
        self.sequence_save(sequence)
    }

    fn load(&mut self, sequence: SeqId, bytes: &[u8]) -> bool {
        self.sequence_load(sequence, bytes)
    }

    fn clear(&mut self) {
        Context::clear(self);
    }
}
