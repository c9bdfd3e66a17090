//! Owns the comparison of two tables: one digest when they are equal; otherwise digests of parts,
//! then the hashes in the parts that differ, then the news itself.

use std::collections::BTreeSet;

use rand::RngExt as _;

use super::message::Message;
use super::missing::Lacking;
use super::state::State;
use super::table::{PARTS, Subject};
use super::{HASHES_MAX, timing};
use crate::NodeId;

/// Members per part that make the lists short without making the digests long.
const MEMBERS_PER_PART: usize = 8;

/// Fewest parts.
const PARTS_MIN: usize = 16;

/// News younger than this is probably on its way along the tree.
const ON_ITS_WAY_MS: u64 = 2_000;

/// More missing pieces than this are no news on its way: the tables were apart.
const APART_LEN: usize = 16;

impl State {
    /// Compares with one neighbour now and then, and at once with one whose queue overflowed.
    pub(super) fn compare_with_one(&mut self) {
        let now_ms = self.now_ms();
        let overflowed: Vec<NodeId> = (self.links.iter_mut())
            .filter_map(|(node, link)| std::mem::take(&mut link.overflowed).then_some(node))
            .collect();
        for node in overflowed {
            self.send_compare(node);
        }
        if self.links.compare_at_ms > now_ms {
            return;
        }
        let pause = timing::compare_ms(self.table.alive_len());
        // Up to a quarter more, so that nodes started together do not stay in step.
        self.links.compare_at_ms = now_ms + pause + self.rng.random_range(0..=pause / 4);
        let count = self.links.len();
        if count > 0 {
            let pick = self.rng.random_range(0..count);
            let picked = self.links.nodes().nth(pick);
            if let Some(node) = picked {
                self.send_compare(node);
            }
        }
    }

    fn send_compare(&mut self, node: NodeId) {
        let root = self.table.root();
        self.send(node, Message::Compare { root });
    }

    pub(super) fn on_compare(&mut self, from: NodeId, root: u64) {
        if self.expect_link(from) && root != self.table.root() {
            self.send_parts(from);
        }
    }

    pub(super) fn send_parts(&mut self, node: NodeId) {
        let wanted = (self.table.len() / MEMBERS_PER_PART).next_power_of_two();
        let digests = self.table.part_digests(wanted.clamp(PARTS_MIN, PARTS));
        self.send(node, Message::Parts { digests });
    }

    pub(super) fn on_parts(&mut self, from: NodeId, digests: &[u32]) {
        if !self.expect_link(from) {
            return;
        }
        let mine = self.table.part_digests(digests.len());
        let mut differing = Vec::new();
        let mut hashes: Vec<u64> = Vec::new();
        for (part, _) in digests
            .iter()
            .zip(&mine)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
        {
            let Ok(part) = u8::try_from(part) else { break };
            let entries = self.table.entries(digests.len(), &[part]);
            if hashes.len() + entries.len() > HASHES_MAX {
                break;
            }
            hashes.extend(entries.iter().map(|entry| entry.0));
            differing.push(part);
        }
        if !differing.is_empty() {
            let parts = u32::try_from(digests.len()).unwrap_or(0);
            let entries = Message::Entries {
                parts,
                differing,
                hashes,
            };
            self.send(from, entries);
        }
    }

    /// The other's entries: gives what it lacks, asks for what this node lacks.
    pub(super) fn on_entries(
        &mut self,
        from: NodeId,
        parts: u32,
        differing: &[u8],
        hashes: Vec<u64>,
    ) {
        if !self.expect_link(from) {
            return;
        }
        let now_ms = self.now_ms();
        let theirs: BTreeSet<u64> = hashes.into_iter().collect();
        let parts = usize::try_from(parts).unwrap_or(PARTS);
        let mine = self.table.entries(parts, differing);
        let unknown: Vec<u64> = (theirs.iter().copied())
            .filter(|&hash| !self.knows(hash))
            .collect();
        let lacking = if unknown.len() > APART_LEN {
            Lacking::Offered
        } else {
            Lacking::Late
        };
        for hash in unknown {
            self.missing.note(hash, from, lacking, now_ms);
        }
        let Some(link) = self.links.get_mut(from) else {
            return;
        };
        // A new neighbour gets everything: nothing was on its way to it before.
        let young = link.is_young(now_ms);
        for (hash, subject, heard_at_ms) in mine {
            let settled = young || heard_at_ms + ON_ITS_WAY_MS <= now_ms;
            let own = subject == Subject::Node(self.config.me);
            if (settled || own) && !theirs.contains(&hash) {
                link.push(subject, false, now_ms);
            }
        }
    }
}
