//! Prefixes that were moved out of the KV cache into the host's memory: which tokens are where.
//!
//! Attention looks at every cell in use, whosever it is. So what nobody computes with is better kept
//! elsewhere, and copied back when a prompt begins with it. The bytes are the caller's.

use super::prefix::common_prefix;
use crate::TokenId;

/// A stored prefix; never reused.
pub type StoreId = u64;

/// Shorter prefixes are not worth their place: they are evaluated again within a step.
const TOKENS_MIN: usize = 16;

#[derive(Debug)]
struct Entry {
    id: StoreId,
    tokens: Vec<TokenId>,
    used_at: u64,
}

/// What is stored.
#[derive(Debug)]
pub(super) struct Store {
    tokens_max: usize,
    entries: Vec<Entry>,
    next: StoreId,
}

/// What becomes of a prefix that is to be stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is stored already, or not worth it.
    Needless,
    /// It is too long.
    TooLong,
    /// Under this id; those others go.
    As(StoreId, Vec<StoreId>),
}

/// The best stored prefix of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: StoreId,
    /// Tokens that serve the prompt.
    pub(super) tokens: usize,
    /// Tokens that are stored.
    pub(super) held: usize,
}

impl Store {
    pub(super) fn new(tokens_max: usize) -> Self {
        Self {
            tokens_max,
            entries: Vec::new(),
            next: 0,
        }
    }

    /// Tokens that are stored.
    pub(super) fn len(&self) -> usize {
        self.entries.iter().map(|entry| entry.tokens.len()).sum()
    }

    /// Decides about a prefix of `tokens`, and makes room for it.
    pub(super) fn put(&mut self, tokens: &[TokenId], now: u64) -> Put {
        if tokens.len() > self.tokens_max {
            return Put::TooLong;
        }
        if tokens.len() < TOKENS_MIN {
            return Put::Needless;
        }
        let shared = |entry: &Entry| common_prefix(&entry.tokens, tokens);
        let longer = self.entries.iter_mut();
        if let Some(entry) = longer
            .filter(|entry| shared(entry) == tokens.len())
            .max_by_key(|entry| entry.used_at)
        {
            entry.used_at = now;
            return Put::Needless;
        }
        // The new one serves whatever its own beginnings serve.
        let mut gone: Vec<StoreId> = Vec::new();
        self.entries.retain(|entry| {
            let keep = shared(entry) < entry.tokens.len();
            if !keep {
                gone.push(entry.id);
            }
            keep
        });
        while self.len() + tokens.len() > self.tokens_max {
            let oldest = self.entries.iter().enumerate();
            let Some((index, _)) = oldest.min_by_key(|(_, entry)| entry.used_at) else {
                break;
            };
            gone.push(self.entries.remove(index).id);
        }
        let id = self.next;
        self.next += 1;
        self.entries.push(Entry {
            id,
            tokens: tokens.to_vec(),
            used_at: now,
        });
        Put::As(id, gone)
    }

    /// The entry that shares most with the beginning of `wanted`.
    pub(super) fn find(&self, wanted: &[TokenId]) -> Option<Stored> {
        self.entries
            .iter()
            .map(|entry| Stored {
                id: entry.id,
                tokens: common_prefix(wanted, &entry.tokens),
                held: entry.tokens.len(),
            })
            .filter(|found| found.tokens >= TOKENS_MIN)
            .max_by_key(|found| (found.tokens, found.id))
    }

    pub(super) fn touch(&mut self, id: StoreId, now: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.used_at = now;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}
