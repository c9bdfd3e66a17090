//! Which evaluated tokens a prompt can share.

use super::job::Job;
use super::{Scheduler, SequenceId};
use crate::TokenId;
use crate::scheduler::JobKey;

/// Tokens that a job must gain to wait for another job's prompt instead of starting at once.
pub(super) const FOLLOW_GAIN_TOKENS_MIN: usize = 32;

/// The best prefix found for a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) sequence: SequenceId,
    pub(super) tokens: usize,
    /// Tokens that the sequence holds in all.
    pub(super) held: usize,
    /// Whether a running job writes to it.
    pub(super) running: bool,
}

/// Length of the longest common prefix.
pub(super) fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

impl Scheduler {
    /// The longest prefix of `tokens` that some sequence holds. The last token is left out when its logits are
    /// needed, so that it is evaluated.
    pub(super) fn best_match(&self, tokens: &[TokenId]) -> Option<Match> {
        let wanted = self.reusable(tokens);
        let kept = self
            .sequences
            .iter()
            .enumerate()
            .filter(|(_, s)| s.owner.is_none())
            .map(|(sequence, s)| Match {
                sequence,
                tokens: common_prefix(wanted, &s.tokens),
                held: s.tokens.len(),
                running: false,
            });
        // Rows in flight may yet find no room, so that only what is known to be there is copied. Memory
        // that can't be cut is copied as a whole, and would bring those rows along.
        let can_copy = |job: &&Job| self.limits.can_cut || job.in_flight == 0;
        let running = self.running.iter().filter(can_copy).map(|job| Match {
            sequence: job.sequence,
            tokens: common_prefix(wanted, job.held()),
            held: job.held().len(),
            running: true,
        });
        kept.chain(running)
            .filter(|m| m.tokens > 0 && (self.limits.can_cut || m.tokens == m.held))
            // Among equals a kept one: it can be taken over without a copy.
            .max_by_key(|m| (m.tokens, !m.running))
    }

    /// Tokens of a prompt that need not be evaluated.
    pub(super) fn known_tokens(&self, tokens: &[TokenId]) -> usize {
        let here = self.best_match(tokens).map_or(0, |m| m.tokens);
        let wanted = self.reusable(tokens);
        let stored = self.store.find(wanted).map_or(0, |stored| stored.tokens);
        here.max(stored)
    }

    /// A running job whose unfinished prompt shares more of `tokens` than `have`, by enough to
    /// wait for it.
    pub(super) fn leader(&self, tokens: &[TokenId], have: usize) -> Option<(JobKey, usize)> {
        if !self.limits.can_cut {
            return None;
        }
        let wanted = &tokens[..tokens.len().saturating_sub(1)];
        self.running
            .iter()
            .filter(|job| job.leads() && !job.is_stalled())
            .map(|job| (job.key, common_prefix(wanted, &job.tokens)))
            .filter(|(_, shared)| *shared >= have + FOLLOW_GAIN_TOKENS_MIN)
            .max_by_key(|(_, shared)| *shared)
    }
}
