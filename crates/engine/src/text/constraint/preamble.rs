//! Free text before the constrained part: reasoning that the prompt has opened.

use std::sync::Arc;

use toktrie::SimpleVob;

use super::Vocabulary;

/// Tokens of white space allowed between the free text and the constrained part.
const GAP_TOKENS_MAX: u8 = 4;
/// Longest such token, bytes.
const GAP_TOKEN_BYTES_MAX: usize = 8;

/// What ends the free text, for one vocabulary.
#[derive(Debug)]
pub(super) struct Preamble {
    marker: &'static [u8],
    /// Tokens that could end the free text and go on with something: they need a closer look.
    crossing: Vec<u32>,
    /// Tokens of white space.
    gap: Vec<u32>,
}

impl Preamble {
    pub(super) fn new(marker: &'static str, vocabulary: &Vocabulary) -> Self {
        let marker = marker.as_bytes();
        let last = marker.last().copied();
        let mut crossing = Vec::new();
        let mut gap = Vec::new();
        for (token, bytes) in vocabulary.text_tokens() {
            if is_gap(bytes) {
                gap.push(token);
            }
            let ends_inside = bytes.windows(2).any(|pair| Some(pair[0]) == last);
            if ends_inside {
                crossing.push(token);
            }
        }
        Self {
            marker,
            crossing,
            gap,
        }
    }
}

fn is_gap(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len() <= GAP_TOKEN_BYTES_MAX
        && bytes.iter().all(u8::is_ascii_whitespace)
}

/// What a token does to the free text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Continues,
    /// It ends.
    Ends,
    /// It would end with text of the constrained part in the same token.
    Forbidden,
}

#[derive(Debug, Clone)]
pub(super) struct PreambleState {
    preamble: Arc<Preamble>,
    /// The last bytes, fewer than the marker has.
    tail: Vec<u8>,
    /// Tokens of white space since the end.
    gap: Option<u8>,
}

impl PreambleState {
    pub(super) fn new(preamble: Arc<Preamble>) -> Self {
        Self {
            preamble,
            tail: Vec::new(),
            gap: None,
        }
    }

    /// Whether the marker has come.
    pub(super) fn ended(&self) -> bool {
        self.gap.is_some()
    }

    pub(super) fn verdict(&self, bytes: &[u8]) -> Verdict {
        let marker = self.preamble.marker;
        let text = [&self.tail, bytes].concat();
        match text.windows(marker.len()).position(|part| part == marker) {
            None => Verdict::Continues,
            Some(at)
                if text[at + marker.len()..]
                    .iter()
                    .all(u8::is_ascii_whitespace) =>
            {
                Verdict::Ends
            }
            Some(_) => Verdict::Forbidden,
        }
    }

    pub(super) fn accept(&mut self, bytes: &[u8]) {
        if self.verdict(bytes) != Verdict::Continues {
            self.gap = Some(0);
            return;
        }
        self.tail.extend_from_slice(bytes);
        let keep = self.preamble.marker.len() - 1;
        let drop = self.tail.len().saturating_sub(keep);
        self.tail.drain(..drop);
    }

    /// Forbids the end of the answer and tokens that run across the marker.
    pub(super) fn mask(&self, logits: &mut [f32], vocabulary: &Vocabulary) {
        let crossing = self
            .preamble
            .crossing
            .iter()
            .filter(|token| self.verdict(vocabulary.bytes(**token)) == Verdict::Forbidden);
        for token in vocabulary.end_tokens().iter().chain(crossing) {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    pub(super) fn takes_gap(&self, bytes: &[u8]) -> bool {
        self.gap.is_some_and(|tokens| tokens < GAP_TOKENS_MAX) && is_gap(bytes)
    }

    pub(super) fn accept_gap(&mut self) {
        self.gap = self.gap.map(|tokens| tokens + 1);
    }

    pub(super) fn allow_gap(&self, allowed: &mut SimpleVob) {
        if self.gap.is_some_and(|tokens| tokens < GAP_TOKENS_MAX) {
            for token in &self.preamble.gap {
                allowed.allow_token(*token);
            }
        }
    }
}
