//! GBNF rules as a program over bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex_syntax::utf8::Utf8Sequences;

use super::GbnfError;
use super::syntax::{self, Expression, Rules};

/// Largest program, elements; about 8 bytes each. Repetitions are written out.
const ELEMENTS_MAX: usize = 500_000;

/// A set of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    fn insert_range(&mut self, first: u8, last: u8) {
        for byte in first..=last {
            self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }
}

/// One step of an alternative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// A byte of this set (its place in [`Automaton::sets`]).
    Byte(u32),
    /// A rule.
    Rule(u32),
    /// The alternative is over.
    End,
}

/// A grammar, ready to be followed.
#[derive(Debug)]
pub struct Automaton {
    pub(super) elements: Vec<Element>,
    /// For each rule where its alternatives start.
    pub(super) rules: Vec<Vec<u32>>,
    pub(super) sets: Vec<ByteSet>,
    pub(super) root: u32,
}

impl Automaton {
    /// Reads a grammar.
    ///
    /// Errors: what is wrong and where; also for left recursion, which can't be followed.
    pub fn new(source: &str) -> Result<Arc<Self>, GbnfError> {
        let Rules { bodies, root } = syntax::read(source)?;
        let whole = |reason: String| GbnfError {
            line: 1,
            column: 1,
            reason,
        };
        let mut builder = Builder {
            elements: Vec::new(),
            rules: vec![Vec::new(); bodies.len()],
            sets: BTreeMap::new(),
            classes: BTreeMap::new(),
        };
        for (rule, body) in bodies.iter().enumerate() {
            builder.define(rule, body).map_err(|TooLarge| {
                whole(format!(
                    "the grammar has more than {ELEMENTS_MAX} elements when its repetitions are written out"
                ))
            })?;
        }
        let mut sets = vec![ByteSet::default(); builder.sets.len()];
        for (set, place) in builder.sets {
            sets[place as usize] = set;
        }
        let automaton = Self {
            elements: builder.elements,
            rules: builder.rules,
            sets,
            root: u32::try_from(root).map_err(|error| whole(error.to_string()))?,
        };
        if automaton.is_left_recursive() {
            return Err(whole(
                "a rule starts with itself (left recursion); hint: write the repetition with `*`"
                    .into(),
            ));
        }
        Ok(Arc::new(automaton))
    }

    /// The elements of an alternative.
    fn alternative(&self, start: u32) -> impl Iterator<Item = Element> {
        self.elements[start as usize..]
            .iter()
            .copied()
            .take_while(|element| *element != Element::End)
    }

    /// Rules that may match nothing.
    fn nullable(&self) -> Vec<bool> {
        let mut nullable = vec![false; self.rules.len()];
        // Who must be looked at again when a rule turns out to be nullable.
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.rules.len()];
        for (rule, starts) in self.rules.iter().enumerate() {
            for start in starts {
                for element in self.alternative(*start) {
                    if let Element::Rule(used) = element {
                        users[used as usize].push(rule);
                    }
                }
            }
        }
        let mut work: Vec<usize> = (0..self.rules.len()).collect();
        while let Some(rule) = work.pop() {
            if nullable[rule] {
                continue;
            }
            let empty = self.rules[rule].iter().any(|start| {
                self.alternative(*start).all(
                    |element| matches!(element, Element::Rule(used) if nullable[used as usize]),
                )
            });
            if empty {
                nullable[rule] = true;
                work.extend_from_slice(&users[rule]);
            }
        }
        nullable
    }

    /// Whether some rule can come back to itself before it takes a byte.
    fn is_left_recursive(&self) -> bool {
        let nullable = self.nullable();
        let mut firsts: Vec<Vec<u32>> = vec![Vec::new(); self.rules.len()];
        for (rule, starts) in self.rules.iter().enumerate() {
            for start in starts {
                for (place, element) in self.alternative(*start).enumerate() {
                    let Element::Rule(used) = element else {
                        break;
                    };
                    // A repetition of what may be empty comes back to itself at its end. That
                    // leaves the stack as it is, so the same set of stacks is found again.
                    let last = self.elements[*start as usize + place + 1] == Element::End;
                    if !(place > 0 && last && used as usize == rule) {
                        firsts[rule].push(used);
                    }
                    if !nullable[used as usize] {
                        break;
                    }
                }
            }
        }
        has_cycle(&firsts)
    }
}

/// Whether a directed graph has a cycle. Iterative: grammars may be long chains.
fn has_cycle(edges: &[Vec<u32>]) -> bool {
    let mut entering = vec![0_u32; edges.len()];
    for target in edges.iter().flatten() {
        entering[*target as usize] += 1;
    }
    let mut free: Vec<usize> = (0..edges.len())
        .filter(|node| entering[*node] == 0)
        .collect();
    let mut removed = 0;
    while let Some(node) = free.pop() {
        removed += 1;
        for target in &edges[node] {
            let target = *target as usize;
            entering[target] -= 1;
            if entering[target] == 0 {
                free.push(target);
            }
        }
    }
    removed < edges.len()
}

struct TooLarge;

struct Builder {
    elements: Vec<Element>,
    rules: Vec<Vec<u32>>,
    sets: BTreeMap<ByteSet, u32>,
    /// Rules for sets of characters beyond ASCII.
    classes: BTreeMap<Vec<(char, char)>, u32>,
}

impl Builder {
    fn define(&mut self, rule: usize, body: &Expression) -> Result<(), TooLarge> {
        let alternatives = match body {
            Expression::Alternatives(all) => all.as_slice(),
            other => std::slice::from_ref(other),
        };
        let mut starts = Vec::with_capacity(alternatives.len());
        for alternative in alternatives {
            let mut elements = Vec::new();
            self.append(alternative, &mut elements)?;
            starts.push(self.store(&elements)?);
        }
        self.rules[rule] = starts;
        Ok(())
    }

    /// Adds what matches `expression` to an alternative.
    fn append(&mut self, expression: &Expression, out: &mut Vec<Element>) -> Result<(), TooLarge> {
        if out.len() > ELEMENTS_MAX {
            return Err(TooLarge);
        }
        match expression {
            Expression::Characters(ranges) => self.characters(ranges, out)?,
            Expression::Rule(rule) => out.push(Element::Rule(index(*rule)?)),
            Expression::Sequence(items) => {
                for item in items {
                    self.append(item, out)?;
                }
            }
            Expression::Alternatives(_) => {
                let rule = self.new_rule()?;
                self.define(rule as usize, expression)?;
                out.push(Element::Rule(rule));
            }
            Expression::Repeat { body, min, max } => self.repeat(body, *min, *max, out)?,
        }
        Ok(())
    }

    fn repeat(
        &mut self,
        body: &Expression,
        min: u32,
        max: Option<u32>,
        out: &mut Vec<Element>,
    ) -> Result<(), TooLarge> {
        let mut once = Vec::new();
        self.append(body, &mut once)?;
        let once = match once.as_slice() {
            [element] => *element,
            [] => return Ok(()),
            elements => {
                let start = self.store(elements)?;
                let rule = self.new_rule()?;
                self.rules[rule as usize] = vec![start];
                Element::Rule(rule)
            }
        };
        out.extend(std::iter::repeat_n(once, min as usize));
        let Some(max) = max else {
            let rule = self.new_rule()?;
            let more = self.store(&[once, Element::Rule(rule)])?;
            let none = self.store(&[])?;
            self.rules[rule as usize] = vec![more, none];
            out.push(Element::Rule(rule));
            return Ok(());
        };
        // Each of the optional ones holds the next, so that there is one way to match k of them.
        let mut rest: Option<u32> = None;
        for _ in min..max {
            let mut more = vec![once];
            more.extend(rest.map(Element::Rule));
            let more = self.store(&more)?;
            let none = self.store(&[])?;
            let rule = self.new_rule()?;
            self.rules[rule as usize] = vec![more, none];
            rest = Some(rule);
        }
        out.extend(rest.map(Element::Rule));
        Ok(())
    }

    fn characters(
        &mut self,
        ranges: &[(char, char)],
        out: &mut Vec<Element>,
    ) -> Result<(), TooLarge> {
        let mut ascii = ByteSet::default();
        let mut sequences: Vec<Vec<Element>> = Vec::new();
        for &(first, last) in ranges {
            for sequence in Utf8Sequences::new(first, last) {
                match sequence.as_slice() {
                    [only] => ascii.insert_range(only.start, only.end),
                    bytes => {
                        let elements = bytes.iter().map(|range| {
                            let mut set = ByteSet::default();
                            set.insert_range(range.start, range.end);
                            self.byte(set)
                        });
                        sequences.push(elements.collect::<Result<_, _>>()?);
                    }
                }
            }
        }
        if ascii != ByteSet::default() {
            let element = self.byte(ascii)?;
            if sequences.is_empty() {
                out.push(element);
                return Ok(());
            }
            sequences.push(vec![element]);
        }
        if let [only] = sequences.as_slice() {
            out.extend_from_slice(only);
            return Ok(());
        }
        let rule = match self.classes.get(ranges) {
            Some(rule) => *rule,
            None => {
                let rule = self.new_rule()?;
                let starts = sequences
                    .iter()
                    .map(|elements| self.store(elements))
                    .collect::<Result<_, _>>()?;
                self.rules[rule as usize] = starts;
                self.classes.insert(ranges.to_vec(), rule);
                rule
            }
        };
        out.push(Element::Rule(rule));
        Ok(())
    }

    fn byte(&mut self, set: ByteSet) -> Result<Element, TooLarge> {
        let next = index(self.sets.len())?;
        Ok(Element::Byte(*self.sets.entry(set).or_insert(next)))
    }

    fn store(&mut self, elements: &[Element]) -> Result<u32, TooLarge> {
        let start = index(self.elements.len())?;
        self.elements.extend_from_slice(elements);
        self.elements.push(Element::End);
        if self.elements.len() > ELEMENTS_MAX {
            return Err(TooLarge);
        }
        Ok(start)
    }

    fn new_rule(&mut self) -> Result<u32, TooLarge> {
        let rule = index(self.rules.len())?;
        self.rules.push(Vec::new());
        if self.rules.len() > ELEMENTS_MAX {
            return Err(TooLarge);
        }
        Ok(rule)
    }
}

fn index(place: usize) -> Result<u32, TooLarge> {
    u32::try_from(place).map_err(|_| TooLarge)
}
