//! What a ring's stages hold of each sequence, as far as that is certain when the ring breaks: pure.
//!
//! Stages differ then: some have done what is in flight, others have not. What was back has passed all of them,
//! so a sequence is the same everywhere up to the first position that anything behind that touches.

use std::collections::VecDeque;

/// A sequence, and its first position that changes.
type Touch = (u32, u32);

/// What a frame changes.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// All of it, operations and rows.
    touches: Vec<Touch>,
    /// The rows alone.
    rows: Vec<Touch>,
}

/// Follows operations and rows in the order in which they are sent.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// Positions that each sequence holds once everything in flight has passed.
    lengths: Vec<u32>,
    /// Of which other sequence it has its first positions, and how many.
    shared: Vec<Option<(u32, u32)>>,
    in_flight: VecDeque<Entry>,
    /// What goes with the next frame.
    next: Entry,
    /// Sequences can't be cut back.
    is_recurrent: bool,
}

impl Ledger {
    pub(crate) fn new(sequences: u32, is_recurrent: bool) -> Self {
        Self {
            lengths: vec![0; sequences as usize],
            shared: vec![None; sequences as usize],
            in_flight: VecDeque::new(),
            next: Entry::default(),
            is_recurrent,
        }
    }

    pub(crate) fn is_recurrent(&self) -> bool {
        self.is_recurrent
    }

    /// Sequences can't be cut back, if `is_recurrent`.
    pub(crate) fn mark_recurrent(&mut self, is_recurrent: bool) {
        self.is_recurrent |= is_recurrent;
    }

    /// Sequences.
    pub(crate) fn sequences(&self) -> u32 {
        // There are few.
        self.lengths.len() as u32
    }

    /// Positions of a sequence behind everything that was asked for.
    pub(crate) fn length(&self, sequence: u32) -> u32 {
        self.lengths.get(sequence as usize).copied().unwrap_or(0)
    }

    /// Where a sequence has its first positions from.
    pub(crate) fn shared(&self, sequence: u32) -> Option<(u32, u32)> {
        self.shared.get(sequence as usize).copied().flatten()
    }

    pub(crate) fn copy(&mut self, from: u32, to: u32, tokens: u32) {
        let tokens = tokens.min(self.length(from));
        if from == to || self.lengths.len() <= to as usize {
            return;
        }
        self.changes(to, 0);
        self.lengths[to as usize] = tokens;
        // Recurrent memory is copied as a whole, and what it is copied from has gone on since.
        self.shared[to as usize] =
            Some((from, tokens)).filter(|_| tokens > 0 && !self.is_recurrent);
    }

    pub(crate) fn cut(&mut self, sequence: u32, from: u32) {
        if from < self.length(sequence) {
            self.changes(sequence, from);
            self.lengths[sequence as usize] = from;
        }
    }

    pub(crate) fn clear(&mut self) {
        for sequence in 0..self.sequences() {
            self.cut(sequence, 0);
        }
    }

    pub(crate) fn rows(&mut self, positions: &[i32], sequences: &[i32]) {
        for (&position, &sequence) in positions.iter().zip(sequences) {
            let (position, sequence) = (position.unsigned_abs(), sequence.unsigned_abs());
            let Some(length) = self.lengths.get_mut(sequence as usize) else {
                continue;
            };
            *length = position + 1;
            if !self.next.rows.iter().any(|(of, _)| *of == sequence) {
                self.next.rows.push((sequence, position));
                self.next.touches.push((sequence, position));
            }
        }
    }

    /// A sequence is another one from a position on.
    fn changes(&mut self, sequence: u32, from: u32) {
        self.next.touches.push((sequence, from));
        for (to, shared) in self.shared.iter_mut().enumerate() {
            if let Some((of, tokens)) = shared
                && (*of == sequence || to == sequence as usize)
            {
                *tokens = from.min(*tokens);
                if *tokens == 0 {
                    *shared = None;
                }
            }
        }
    }

    /// The next frame is on its way.
    pub(crate) fn sent(&mut self) {
        let entry = std::mem::take(&mut self.next);
        self.in_flight.push_back(entry);
    }

    /// The oldest frame is back. `is_done`: all stages have its rows.
    pub(crate) fn returned(&mut self, is_done: bool) {
        let Some(entry) = self.in_flight.pop_front() else {
            return;
        };
        if is_done {
            return;
        }
        // Some have them, others do not. Copies that were made since lack them as well.
        for (sequence, from) in entry.rows {
            for to in 0..self.sequences() {
                let shared = self.shared(to);
                let lacks_them = shared.is_some_and(|(of, tokens)| of == sequence && tokens > from);
                if to == sequence || lacks_them {
                    self.lengths[to as usize] = self.length(to).min(from);
                }
            }
            self.changes(sequence, from);
        }
    }

    /// How many positions of a sequence all stages hold for certain, whatever they have done of what is in
    /// flight.
    pub(crate) fn certain(&self, sequence: u32) -> u32 {
        let entries = self.in_flight.iter().chain([&self.next]);
        let touches = entries.flat_map(|entry| &entry.touches);
        let touched = touches
            .filter(|(of, _)| *of == sequence)
            .map(|(_, from)| *from)
            .min();
        match touched {
            None => self.length(sequence),
            // It may be longer somewhere, and can't be cut.
            Some(_) if self.is_recurrent => 0,
            Some(from) => from.min(self.length(sequence)),
        }
    }

    /// Everything in flight is lost, and all stages are cut to what is certain.
    pub(crate) fn settle(&mut self) {
        for sequence in 0..self.sequences() {
            let certain = self.certain(sequence);
            self.cut(sequence, certain);
        }
        self.in_flight.clear();
        self.next = Entry::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(is_recurrent: bool) -> Ledger {
        let mut ledger = Ledger::new(3, is_recurrent);
        ledger.rows(&[0, 1, 2, 0], &[0, 0, 0, 1]);
        ledger.sent();
        ledger.returned(true);
        ledger
    }

    fn certain(ledger: &Ledger) -> [u32; 3] {
        [0, 1, 2].map(|sequence| ledger.certain(sequence))
    }

    #[test]
    fn what_is_in_flight_is_not_certain() {
        let mut ledger = ledger(false);
        assert_eq!(certain(&ledger), [3, 1, 0]);
        ledger.rows(&[3], &[0]);
        ledger.sent();
        assert_eq!((certain(&ledger), ledger.length(0)), ([3, 1, 0], 4));
        // Some stages have cut it, others not yet.
        ledger.cut(0, 1);
        assert_eq!(certain(&ledger), [1, 1, 0]);
        ledger.rows(&[1, 2], &[0, 0]);
        ledger.sent();
        ledger.returned(true);
        assert_eq!((certain(&ledger), ledger.length(0)), ([1, 1, 0], 3));
        ledger.returned(true);
        assert_eq!(certain(&ledger), [3, 1, 0]);
    }

    #[test]
    fn a_copy_counts_when_it_is_back() {
        let mut ledger = ledger(false);
        ledger.copy(0, 1, 2);
        assert_eq!((certain(&ledger), ledger.length(1)), ([3, 0, 0], 2));
        ledger.rows(&[2], &[1]);
        ledger.sent();
        ledger.returned(true);
        assert_eq!(
            (certain(&ledger), ledger.shared(1)),
            ([3, 3, 0], Some((0, 2)))
        );
        ledger.cut(0, 1);
        assert_eq!(ledger.shared(1), Some((0, 1)));
        ledger.cut(1, 0);
        assert_eq!(ledger.shared(1), None);
    }

    #[test]
    fn rows_without_room_are_missing_behind_as_well() {
        let mut ledger = ledger(false);
        ledger.rows(&[3, 4], &[0, 0]);
        ledger.sent();
        ledger.rows(&[5], &[0]);
        ledger.sent();
        ledger.copy(0, 2, 5);
        ledger.returned(false);
        ledger.returned(false);
        assert_eq!(ledger.length(2), 3);
        ledger.settle();
        assert_eq!(certain(&ledger), [3, 1, 0]);
    }

    #[test]
    fn recurrent_layers_hold_what_nothing_touches_or_nothing() {
        let mut ledger = ledger(true);
        ledger.rows(&[3], &[0]);
        ledger.sent();
        assert_eq!(certain(&ledger), [0, 1, 0]);
        ledger.settle();
        assert_eq!((certain(&ledger), ledger.length(0)), ([0, 1, 0], 0));
    }
}
