//! The tokens of a prompt in which a caller's text spells control tokens.
//!
//! Tokenizers take each control token of a text for itself, and what is between two of them apart
//! from all the rest. So a prompt can be cut at its own control tokens without changing a token,
//! and what is between two cuts and holds literals is tokenised as nothing but text.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use super::{Literals, parts};
use crate::TokenId;

impl Literals {
    /// The tokens of a prompt's `text`, in which `literals` are text. `tokenize` takes text, and
    /// whether the control tokens that it spells are taken for such; `is_control` says which tokens
    /// those are.
    ///
    /// Without literals it is the text tokenised as a whole.
    pub(in crate::text) fn tokens<E>(
        &self,
        text: &str,
        literals: &[Range<usize>],
        is_control: &impl Fn(TokenId) -> bool,
        tokenize: &impl Fn(&str, bool) -> Result<Vec<TokenId>, E>,
    ) -> Result<Vec<TokenId>, E> {
        let whole = tokenize(text, true)?;
        if literals.is_empty() {
            return Ok(whole);
        }
        let cut = |cuts: &[Range<usize>]| {
            joined(text, cuts, |part, parses| {
                if parses {
                    tokenize(part, true)
                } else {
                    self.plain(part, is_control, tokenize)
                }
            })
        };
        let stretches = self.stretches(text, literals);
        let later = after_space(text, &stretches, literals);
        for stretches in [stretches, later] {
            // Only where the cuts themselves change nothing.
            if joined(text, &stretches, |part, _| tokenize(part, true))? == whole {
                return cut(&stretches);
            }
        }
        // Safe, but perhaps with a space too many where a tokenizer begins each part with one.
        cut(literals)
    }

    /// The parts of `text`, bytes, in order, that hold `literals`. Each reaches to the nearest
    /// control tokens that are none, or to the ends of the text.
    fn stretches(&self, text: &str, literals: &[Range<usize>]) -> Vec<Range<usize>> {
        let mut stretches = Vec::new();
        // Where the last control token ended, and whether a literal came after it.
        let (mut start, mut holds) = (0, false);
        let mut at = 0;
        let last = std::iter::once(text.len()..text.len());
        for literal in literals.iter().cloned().chain(last) {
            let before = text.get(..literal.start).unwrap_or_default();
            while let Some(control) = self.next(before, at) {
                if std::mem::take(&mut holds) {
                    stretches.push(start..control.start);
                }
                (start, at) = (control.end, control.end);
            }
            holds |= !literal.is_empty();
            at = literal.end;
        }
        if holds {
            stretches.push(start..text.len());
        }
        stretches
    }

    /// The tokens of `text` without any control token, whatever it spells.
    fn plain<E>(
        &self,
        text: &str,
        is_control: &impl Fn(TokenId) -> bool,
        tokenize: &impl Fn(&str, bool) -> Result<Vec<TokenId>, E>,
    ) -> Result<Vec<TokenId>, E> {
        let tokens = tokenize(text, false)?;
        if !tokens.iter().any(|token| is_control(*token)) {
            return Ok(tokens);
        }
        // Some are listed as text, or put together of their pieces like any word.
        let mut spellings = Vec::new();
        let mut at = 0;
        while let Some(found) = self.next(text, at) {
            at = found.end;
            spellings.push(found);
        }
        let mut known: BTreeMap<&str, Vec<TokenId>> = BTreeMap::new();
        let mut tokens = Vec::new();
        for (part, outside) in parts(text, &spellings) {
            if outside {
                tokens.extend(tokenize(part, false)?);
                continue;
            }
            let apart = match known.entry(part) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(apart(part, is_control, tokenize)?),
            };
            tokens.extend_from_slice(apart);
        }
        Ok(tokens)
    }
}

/// The tokens of a control token's `spelling` in two pieces or, if one of them is a control token
/// too, character by character.
fn apart<E>(
    spelling: &str,
    is_control: &impl Fn(TokenId) -> bool,
    tokenize: &impl Fn(&str, bool) -> Result<Vec<TokenId>, E>,
) -> Result<Vec<TokenId>, E> {
    let (first, rest) = spelling.split_at(spelling.chars().next().map_or(0, char::len_utf8));
    let mut tokens = tokenize(first, false)?;
    tokens.extend(tokenize(rest, false)?);
    if tokens.iter().any(|token| is_control(*token)) {
        tokens.clear();
        for char in spelling.chars() {
            tokens.extend(tokenize(&char.to_string(), false)?);
        }
    }
    Ok(tokens)
}

/// `stretches` without white space at their beginnings, which some control tokens swallow: it
/// stays with them.
fn after_space(
    text: &str,
    stretches: &[Range<usize>],
    literals: &[Range<usize>],
) -> Vec<Range<usize>> {
    let is_space = |char: char| char.is_ascii_whitespace() || char == '\u{b}';
    let later = |stretch: &Range<usize>| {
        let first = literals.partition_point(|literal| literal.start < stretch.start);
        let end = literals
            .get(first)
            .map_or(stretch.end, |literal| literal.start);
        let head = text.get(stretch.start..end).unwrap_or_default();
        let spaces = head.len() - head.trim_start_matches(is_space).len();
        stretch.start + spaces..stretch.end
    };
    stretches.iter().map(later).collect()
}

/// The tokens of all parts of `text`: see [`parts`].
fn joined<E>(
    text: &str,
    cuts: &[Range<usize>],
    tokens: impl Fn(&str, bool) -> Result<Vec<TokenId>, E>,
) -> Result<Vec<TokenId>, E> {
    let mut all = Vec::new();
    for (part, outside) in parts(text, cuts) {
        all.extend(tokens(part, outside)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
