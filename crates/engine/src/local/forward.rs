//! What the decode thread asks for logits: a whole model, or the parts of one.

use llama::{Batch, Context, DecodeError, Model, Pos, SeqId};

use crate::scheduler::round::Pipe;
use crate::stage::Trip;

/// Why a step gave no logits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardError {
    /// No room in the KV cache. Some parts of the model may hold the step's rows, and other steps in flight
    /// may come to the same end: receive them, then cut the sequences of those that did.
    #[error("no room in the KV cache")]
    NoRoom,
    /// Nobody can evaluate at the moment, which is no failure; the KV cache is gone.
    #[error("the model waits for its other machines")]
    Waiting,
    /// Anything else: the KV cache is not to be trusted any more.
    #[error("{0}")]
    Failed(String),
}

/// Evaluates steps, and keeps the KV cache of all sequences. Used by one thread. Steps, and what is done
/// to sequences between them, take effect in the order in which they were asked for. After errors other than
/// [`ForwardError::NoRoom`] no step is in flight any more.
pub(crate) trait Forward: Send {
    /// The model that has the vocabulary.
    fn model(&self) -> &Model;

    /// KV cells in all.
    fn kv_tokens(&self) -> u32;

    /// What steps go through, links not measured. May be another one after each call.
    fn pipe(&self) -> Pipe {
        Pipe::WHOLE
    }

    /// Sends a step on its way; on error it is not in flight.
    fn submit(&mut self, batch: &Batch) -> Result<(), ForwardError>;

    /// Waits for the oldest step in flight, whose rows `batch` has.
    fn receive(&mut self, batch: &mut Batch) -> Result<(), ForwardError>;

    /// The way of the step that was received last; `None` if all of its time was computing.
    fn trip(&self) -> Option<Trip> {
        None
    }

    /// The logits of row `row` of the step received last, one per token; `None` if the row gave none.
    /// They may be changed in place.
    fn logits(&mut self, row: usize) -> Option<&mut [f32]>;

    /// Makes the first `tokens` positions of `from` also those of `to`, which is empty.
    fn copy(&mut self, from: SeqId, to: SeqId, tokens: Pos);

    /// Forgets a sequence from position `from` on. False: recurrent layers can't go back.
    fn cut(&mut self, sequence: SeqId, from: Pos) -> bool;

    /// What is kept of a sequence, for [`load`](Self::load); empty if that can't be had.
    fn save(&mut self, sequence: SeqId) -> Vec<u8>;

    /// Gives an empty sequence what [`save`](Self::save) took. False: no room.
    fn load(&mut self, sequence: SeqId, bytes: &[u8]) -> bool;

    /// Forgets what is in flight, and of each sequence all but the first `held` positions, at most; `held` is
    /// reduced to what is still there.
    fn hold(&mut self, held: &mut [u32]) {
        held.fill(0);
        self.clear();
    }

    /// Forgets everything.
    fn clear(&mut self);
}

/// A whole model: one step at a time, computed when it is asked for.
impl Forward for Context {
    fn model(&self) -> &Model {
        Context::model(self)
    }

    fn kv_tokens(&self) -> u32 {
        Context::kv_tokens(self)
    }

    fn submit(&mut self, _batch: &Batch) -> Result<(), ForwardError> {
        Ok(())
    }

    fn receive(&mut self, batch: &mut Batch) -> Result<(), ForwardError> {
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
