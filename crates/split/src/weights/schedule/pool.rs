//! Owns what is known of each chunk: whether it is wanted, under way or here, and who may be asked
//! for it. Wanted chunks stand in classes of the same sources, so that choosing does not look at
//! every chunk.

use std::collections::{BTreeMap, BTreeSet};

/// Copies of one chunk that may be under way.
const COPIES_MAX: u8 = 2;

/// How often a chunk is asked again of sources that did not give it, when nobody else has it.
const TRIES_MAX: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Wanted,
    /// Under way, so many times.
    Flying(u8),
    Done,
}

/// All chunks of a slice. Sources are bits of a mask.
#[derive(Debug)]
pub(super) struct Pool {
    /// In bytes.
    sizes: Vec<u32>,
    states: Vec<State>,
    /// For each chunk the sources that say they have it.
    held: Vec<u32>,
    /// Those of them that may be asked for it.
    askable: Vec<u32>,
    tries: Vec<u8>,
    /// Wanted chunks by the sources that may be asked.
    wanted: BTreeMap<u32, BTreeSet<u32>>,
    left: usize,
}

impl Pool {
    pub(super) fn new(sizes: Vec<u32>, done: &[bool]) -> Self {
        let count = sizes.len();
        let state = |i: usize| match done.get(i) {
            Some(true) => State::Done,
            _ => State::Wanted,
        };
        let states: Vec<_> = (0..count).map(state).collect();
        let mut pool = Self {
            sizes,
            states,
            held: vec![0; count],
            askable: vec![0; count],
            tries: vec![0; count],
            wanted: BTreeMap::new(),
            left: 0,
        };
        for chunk in 0..count as u32 {
            if pool.states[chunk as usize] == State::Wanted {
                pool.left += 1;
                pool.enter_wanted(chunk);
            }
        }
        pool
    }

    pub(super) fn size(&self, chunk: u32) -> u64 {
        self.sizes[chunk as usize].into()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// A wanted chunk that nobody may be asked for.
    pub(super) fn stuck(&self) -> Option<u32> {
        self.wanted.get(&0).and_then(|c| c.first().copied())
    }

    /// Wanted chunks by the sources that may be asked for them.
    pub(super) fn classes(&self) -> &BTreeMap<u32, BTreeSet<u32>> {
        &self.wanted
    }

    /// Whether another copy of a chunk under way may be asked of this source.
    pub(super) fn may_double(&self, chunk: u32, source: usize) -> bool {
        let few = matches!(self.states[chunk as usize], State::Flying(n) if n < COPIES_MAX);
        few && self.askable[chunk as usize] & 1 << source != 0
    }

    pub(super) fn add_source(&mut self, source: usize, has: impl Fn(usize) -> bool) {
        for chunk in (0..self.sizes.len()).filter(|&i| has(i)) {
            self.held[chunk] |= 1 << source;
            self.set_askable(chunk as u32, self.askable[chunk] | 1 << source);
        }
    }

    pub(super) fn leave_out(&mut self, source: usize) {
        for chunk in 0..self.sizes.len() {
            self.held[chunk] &= !(1 << source);
            if self.askable[chunk] & 1 << source != 0 {
                self.set_askable(chunk as u32, self.askable[chunk] & !(1 << source));
            }
        }
    }

    /// A chunk was asked for.
    pub(super) fn take_off(&mut self, chunk: u32) {
        let copies = match self.states[chunk as usize] {
            State::Flying(copies) => copies,
            State::Wanted | State::Done => 0,
        };
        self.leave_wanted(chunk);
        self.states[chunk as usize] = State::Flying(copies + 1);
    }

    /// A chunk has come. False if it was there already.
    pub(super) fn land(&mut self, chunk: u32) -> bool {
        if self.states[chunk as usize] == State::Done {
            return false;
        }
        self.leave_wanted(chunk);
        self.states[chunk as usize] = State::Done;
        self.left -= 1;
        true
    }

    /// One copy of a chunk is no longer under way.
    pub(super) fn put_back(&mut self, chunk: u32) {
        let index = chunk as usize;
        match self.states[index] {
            State::Flying(copies) if copies > 1 => self.states[index] = State::Flying(copies - 1),
            State::Flying(_) => {
                self.states[index] = State::Wanted;
                self.enter_wanted(chunk);
            }
            State::Wanted | State::Done => {}
        }
    }

    /// A source did not give a chunk. `forget` says that it does not have it at all.
    pub(super) fn refuse(&mut self, chunk: u32, source: usize, forget: bool) {
        if forget {
            self.held[chunk as usize] &= !(1 << source);
        }
        self.put_back(chunk);
        self.set_askable(chunk, self.askable[chunk as usize] & !(1 << source));
    }

    fn set_askable(&mut self, chunk: u32, mask: u32) {
        let wanted = self.states[chunk as usize] == State::Wanted;
        if wanted {
            self.leave_wanted(chunk);
        }
        self.askable[chunk as usize] = mask;
        if wanted {
            self.enter_wanted(chunk);
        }
    }

    fn enter_wanted(&mut self, chunk: u32) {
        let index = chunk as usize;
        // Nobody is left: those that failed may try again, for their mistakes may be rare.
        if self.askable[index] == 0 && self.held[index] != 0 && self.tries[index] < TRIES_MAX {
            self.tries[index] += 1;
            self.askable[index] = self.held[index];
        }
        let class = self.wanted.entry(self.askable[index]).or_default();
        class.insert(chunk);
    }

    fn leave_wanted(&mut self, chunk: u32) {
        let mask = self.askable[chunk as usize];
        if let Some(class) = self.wanted.get_mut(&mask) {
            class.remove(&chunk);
            if class.is_empty() {
                self.wanted.remove(&mask);
            }
        }
    }
}
