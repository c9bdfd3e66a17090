//! Where a text stands in a GBNF grammar: a set of stacks, as in llama.cpp.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error as ThisError;
use toktrie::{Recognizer, SimpleVob};

use super::super::constraint::Trie;
use super::automaton::{Automaton, Element};

/// Sets of stacks that are kept between tokens; about 100 bytes each, more with their stacks.
const KEPT_SETS_MAX: usize = 50_000;
/// Sets made for one mask; beyond, the grammar is refused. Bounds time to about 0.2 s.
const SETS_MAX: usize = 250_000;
/// Stacks in one set: how ambiguous a grammar may be.
const STACKS_MAX: usize = 4096;
/// Stack frames in all; 16 bytes each.
const FRAMES_MAX: usize = 4_000_000;
/// Masks that are kept; one has the vocabulary's size in bits.
const MASKS_MAX: usize = 128;
/// Transitions that a set keeps as a list before it gets a table.
const LIST_MAX: usize = 12;

/// The empty stack: the grammar is fulfilled.
const BOTTOM: u32 = 0;
/// No transition.
const DEAD: u32 = u32::MAX;
/// A transition that was not followed yet.
const UNKNOWN: u32 = u32::MAX - 1;

/// The grammar has too many ways to read the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ThisError)]
#[error("the grammar is too ambiguous; hint: simplify it")]
pub struct TooComplex;

/// Follows a text; cheap to clone.
#[derive(Clone)]
pub struct State {
    automaton: Arc<Automaton>,
    trie: Arc<Trie>,
    cache: Arc<Mutex<Cache>>,
    /// The set of stacks now, and those before each token.
    current: Arc<[u32]>,
    history: Vec<Arc<[u32]>>,
}

impl State {
    /// The state before any text.
    pub(in crate::text) fn new(automaton: Arc<Automaton>, trie: Arc<Trie>) -> Self {
        let mut cache = Cache::default();
        let mut closure = Closure::default();
        // A grammar whose very start is too ambiguous allows nothing; the first mask says so.
        let current = cache
            .roots(&automaton, &mut closure)
            .unwrap_or_else(|TooComplex| Arc::from([]));
        Self {
            automaton,
            trie,
            cache: Arc::new(Mutex::new(cache)),
            current,
            history: Vec::new(),
        }
    }

    /// Which tokens may come next; without those that end the text.
    pub fn mask(&self) -> Result<SimpleVob, TooComplex> {
        if self.current.is_empty() {
            return Err(TooComplex);
        }
        let mut cache = self.cache();
        cache.trim();
        let set = cache.set(Arc::clone(&self.current));
        if let Some(mask) = cache.masks.get(&set) {
            return Ok(mask.clone());
        }
        let mut allowed = self.trie.0.alloc_token_set();
        let mut walker = Walker {
            automaton: &self.automaton,
            cache: &mut cache,
            path: vec![set],
            failed: false,
        };
        self.trie.0.add_bias(&mut walker, &mut allowed, &[]);
        if walker.failed {
            return Err(TooComplex);
        }
        if cache.masks.len() >= MASKS_MAX {
            cache.masks.clear();
        }
        cache.masks.insert(set, allowed.clone());
        Ok(allowed)
    }

    /// Whether `token` may come next.
    pub fn allows(&self, token: u32) -> Result<bool, TooComplex> {
        Ok(self.after(token)?.is_some())
    }

    /// Takes `token`; `false` (and nothing changes) if it is not allowed.
    pub fn accept(&mut self, token: u32) -> Result<bool, TooComplex> {
        let Some(next) = self.after(token)? else {
            return Ok(false);
        };
        let before = std::mem::replace(&mut self.current, next);
        self.history.push(before);
        Ok(true)
    }

    /// Takes the last `tokens` back, or all.
    pub fn rollback(&mut self, tokens: usize) {
        if tokens == 0 {
            return;
        }
        let keep = self.history.len().saturating_sub(tokens);
        if let Some(earlier) = self.history.get(keep) {
            self.current = Arc::clone(earlier);
            self.history.truncate(keep);
        }
    }

    /// Whether the text may end here.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.current.first() == Some(&BOTTOM)
    }

    /// Whether it must end here.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.current == [BOTTOM]
    }

    fn after(&self, token: u32) -> Result<Option<Arc<[u32]>>, TooComplex> {
        let trie = &self.trie.0;
        if token as usize >= trie.vocab_size() || trie.token(token).is_empty() {
            return Ok(None);
        }
        let mut cache = self.cache();
        cache.trim();
        let mut set = cache.set(Arc::clone(&self.current));
        for byte in trie.token(token) {
            set = cache.next(&self.automaton, set, *byte)?;
            if set == DEAD {
                return Ok(None);
            }
        }
        Ok(Some(Arc::clone(&cache.sets[set as usize].stacks)))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A panic while it was held leaves at worst a set without transitions.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stack: where to go on, and the stack below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Frame {
    at: u32,
    below: u32,
}

#[derive(Debug)]
enum Next {
    List(Vec<(u8, u32)>),
    Table(Box<[u32; 256]>),
}

/// A set of stacks and where bytes lead from it.
#[derive(Debug)]
struct Set {
    stacks: Arc<[u32]>,
    next: Next,
}

/// All sets seen so far, shared by the choices of a request.
#[derive(Debug)]
struct Cache {
    /// `frames[0]` is never looked at: it stands for the empty stack.
    frames: Vec<Frame>,
    frame_ids: HashMap<Frame, u32>,
    sets: Vec<Set>,
    set_ids: HashMap<Arc<[u32]>, u32>,
    masks: HashMap<u32, SimpleVob>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            frames: vec![Frame { at: 0, below: 0 }],
            frame_ids: HashMap::new(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
            masks: HashMap::new(),
        }
    }
}

/// Work space for finding all stacks that lead to a byte.
#[derive(Debug, Default)]
struct Closure {
    work: Vec<Frame>,
    seen: std::collections::HashSet<Frame>,
    stacks: Vec<u32>,
}

impl Cache {
    /// Forgets sets when there are many. States hold their stacks, not their sets.
    fn trim(&mut self) {
        if self.sets.len() > KEPT_SETS_MAX {
            self.sets.clear();
            self.set_ids.clear();
            self.masks.clear();
        }
    }

    fn roots(
        &mut self,
        automaton: &Automaton,
        closure: &mut Closure,
    ) -> Result<Arc<[u32]>, TooComplex> {
        let starts = &automaton.rules[automaton.root as usize];
        closure.work.extend(starts.iter().map(|at| Frame {
            at: *at,
            below: BOTTOM,
        }));
        self.close(automaton, closure)?;
        Ok(Arc::from(closure.stacks.as_slice()))
    }

    fn set(&mut self, stacks: Arc<[u32]>) -> u32 {
        if let Some(set) = self.set_ids.get(&stacks) {
            return *set;
        }
        // Bounded by SETS_MAX and what one token adds.
        let id = self.sets.len() as u32;
        self.sets.push(Set {
            stacks: Arc::clone(&stacks),
            next: Next::List(Vec::new()),
        });
        self.set_ids.insert(stacks, id);
        id
    }

    /// The set after `byte`, or [`DEAD`].
    fn next(&mut self, automaton: &Automaton, set: u32, byte: u8) -> Result<u32, TooComplex> {
        let known = match &self.sets[set as usize].next {
            Next::List(list) => list
                .iter()
                .find(|(known, _)| *known == byte)
                .map_or(UNKNOWN, |(_, next)| *next),
            Next::Table(table) => table[usize::from(byte)],
        };
        if known != UNKNOWN {
            return Ok(known);
        }
        let next = self.follow(automaton, set, byte)?;
        let transitions = &mut self.sets[set as usize].next;
        match transitions {
            Next::List(list) if list.len() < LIST_MAX => list.push((byte, next)),
            Next::List(list) => {
                let mut table = Box::new([UNKNOWN; 256]);
                for (byte, next) in list.iter() {
                    table[usize::from(*byte)] = *next;
                }
                table[usize::from(byte)] = next;
                *transitions = Next::Table(table);
            }
            Next::Table(table) => table[usize::from(byte)] = next,
        }
        Ok(next)
    }

    fn follow(&mut self, automaton: &Automaton, set: u32, byte: u8) -> Result<u32, TooComplex> {
        let stacks = Arc::clone(&self.sets[set as usize].stacks);
        let mut closure = Closure::default();
        for stack in stacks.iter().filter(|stack| **stack != BOTTOM) {
            let frame = self.frames[*stack as usize];
            if let Element::Byte(bytes) = automaton.elements[frame.at as usize]
                && automaton.sets[bytes as usize].contains(byte)
            {
                closure.work.push(Frame {
                    at: frame.at + 1,
                    ..frame
                });
            }
        }
        if closure.work.is_empty() {
            return Ok(DEAD);
        }
        self.close(automaton, &mut closure)?;
        if self.sets.len() > SETS_MAX {
            return Err(TooComplex);
        }
        Ok(self.set(Arc::from(closure.stacks.as_slice())))
    }

    /// Replaces the work by all stacks that stand before a byte, sorted.
    fn close(&mut self, automaton: &Automaton, closure: &mut Closure) -> Result<(), TooComplex> {
        while let Some(frame) = closure.work.pop() {
            if !closure.seen.insert(frame) {
                continue;
            }
            if closure.seen.len() > STACKS_MAX * 4 || closure.stacks.len() > STACKS_MAX {
                return Err(TooComplex);
            }
            match automaton.elements[frame.at as usize] {
                Element::Byte(_) => {
                    let stack = self.frame(frame)?;
                    closure.stacks.push(stack);
                }
                Element::End if frame.below == BOTTOM => closure.stacks.push(BOTTOM),
                Element::End => closure.work.push(self.frames[frame.below as usize]),
                Element::Rule(rule) => {
                    let back = frame.at + 1;
                    // Nothing to come back to: repetitions don't pile up.
                    let below = if automaton.elements[back as usize] == Element::End {
                        frame.below
                    } else {
                        self.frame(Frame { at: back, ..frame })?
                    };
                    let starts = &automaton.rules[rule as usize];
                    closure
                        .work
                        .extend(starts.iter().map(|at| Frame { at: *at, below }));
                }
            }
        }
        closure.stacks.sort_unstable();
        closure.stacks.dedup();
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<u32, TooComplex> {
        if let Some(id) = self.frame_ids.get(&frame) {
            return Ok(*id);
        }
        if self.frames.len() >= FRAMES_MAX {
            return Err(TooComplex);
        }
        let id = self.frames.len() as u32;
        self.frames.push(frame);
        self.frame_ids.insert(frame, id);
        Ok(id)
    }
}

/// Walks the vocabulary's trie.
struct Walker<'a> {
    automaton: &'a Automaton,
    cache: &'a mut Cache,
    path: Vec<u32>,
    failed: bool,
}

impl Recognizer for Walker<'_> {
    fn pop_bytes(&mut self, num: usize) {
        let keep = self.path.len().saturating_sub(num);
        self.path.truncate(keep);
    }

    fn collapse(&mut self) {
        if let Some(last) = self.path.pop() {
            self.path.clear();
            self.path.push(last);
        }
    }

    fn trie_finished(&mut self) {
        self.path.truncate(1);
    }

    fn try_push_byte(&mut self, byte: u8) -> bool {
        let Some(set) = self.path.last().copied() else {
            return false;
        };
        if self.failed {
            return false;
        }
        match self.cache.next(self.automaton, set, byte) {
            Ok(DEAD) => false,
            Ok(next) => {
                self.path.push(next);
                true
            }
            Err(TooComplex) => {
                self.failed = true;
                false
            }
        }
    }
}
