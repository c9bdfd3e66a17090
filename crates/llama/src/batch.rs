//! The rows of one decode call.

use llama_cpp_sys_2 as sys;

use crate::{Pos, SeqId, Token};

/// Rows of tokens, each with position, sequence, and whether its logits are wanted.
#[derive(Debug, Default)]
pub struct Batch {
    tokens: Vec<Token>,
    positions: Vec<Pos>,
    sequences: Vec<SeqId>,
    outputs: Vec<bool>,
    // Kept between calls so that a step allocates nothing.
    sequence_counts: Vec<i32>,
    sequence_pointers: Vec<*mut SeqId>,
}

// SAFETY: `sequence_pointers` point into `sequences` of the same object and are rebuilt before
// every use; nothing else is shared.
unsafe impl Send for Batch {}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
    }

    /// Adds a row and returns its index, by which its logits are read.
    pub fn push(&mut self, token: Token, position: Pos, sequence: SeqId, output: bool) -> usize {
        self.tokens.push(token);
        self.positions.push(position);
        self.sequences.push(sequence);
        self.outputs.push(output);
        self.tokens.len() - 1
    }

    /// Token of each row.
    #[must_use]
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Position of each row.
    #[must_use]
    pub fn positions(&self) -> &[Pos] {
        &self.positions
    }

    /// Which rows give logits.
    #[must_use]
    pub fn outputs(&self) -> &[bool] {
        &self.outputs
    }

    /// Sequence of each row.
    #[must_use]
    pub fn sequences(&self) -> &[SeqId] {
        &self.sequences
    }

    /// The C view; valid until the batch is changed or dropped.
    pub(crate) fn raw(&mut self) -> sys::llama_batch {
        self.sequence_counts.clear();
        self.sequence_counts.resize(self.tokens.len(), 1);
        self.sequence_pointers.clear();
        self.sequence_pointers
            .extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            // A `bool` is a byte of 0 or 1, and llama.cpp only reads it.
            logits: self.outputs.as_mut_ptr().cast(),
        }
    }
}
