//! Sequences of a stage that lack rows: pure. Several frames may be in flight, and when one of them finds no
//! room, those that follow have rows behind a gap.

use std::collections::BTreeMap;

/// For each sequence with a gap the first position that is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Gaps(BTreeMap<u32, u32>);

impl Gaps {
    /// Whether one of the sequences has a gap: rows of it can't be evaluated.
    pub(super) fn touch(&self, sequences: &[i32]) -> bool {
        !self.0.is_empty()
            && sequences
                .iter()
                .any(|s| self.0.contains_key(&s.unsigned_abs()))
    }

    /// The rows found no room.
    pub(super) fn open(&mut self, positions: &[i32], sequences: &[i32]) {
        for (&sequence, &position) in sequences.iter().zip(positions) {
            let position = position.unsigned_abs();
            let gap = self.0.entry(sequence.unsigned_abs()).or_insert(position);
            *gap = position.min(*gap);
        }
    }

    /// `to` becomes the first `tokens` positions of `from`.
    pub(super) fn copy(&mut self, from: u32, to: u32, tokens: u32) {
        if from == to || self.0.is_empty() {
            return;
        }
        self.0.remove(&to);
        if let Some(&gap) = self.0.get(&from).filter(|gap| **gap < tokens) {
            self.0.insert(to, gap);
        }
    }

    /// A sequence is forgotten from position `from` on.
    pub(super) fn cut(&mut self, sequence: u32, from: u32) {
        if self.0.get(&sequence).is_some_and(|gap| from <= *gap) {
            self.0.remove(&sequence);
        }
    }

    /// Everything is forgotten.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_until_it_is_cut_off() {
        let mut gaps = Gaps::default();
        assert!(!gaps.touch(&[0, 1]));
        gaps.open(&[7, 8, 3], &[1, 1, 2]);
        assert!(gaps.touch(&[0, 1]) && gaps.touch(&[2]) && !gaps.touch(&[0]));
        // Later rows of the same sequence change nothing.
        gaps.open(&[9], &[1]);
        gaps.cut(1, 8);
        assert!(gaps.touch(&[1]));
        gaps.cut(1, 7);
        assert!(!gaps.touch(&[1]));
        gaps.clear();
        assert_eq!(gaps, Gaps::default());
    }

    #[test]
    fn a_copy_has_the_gap_if_it_is_long_enough() {
        let mut gaps = Gaps::default();
        gaps.open(&[7], &[1]);
        gaps.copy(1, 2, 7);
        assert!(!gaps.touch(&[2]));
        gaps.copy(1, 2, 8);
        assert!(gaps.touch(&[2]));
        gaps.copy(0, 2, 100);
        assert!(!gaps.touch(&[2]));
        gaps.copy(1, 1, 3);
        assert!(gaps.touch(&[1]));
    }
}
