//! Owns the memory of news that is outdated, so that nobody asks for it again.

use std::collections::{HashSet, VecDeque};

use super::PAST_MAX;

/// The last hashes, oldest first. The set is for look-ups alone.
#[derive(Debug, Default)]
pub(super) struct Past {
    order: VecDeque<u64>,
    set: HashSet<u64>,
}

impl Past {
    pub(super) fn insert(&mut self, hash: u64) {
        if self.set.insert(hash) {
            self.order.push_back(hash);
        }
        if self.order.len() > PAST_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, hash: u64) -> bool {
        self.set.contains(&hash)
    }
}
