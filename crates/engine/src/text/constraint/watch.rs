//! Where in a free answer a call begins, by the rules of `parse`: a marker inside reasoning opens nothing.

use std::cmp::Reverse;

use crate::text::dialect::ReasoningTags;
use crate::text::parse::Start;

/// Where the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing but white space has come: reasoning may begin.
    Beginning,
    Reasoning,
    Content,
}

/// Reads along until a marker opens a call.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    markers: &'static [&'static str],
    tags: Option<ReasoningTags>,
    place: Place,
    /// What matters in this place.
    sought: Vec<&'static str>,
    /// The last bytes, which may be the beginning of what is sought.
    tail: Vec<u8>,
}

impl Watch {
    pub(super) fn new(
        markers: &'static [&'static str],
        tags: Option<ReasoningTags>,
        start: Start,
    ) -> Self {
        let mut watch = Self {
            markers,
            tags,
            place: Place::Content,
            sought: Vec::new(),
            tail: Vec::new(),
        };
        watch.enter(match (start, tags) {
            (Start::Reasoning, Some(_)) => Place::Reasoning,
            (Start::Content, Some(_)) => Place::Beginning,
            (_, None) => Place::Content,
        });
        watch
    }

    /// Reads more of the answer. Once a marker has opened a call: what follows it in `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.tail.extend_from_slice(bytes);
        loop {
            let Some((at, marker)) = find(&self.tail, &self.sought) else {
                self.forget();
                return None;
            };
            let blank = is_blank(&self.tail[..at]);
            self.tail.drain(..at + marker.len());
            let opens_reasoning = self.tags.is_some_and(|tags| tags.open == marker);
            match self.place {
                Place::Beginning if opens_reasoning && blank => self.enter(Place::Reasoning),
                // In mid-text its tag is just text.
                Place::Beginning if opens_reasoning => self.enter(Place::Content),
                Place::Reasoning => self.enter(Place::Content),
                Place::Beginning | Place::Content => {
                    self.enter(Place::Content);
                    return Some(std::mem::take(&mut self.tail));
                }
            }
        }
    }

    fn enter(&mut self, place: Place) {
        let open = self.tags.map(|tags| tags.open);
        let close = self.tags.map(|tags| tags.close);
        self.place = place;
        self.sought = match place {
            Place::Beginning => self.markers.iter().copied().chain(open).collect(),
            Place::Reasoning => close.into_iter().collect(),
            Place::Content => self.markers.to_vec(),
        };
    }

    /// Drops what can't be part of anything sought.
    fn forget(&mut self) {
        let longest = self.sought.iter().map(|marker| marker.len()).max();
        let kept = longest.unwrap_or(0).saturating_sub(1);
        let mut dropped = self.tail.len().saturating_sub(kept);
        // Whole characters, so that those of more bytes are known for blanks, too.
        while dropped > 0 && (self.tail.get(dropped)).is_some_and(|byte| byte & 0xC0 == 0x80) {
            dropped -= 1;
        }
        let blank = is_blank(&self.tail[..dropped]);
        self.tail.drain(..dropped);
        if self.place == Place::Beginning && !blank {
            self.enter(Place::Content);
        }
    }
}

/// As the parser of answers sees it.
fn is_blank(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.trim().is_empty())
}

/// The first marker in `text`; among those that start at one place the longest.
fn find(text: &[u8], markers: &[&'static str]) -> Option<(usize, &'static str)> {
    let places = markers.iter().copied().filter_map(|marker| {
        let mut parts = text.windows(marker.len());
        let at = parts.position(|part| part == marker.as_bytes())?;
        Some((at, marker))
    });
    places.min_by_key(|(at, marker)| (*at, Reverse(marker.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: ReasoningTags = ReasoningTags {
        open: "<think>",
        close: "</think>",
    };

    /// What follows the first marker, however the text comes in pieces.
    fn check(text: &str, start: Start, expected: Option<&str>) {
        for size in [1, 2, 3, 7, 100] {
            let mut watch = Watch::new(&["<call>", "<tool"], Some(TAGS), start);
            let mut read = 0;
            let mut opened = None;
            for piece in text.as_bytes().chunks(size) {
                read += piece.len();
                opened = watch.push(piece);
                if opened.is_some() {
                    break;
                }
                assert!(watch.tail.len() < TAGS.close.len(), "{text}");
            }
            let rest = opened.map(|rest| {
                let rest = [rest.as_slice(), &text.as_bytes()[read..]].concat();
                String::from_utf8(rest).unwrap()
            });
            assert_eq!(rest.as_deref(), expected, "{text}, {size} at a time");
        }
    }

    #[test]
    fn markers_open_calls() {
        let check = |text: &str, expected| check(text, Start::Content, expected);
        check("", None);
        check("no call at all, < nor > <cal", None);
        check("<call>", Some(""));
        check(" well: <call>{x}<call>", Some("{x}<call>"));
        check("<<cal<call>>", Some(">"));
        check("ü<tool<call>", Some("<call>"));
    }

    #[test]
    fn reasoning_may_speak_of_them() {
        let check_content = |text: &str, expected| check(text, Start::Content, expected);
        check_content("\n <think>a <call> b</think>\n", None);
        check_content("<think>a <call> b</think> so: <call>c", Some("c"));
        check_content("<think><call>", None);
        // Only at the beginning is it reasoning, and only once.
        check_content("Hm. <think>a <call> b</think>", Some(" b</think>"));
        check_content("<think></think><think><call>c", Some("c"));
        check("a <call> b</think> <call>c", Start::Reasoning, Some("c"));
        check("</think> <think><call>c", Start::Reasoning, Some("c"));
        check("a <call>", Start::Reasoning, None);
    }
}
