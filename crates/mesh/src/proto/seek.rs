//! Owns the search for those who were declared dead: perhaps a partition only hides them.

use std::collections::BTreeMap;

use rand::RngExt as _;

use super::state::State;
use super::{FORMER_MAX, FORMER_MS, SEEK_MS, timing};
use crate::NodeId;

/// How often the whole table is looked through. Announcements hold for minutes.
const SWEEP_MS: u64 = 10_000;

#[derive(Debug)]
struct Former {
    died_at_ms: u64,
    next_at_ms: u64,
    pause_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Seeker {
    former: BTreeMap<NodeId, Former>,
    next_at_ms: u64,
    sweep_at_ms: u64,
}

impl Seeker {
    pub(super) fn add(&mut self, node: NodeId, now_ms: u64) {
        if self.former.len() >= FORMER_MAX {
            let longest = self.former.iter().min_by_key(|(_, f)| f.died_at_ms);
            if let Some(node) = longest.map(|(node, _)| *node) {
                self.former.remove(&node);
            }
        }
        let former = Former {
            died_at_ms: now_ms,
            next_at_ms: now_ms + SEEK_MS,
            pause_ms: SEEK_MS,
        };
        self.former.insert(node, former);
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.former.remove(&node);
    }

    pub(super) fn seeks(&self, node: NodeId) -> bool {
        self.former.contains_key(&node)
    }

    pub(super) fn len(&self) -> usize {
        self.former.len()
    }
}

impl State {
    /// Dials one of the former members now and then.
    pub(super) fn seek(&mut self) {
        let now_ms = self.now_ms();
        if self.seeker.next_at_ms > now_ms {
            return;
        }
        self.seeker.next_at_ms = now_ms + SEEK_MS;
        self.seeker
            .former
            .retain(|_, f| f.died_at_ms + FORMER_MS > now_ms);
        let due = self
            .seeker
            .former
            .iter()
            .filter(|(_, f)| f.next_at_ms <= now_ms);
        let due: Vec<NodeId> = due.map(|(node, _)| *node).collect();
        if due.is_empty() {
            return;
        }
        let node = due[self.rng.random_range(0..due.len())];
        let longest_ms = timing::seek_again_ms(self.table.alive_len());
        if let Some(former) = self.seeker.former.get_mut(&node) {
            former.pause_ms = (former.pause_ms * 2).min(longest_ms);
            former.next_at_ms = now_ms + former.pause_ms;
        }
        self.dial(node);
    }

    /// Loses sight of those whose announcements ran out.
    pub(super) fn sweep(&mut self) {
        let now_ms = self.now_ms();
        if self.seeker.sweep_at_ms > now_ms {
            return;
        }
        self.seeker.sweep_at_ms = now_ms + SWEEP_MS;
        for node in self.table.sweep(self.config.me, now_ms) {
            self.lose_sight(node);
        }
    }

    /// For this node a member is gone, and nobody else is told; from now on it is looked for.
    pub(super) fn lose_sight(&mut self, node: NodeId) {
        let now_ms = self.now_ms();
        self.table.expire(node, now_ms);
        self.departed(node);
        self.seeker.add(node, now_ms);
        self.mark_changed();
    }
}
