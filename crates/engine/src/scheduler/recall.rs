//! Prompts whose last logits are kept: when such a prompt comes again and the KV cache still has all of it, its
//! first token is drawn without a step.
//!
//! That is what regenerating an answer, asking again after a broken connection, and `n > 1` come down to. Which
//! logits are kept is decided here; the values are the caller's.

use super::{JobKey, Scheduler};
use crate::TokenId;

/// Kept logits; never reused.
pub type RecallId = u64;

#[derive(Debug)]
struct Entry {
    id: RecallId,
    tokens: Vec<TokenId>,
    used_at: u64,
}

/// Tokens of all prompts together, which are kept beside the logits: a megabyte.
const TOKENS_MAX: usize = 1 << 18;

/// The logits of a prompt's last token are to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Under this id.
    pub id: RecallId,
    /// Those are not needed any more.
    pub gone: Vec<RecallId>,
}

/// Of which prompts the logits are kept.
#[derive(Debug)]
pub(super) struct Recall {
    entries_max: usize,
    entries: Vec<Entry>,
    next: RecallId,
}

impl Recall {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            entries: Vec::new(),
            next: 0,
        }
    }

    /// Decides about a prompt whose logits are there. `None`: they are kept already, or none are.
    fn put(&mut self, tokens: &[TokenId], now: u64) -> Option<Keep> {
        if self.entries_max == 0 || tokens.len() > TOKENS_MAX {
            return None;
        }
        if let Some(entry) = self.entries.iter_mut().find(|e| e.tokens == tokens) {
            entry.used_at = now;
            return None;
        }
        let mut gone = Vec::new();
        while self.entries.len() >= self.entries_max || self.len() + tokens.len() > TOKENS_MAX {
            let oldest = self.entries.iter().enumerate();
            let (index, _) = oldest.min_by_key(|(_, entry)| entry.used_at)?;
            gone.push(self.entries.swap_remove(index).id);
        }
        let id = self.next;
        self.next += 1;
        self.entries.push(Entry {
            id,
            tokens: tokens.to_vec(),
            used_at: now,
        });
        Some(Keep { id, gone })
    }

    /// Tokens of all prompts.
    fn len(&self) -> usize {
        self.entries.iter().map(|entry| entry.tokens.len()).sum()
    }

    fn find(&self, tokens: &[TokenId]) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tokens == tokens)
    }

    fn touch(&mut self, tokens: &[TokenId], now: u64) -> Option<RecallId> {
        let entry = self.entries.iter_mut().find(|e| e.tokens == tokens)?;
        entry.used_at = now;
        Some(entry.id)
    }
}

impl Scheduler {
    /// The part of a prompt that may come from the cache: all but the last token, whose logits are needed,
    /// unless they are kept.
    pub(super) fn reusable<'a>(&self, tokens: &'a [TokenId]) -> &'a [TokenId] {
        match self.recall.find(tokens) {
            Some(_) => tokens,
            None => &tokens[..tokens.len().saturating_sub(1)],
        }
    }

    /// To be asked when the last token of a job's prompt was evaluated and nothing was drawn yet: whether its
    /// logits are to be kept.
    pub fn keep_logits(&mut self, key: JobKey) -> Option<Keep> {
        let job = self.running.iter().find(|j| j.key == key)?;
        if !job.reuse || !job.is_fresh {
            return None;
        }
        self.recall.put(&job.tokens, self.clock)
    }

    /// Of the jobs that begin, those that have nothing to evaluate, with the logits to draw from.
    pub(super) fn recalled(&mut self, begun: &[(JobKey, usize)]) -> Vec<(JobKey, RecallId)> {
        let mut recalled = Vec::new();
        for (key, _) in begun {
            let Some(job) = self.running.iter_mut().find(|j| j.key == *key) else {
                continue;
            };
            if job.remaining() > 0 {
                continue;
            }
            if let Some(id) = self.recall.touch(&job.tokens, self.clock) {
                // Until it is drawn, there is no token to evaluate.
                job.awaited = true;
                recalled.push((job.key, id));
            }
        }
        recalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logits_used_longest_ago_go_first() {
        let mut recall = Recall::new(2);
        let keep = |id, gone: &[RecallId]| {
            Some(Keep {
                id,
                gone: gone.to_vec(),
            })
        };
        assert_eq!(recall.put(&[1], 1), keep(0, &[]));
        assert_eq!(recall.put(&[2], 2), keep(1, &[]));
        assert_eq!(recall.put(&[1], 3), None);
        assert_eq!(recall.put(&[3], 4), keep(2, &[1]));
        assert_eq!(recall.touch(&[1], 5), Some(0));
        assert_eq!(recall.put(&[4], 6), keep(3, &[2]));
        assert_eq!(recall.touch(&[3], 7), None);
        assert!(recall.find(&[1, 2]).is_none());
        assert_eq!(Recall::new(0).put(&[1], 1), None);
        // However few there are, their tokens are bounded.
        let long = vec![5; TOKENS_MAX - 1];
        assert_eq!(recall.put(&long, 8), keep(4, &[0]));
        assert_eq!(recall.put(&[6, 6], 9), keep(5, &[3, 4]));
        assert_eq!(recall.put(&vec![7; TOKENS_MAX + 1], 10), None);
    }
}
