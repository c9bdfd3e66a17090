//! Owns what happens when: a virtual clock in milliseconds and everything that is due on it.
//!
//! Things that are due in the same millisecond happen in the order in which they were noted, so
//! that a run depends on nothing but its seed.

use std::collections::{BTreeMap, VecDeque};

/// Milliseconds ahead that have a slot of their own: longer than most messages and timers take.
const NEAR_MS: u64 = 4_096;

pub(super) struct Agenda<T> {
    now_ms: u64,
    near: Vec<VecDeque<T>>,
    near_len: usize,
    far: BTreeMap<u64, Vec<T>>,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Self {
        Self {
            now_ms: 0,
            near: (0..NEAR_MS).map(|_| VecDeque::new()).collect(),
            near_len: 0,
            far: BTreeMap::new(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Notes that `item` is due at `at_ms`, or now if that is past.
    pub(super) fn push(&mut self, at_ms: u64, item: T) {
        let at_ms = at_ms.max(self.now_ms);
        if at_ms - self.now_ms < NEAR_MS {
            self.near[slot(at_ms)].push_back(item);
            self.near_len += 1;
        } else {
            self.far.entry(at_ms).or_default().push(item);
        }
    }

    /// Moves the clock to the next thing that is due by `until_ms` and gives it; or moves it to
    /// `until_ms`, and nothing is left that is due by then.
    pub(super) fn pop(&mut self, until_ms: u64) -> Option<T> {
        loop {
            if let Some(item) = self.near[slot(self.now_ms)].pop_front() {
                self.near_len -= 1;
                return Some(item);
            }
            if self.now_ms >= until_ms {
                return None;
            }
            let next_ms = if self.near_len > 0 {
                self.now_ms + 1
            } else {
                let far = self.far.first_key_value().map(|(at_ms, _)| *at_ms);
                far.unwrap_or(until_ms).min(until_ms)
            };
            self.advance(next_ms);
        }
    }

    fn advance(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        while let Some(first) = self.far.first_entry()
            && *first.key() < now_ms + NEAR_MS
        {
            let (at_ms, items) = first.remove_entry();
            self.near_len += items.len();
            self.near[slot(at_ms)].extend(items);
        }
    }
}

fn slot(at_ms: u64) -> usize {
    // The remainder is far below the limit of the type.
    usize::try_from(at_ms % NEAR_MS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_order_of_time_and_then_of_noting() {
        let mut agenda = Agenda::new();
        for (at_ms, item) in [(9_000, 'd'), (5, 'a'), (9_000, 'e'), (5, 'b'), (4_100, 'c')] {
            agenda.push(at_ms, item);
        }
        assert_eq!(agenda.pop(4), None);
        assert_eq!(agenda.now_ms(), 4);
        let first: String = std::iter::from_fn(|| agenda.pop(8_999)).collect();
        assert_eq!((first.as_str(), agenda.now_ms()), ("abc", 8_999));
        // Noted when the others were near already.
        agenda.push(9_000, 'f');
        let second: String = std::iter::from_fn(|| agenda.pop(1_000_000)).collect();
        assert_eq!((second.as_str(), agenda.now_ms()), ("def", 1_000_000));
    }
}
