//! A job's progress and a KV sequence's contents.

use super::{JobKey, SequenceId, Stall};
use crate::TokenId;

/// Where a running job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Another job evaluates a prefix of this one's prompt just now; its KV is worth waiting for.
    Follow {
        /// That job.
        leader: JobKey,
        /// Tokens worth waiting for.
        tokens: usize,
    },
    /// Evaluates its tokens: prompt, then token by token.
    Run,
}

/// One sequence to be continued.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: JobKey,
    /// Prompt, then generated tokens.
    pub(super) tokens: Vec<TokenId>,
    /// Of these, how many the KV sequence holds once all planned steps are evaluated. With drafts it
    /// may exceed `tokens`.
    pub(super) evaluated: usize,
    /// Of these, how many it holds for certain: their steps are committed.
    pub(super) confirmed: usize,
    /// Steps in flight that have rows of the job.
    pub(super) in_flight: usize,
    /// One of them gives logits: the next token depends on it.
    pub(super) awaited: bool,
    /// When it last got rows.
    pub(super) planned_at: u64,
    /// Of these, how many cells belong to another sequence too.
    pub(super) shared: usize,
    /// Tokens proposed to follow `tokens`.
    pub(super) draft: Vec<TokenId>,
    pub(super) sequence: SequenceId,
    pub(super) phase: Phase,
    pub(super) reuse: bool,
    /// Nothing was drawn for it yet.
    pub(super) is_fresh: bool,
    pub(super) stall: Stall,
    /// Tokens found in the cache at the first admission; later ones don't count.
    pub(super) cached: Option<usize>,
}

impl Job {
    pub(super) fn new(key: JobKey, tokens: Vec<TokenId>, reuse: bool) -> Self {
        Self {
            key,
            tokens,
            evaluated: 0,
            confirmed: 0,
            in_flight: 0,
            awaited: false,
            planned_at: 0,
            shared: 0,
            draft: Vec::new(),
            sequence: 0,
            phase: Phase::Run,
            reuse,
            is_fresh: true,
            stall: Stall::None,
            cached: None,
        }
    }

    /// Whether no more than the last token is left to plan.
    pub(super) fn is_decoding(&self) -> bool {
        self.phase == Phase::Run && self.evaluated + 1 >= self.tokens.len()
    }

    /// Whether the next step may decode it.
    pub(super) fn is_due(&self) -> bool {
        self.is_decoding() && !self.awaited && !self.is_stalled()
    }

    /// Whether more than the last token is not known to be evaluated: others may wait for it.
    pub(super) fn leads(&self) -> bool {
        self.phase == Phase::Run && self.confirmed + 1 < self.tokens.len()
    }

    /// Tokens that the KV sequence holds for certain.
    pub(super) fn held(&self) -> &[TokenId] {
        &self.tokens[..self.confirmed.min(self.tokens.len())]
    }

    /// Settles where it begins: `held` tokens are in `sequence`, of which `shared` are another one's too.
    pub(super) fn begin(&mut self, sequence: SequenceId, held: usize, shared: usize) {
        self.sequence = sequence;
        (self.evaluated, self.confirmed, self.shared) = (held, held, shared);
    }

    /// Notes that positions up to `end` are planned.
    pub(super) fn plan(&mut self, end: usize, gives_output: bool, now: u64) {
        self.evaluated = self.evaluated.max(end);
        self.in_flight += 1;
        self.awaited |= gives_output;
        self.planned_at = now;
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stall != Stall::None
    }

    /// Tokens left to evaluate, drafts apart.
    pub(super) fn remaining(&self) -> usize {
        self.tokens.len().saturating_sub(self.evaluated)
    }

    /// Appends sampled tokens and returns how many positions are still valid.
    pub(super) fn accept(&mut self, sampled: &[TokenId]) -> usize {
        let matched = sampled
            .iter()
            .zip(&self.draft)
            .take_while(|(a, b)| a == b)
            .count();
        let valid = (self.tokens.len() + matched).min(self.evaluated);
        self.tokens.extend_from_slice(sampled);
        self.draft.clear();
        (self.evaluated, self.confirmed) = (valid, valid);
        valid
    }

    /// Forgets all evaluation, also what is in flight.
    pub(super) fn reset(&mut self) {
        self.begin(self.sequence, 0, 0);
        (self.in_flight, self.awaited) = (0, false);
        self.draft.clear();
        self.phase = Phase::Run;
    }
}

/// What a KV sequence holds.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The job that writes to it; its contents are then the job's evaluated tokens.
    pub(super) owner: Option<JobKey>,
    /// Without owner: what is kept.
    pub(super) tokens: Vec<TokenId>,
    /// Cells that another sequence held too when this one got them.
    pub(super) shared: usize,
    /// When it was last of use.
    pub(super) used_at: u64,
}

impl Sequence {
    pub(super) fn own_cells(&self) -> usize {
        self.tokens.len().saturating_sub(self.shared)
    }
}
