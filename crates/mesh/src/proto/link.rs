//! Owns what waits to be sent to one neighbour, and how the two came to be neighbours.

use super::table::Subject;
use super::{FLUSH_MS, HASHES_MAX, HAVE_MS, PENDING_MAX};

/// How long a neighbour counts as new: until the first comparison of tables is over.
const YOUNG_LINK_MS: u64 = 5_000;

/// A neighbour.
#[derive(Debug)]
pub(super) struct Link {
    /// This node chose the other.
    pub(super) mine: bool,
    /// The other chose this one.
    pub(super) theirs: bool,
    /// The other has said something about it.
    pub(super) confirmed: bool,
    pub(super) since_ms: u64,
    /// It is part of the tree: urgent news goes in full; otherwise its hash.
    pub(super) eager: bool,
    /// Duplicates in a row.
    pub(super) duplicates: u32,
    /// News to send, with its urgency.
    pending: Vec<(Subject, bool)>,
    flush_at_ms: Option<u64>,
    offers: Hashes,
    haves: Hashes,
    /// News was dropped: the tables must be compared.
    pub(super) overflowed: bool,
}

/// Hashes that wait for company.
#[derive(Debug, Default)]
struct Hashes {
    list: Vec<u64>,
    due_ms: Option<u64>,
}

impl Hashes {
    /// Queues one; false if there was no room, and none is queued any more.
    fn push(&mut self, hash: u64, due_ms: u64) -> bool {
        let fits = self.list.len() < HASHES_MAX;
        if !fits {
            self.list.clear();
        }
        self.list.push(hash);
        self.due_ms = Some(self.due_ms.map_or(due_ms, |old| old.min(due_ms)));
        fits
    }

    fn take(&mut self, now_ms: u64) -> Vec<u64> {
        if self.due_ms.is_none_or(|due| due > now_ms) {
            return Vec::new();
        }
        self.due_ms = None;
        std::mem::take(&mut self.list)
    }
}

impl Link {
    pub(super) fn new(mine: bool, now_ms: u64) -> Self {
        Self {
            mine,
            theirs: false,
            confirmed: false,
            since_ms: now_ms,
            eager: true,
            duplicates: 0,
            pending: Vec::new(),
            flush_at_ms: None,
            offers: Hashes::default(),
            haves: Hashes::default(),
            overflowed: false,
        }
    }

    /// Whether it has only just begun.
    pub(super) fn is_young(&self, now_ms: u64) -> bool {
        now_ms < self.since_ms + YOUNG_LINK_MS
    }

    /// Queues news in full. It waits for company unless it is urgent.
    pub(super) fn push(&mut self, subject: Subject, urgent: bool, now_ms: u64) {
        let due_ms = if urgent { now_ms } else { now_ms + FLUSH_MS };
        self.push_due(subject, urgent, due_ms);
    }

    /// Queues news in full that the other has asked for.
    pub(super) fn answer(&mut self, subject: Subject, now_ms: u64) {
        self.push_due(subject, false, now_ms);
    }

    fn push_due(&mut self, subject: Subject, urgent: bool, due_ms: u64) {
        if self.pending.len() >= PENDING_MAX {
            self.pending.clear();
            self.overflowed = true;
        }
        self.pending.push((subject, urgent));
        self.flush_at_ms = Some(self.flush_at_ms.map_or(due_ms, |old| old.min(due_ms)));
    }

    /// Queues the hash of news that travels by hashes alone.
    pub(super) fn offer(&mut self, hash: u64, due_ms: u64) {
        self.overflowed |= !self.offers.push(hash, due_ms);
    }

    /// Queues the hash of news that should reach the other along the tree.
    pub(super) fn have(&mut self, hash: u64, now_ms: u64) {
        self.overflowed |= !self.haves.push(hash, now_ms + HAVE_MS);
    }

    /// The other has this: it need not be sent.
    pub(super) fn spare(&mut self, subject: Subject, hash: u64) {
        self.pending.retain(|(queued, _)| *queued != subject);
        self.offers.list.retain(|queued| *queued != hash);
        self.haves.list.retain(|queued| *queued != hash);
    }

    /// The news that is due, each subject once, in order.
    pub(super) fn take_pending(&mut self, now_ms: u64) -> Vec<(Subject, bool)> {
        if self.flush_at_ms.is_none_or(|at| at > now_ms) {
            return Vec::new();
        }
        self.flush_at_ms = None;
        let mut pending = std::mem::take(&mut self.pending);
        // Urgent before routine, then only the first of each subject.
        pending.sort_by_key(|(subject, urgent)| (*subject, !*urgent));
        pending.dedup_by_key(|(subject, _)| *subject);
        pending.sort_by_key(|(_, urgent)| !*urgent);
        pending
    }

    /// Gives back what did not fit.
    pub(super) fn postpone(&mut self, rest: &[(Subject, bool)], at_ms: u64) {
        self.pending.extend_from_slice(rest);
        self.flush_at_ms = Some(at_ms);
    }

    pub(super) fn take_offers(&mut self, now_ms: u64) -> Vec<u64> {
        self.offers.take(now_ms)
    }

    pub(super) fn take_haves(&mut self, now_ms: u64) -> Vec<u64> {
        self.haves.take(now_ms)
    }

    /// When something is due.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let times = [self.flush_at_ms, self.offers.due_ms, self.haves.due_ms];
        times.into_iter().flatten().min()
    }

    /// How much news and how many hashes wait.
    pub(super) fn queue_lengths(&self) -> (usize, usize) {
        let hashes = self.offers.list.len().max(self.haves.list.len());
        (self.pending.len(), hashes)
    }
}
