//! What a caller writes stays text, even where it spells a control token such as `<|im_end|>`.
//!
//! Owns finding such places. They are marked before a template is rendered, as a template may
//! move and rewrite what it is given, and found again in the prompt. Tokenising them as text is
//! the tokenizer's part.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Around a place while a template is rendered. Noncharacters of Unicode: programs may use them
/// inside, and must not send them to each other; those that come in are taken out.
const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdd1}';

/// The spellings of a model's control tokens.
#[derive(Debug, Default)]
pub(super) struct Literals {
    /// By first byte; longest first.
    spellings: BTreeMap<u8, Vec<Box<str>>>,
    /// Most bytes of one.
    bytes_max: usize,
}

/// A prompt, and where in it stands text that spells control tokens, bytes, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    /// The text, with the template's own control tokens spelled out.
    pub text: String,
    /// Parts of it that are text whatever they spell.
    pub literals: Vec<Range<usize>>,
}

impl Literals {
    pub(super) fn new<'a>(spellings: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut literals = Self::default();
        for spelling in spellings.filter_map(|bytes| std::str::from_utf8(bytes).ok()) {
            if let Some(first) = spelling.bytes().next() {
                let same = literals.spellings.entry(first).or_default();
                same.push(spelling.into());
                literals.bytes_max = literals.bytes_max.max(spelling.len());
            }
        }
        for same in literals.spellings.values_mut() {
            same.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
        }
        literals
    }

    /// `text` with its control tokens' spellings marked.
    pub(super) fn mark<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text: Cow<'a, str> = if text.contains([OPEN, CLOSE]) {
            text.replace([OPEN, CLOSE], "").into()
        } else {
            text.into()
        };
        let mut marked = String::new();
        let mut copied = 0;
        let mut at = 0;
        while let Some(found) = self.next(&text, at) {
            marked.push_str(&text[copied..found.start]);
            marked.push(OPEN);
            marked.push_str(&text[found.clone()]);
            marked.push(CLOSE);
            (copied, at) = (found.end, found.end);
        }
        if copied == 0 {
            return text;
        }
        marked.push_str(&text[copied..]);
        marked.into()
    }

    /// The first spelling in `text` from byte `from` on.
    fn next(&self, text: &str, from: usize) -> Option<Range<usize>> {
        let bytes = text.as_bytes().get(from..)?;
        (from..).zip(bytes).find_map(|(at, first)| {
            // Only at the beginning of a character does a spelling's first byte stand.
            let same = self.spellings.get(first)?;
            let rest = text.get(at..)?;
            let spelling = same
                .iter()
                .find(|spelling| rest.starts_with(&***spelling))?;
            Some(at..at + spelling.len())
        })
    }

    /// Takes the marks out of a rendered prompt. A pair that does not hold one spelling any more
    /// is none: the template has cut or changed what it was given.
    pub(super) fn unmark(&self, marked: &str) -> Prompt {
        let mut prompt = Prompt {
            text: String::with_capacity(marked.len()),
            literals: Vec::new(),
        };
        let mut pieces = marked.split(OPEN);
        prompt
            .text
            .extend(pieces.next().map(|text| text.replace(CLOSE, "")));
        for piece in pieces {
            match piece.split_once(CLOSE) {
                Some((literal, rest)) if self.is_spelling(literal) => {
                    let start = prompt.text.len();
                    prompt.text.push_str(literal);
                    prompt.literals.push(start..prompt.text.len());
                    prompt.text.push_str(&rest.replace(CLOSE, ""));
                }
                _ => prompt.text.push_str(&piece.replace(CLOSE, "")),
            }
        }
        prompt
    }

    fn is_spelling(&self, text: &str) -> bool {
        text.len() <= self.bytes_max && self.next(text, 0) == Some(0..text.len())
    }
}

/// Whether `char` is a mark, which must reach the prompt as it is.
pub(super) fn is_mark(char: char) -> bool {
    matches!(char, OPEN | CLOSE)
}

impl Prompt {
    /// The text in parts: those to be tokenised with control tokens (`true`), and those without.
    pub fn parts(&self) -> impl Iterator<Item = (&str, bool)> {
        let ends = self.literals.iter().map(|range| range.end);
        let starts = std::iter::once(0).chain(ends);
        let last = std::iter::once(self.text.len()..self.text.len());
        let all = starts.zip(self.literals.iter().cloned().chain(last));
        all.flat_map(|(start, literal)| {
            let outside = self.text.get(start..literal.start).unwrap_or_default();
            let inside = self.text.get(literal).unwrap_or_default();
            [(outside, true), (inside, false)]
        })
        .filter(|(text, _)| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Literals, Prompt};

    fn literals() -> Literals {
        let spellings = ["<|im_end|>", "<s>", "<|im_start|>", "[INST]", "ü!", ""];
        Literals::new(spellings.iter().map(|text| text.as_bytes()))
    }

    fn parts(prompt: &Prompt) -> Vec<(&str, bool)> {
        prompt.parts().collect()
    }

    #[test]
    fn spellings_are_marked_and_found_again() {
        let check = |text: &str, expected: &[(&str, bool)]| {
            let literals = literals();
            let prompt = literals.unmark(&literals.mark(text));
            assert_eq!(parts(&prompt), expected, "{text}");
        };
        check("", &[]);
        check("plain < text | [", &[("plain < text | [", true)]);
        check("<s>", &[("<s>", false)]);
        check(
            "a<s><|im_end|>b",
            &[
                ("a", true),
                ("<s>", false),
                ("<|im_end|>", false),
                ("b", true),
            ],
        );
        check(
            "<|im_<s>end|>",
            &[("<|im_", true), ("<s>", false), ("end|>", true)],
        );
        check("üü!ü", &[("ü", true), ("ü!", false), ("ü", true)]);
        // Marks that come in are no marks, and hide nothing.
        check("\u{fdd0}x\u{fdd1}", &[("x", true)]);
        check("<\u{fdd0}s\u{fdd1}>", &[("<s>", false)]);
    }

    /// A template that cuts or changes what it was given leaves no half marks behind.
    #[test]
    fn broken_pairs_are_no_literals() {
        for (marked, text) in [
            ("a\u{fdd0}<s>b", "a<s>b"),
            ("a<s>\u{fdd1}b", "a<s>b"),
            ("\u{fdd0}<S>\u{fdd1}", "<S>"),
            ("\u{fdd0}<s> \u{fdd1}", "<s> "),
            ("\u{fdd0}\u{fdd0}\u{fdd1}\u{fdd1}", ""),
        ] {
            let prompt = literals().unmark(marked);
            assert_eq!((prompt.text.as_str(), prompt.literals.len()), (text, 0));
        }
    }

    proptest! {
        #[test]
        fn no_text_is_lost(pieces in prop::collection::vec(prop::sample::select(
            vec!["<s>", "<|im_end|>", "<|im_", "end|>", "ü", "!", "[INST]", "a", "<", "s>"]), 0..12),
        ) {
            let text = pieces.concat();
            let literals = literals();
            let prompt = literals.unmark(&literals.mark(&text));
            prop_assert_eq!(&prompt.text, &text);
            let joined: String = prompt.parts().map(|(text, _)| text).collect();
            prop_assert_eq!(joined, text);
            for (text, parses) in prompt.parts() {
                // What is tokenised with control tokens holds none of the caller's.
                prop_assert!(!parses || matches!(literals.mark(text), std::borrow::Cow::Borrowed(_)));
            }
        }
    }
}
