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
    /// Of these, how many the KV sequence holds. With drafts evaluated it may exceed `tokens`.
    pub(super) evaluated: usize,
    /// Of these, how many cells belong to another sequence too.
    pub(super) shared: usize,
    /// Tokens proposed to follow `tokens`.
    pub(super) draft: Vec<TokenId>,
    pub(super) sequence: SequenceId,
    pub(super) phase: Phase,
    pub(super) reuse: bool,
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
            shared: 0,
            draft: Vec::new(),
            sequence: 0,
            phase: Phase::Run,
            reuse,
            stall: Stall::None,
            cached: None,
        }
    }

    /// Whether only the last token is left to evaluate.
    pub(super) fn is_decoding(&self) -> bool {
        self.phase == Phase::Run && self.evaluated + 1 >= self.tokens.len()
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
        self.evaluated = valid;
        valid
    }

    /// Forgets all evaluation.
    pub(super) fn reset(&mut self) {
        self.evaluated = 0;
        self.shared = 0;
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
