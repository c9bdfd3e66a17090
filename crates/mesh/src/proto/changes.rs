//! Owns the numbered changes of the routing table, from which pulls are answered.
//!
//! Only the last change of each subject is kept, so there are never more than subjects.

use std::collections::BTreeMap;

use super::message::TableVersion;
use super::table::Subject;

#[derive(Debug)]
pub(super) struct Changes {
    source: u64,
    last: u64,
    subjects: BTreeMap<u64, Subject>,
    /// Changes up to this one may be missing because their subject is forgotten.
    forgotten: u64,
    /// Digest of all routes and revocations, the same at every member that knows the same.
    root: u64,
}

impl Changes {
    pub(super) fn new(source: u64) -> Self {
        Self {
            source,
            last: 0,
            subjects: BTreeMap::new(),
            forgotten: 0,
            root: 0,
        }
    }

    /// Records that `subject` changed, which had change number `old` (0: none) before.
    pub(super) fn touch(&mut self, old: u64, subject: Subject, root_change: u64) -> u64 {
        self.subjects.remove(&old);
        self.last += 1;
        self.subjects.insert(self.last, subject);
        self.root ^= root_change;
        self.last
    }

    /// Records that the subject with change number `old` is forgotten.
    pub(super) fn remove(&mut self, old: u64, root_change: u64) {
        self.subjects.remove(&old);
        self.forgotten = self.forgotten.max(old);
        self.root ^= root_change;
    }

    pub(super) fn version(&self) -> TableVersion {
        TableVersion {
            source: self.source,
            change: self.last,
        }
    }

    pub(super) fn root(&self) -> u64 {
        self.root
    }

    /// Whether changes since `have` can be told.
    pub(super) fn reaches(&self, have: TableVersion) -> bool {
        self.comes_from_here(have) && have.change >= self.forgotten
    }

    pub(super) fn comes_from_here(&self, have: TableVersion) -> bool {
        have.source == self.source && have.change <= self.last
    }

    /// The changes after `change`, oldest first.
    pub(super) fn since(&self, change: u64) -> impl Iterator<Item = (u64, Subject)> {
        let range = self.subjects.range(change.saturating_add(1)..);
        range.map(|(&change, &subject)| (change, subject))
    }
}
