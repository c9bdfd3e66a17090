//! What a caller writes stays text, even where it spells a control token such as `<|im_end|>`.
//!
//! Owns finding such places. They are marked before a template is rendered, as a template may
//! move and rewrite what it is given, and found again in the prompt. How they become tokens is in
//! `tokens`.

mod tokens;

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
    /// Markers in the model's own text, which may be more or less than one control token.
    kept: Vec<&'static str>,
}

/// Who wrote a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// Users, tools and programs, and what a template puts between markers of its own, such as
    /// the arguments of calls: all of it is text.
    Caller,
    /// The model, in the text of an earlier answer: the markers of its calls and reasoning keep
    /// their meaning.
    Model,
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
    /// `kept` mean something in the text of the model's own answers.
    pub(super) fn new<'a>(
        spellings: impl Iterator<Item = &'a [u8]>,
        kept: Vec<&'static str>,
    ) -> Self {
        let mut literals = Self {
            spellings: BTreeMap::new(),
            kept,
        };
        for spelling in spellings.filter_map(|bytes| std::str::from_utf8(bytes).ok()) {
            if let Some(first) = spelling.bytes().next() {
                let same = literals.spellings.entry(first).or_default();
                same.push(spelling.into());
            }
        }
        for same in literals.spellings.values_mut() {
            same.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
        }
        literals
    }

    /// `text` with its control tokens' spellings marked.
    pub(super) fn mark<'a>(&self, text: &'a str, author: Author) -> Cow<'a, str> {
        let text: Cow<'a, str> = if text.contains([OPEN, CLOSE]) {
            text.replace([OPEN, CLOSE], "").into()
        } else {
            text.into()
        };
        let mut marked = String::new();
        let mut copied = 0;
        let mut at = 0;
        while let Some(found) = self.next(&text, at) {
            at = found.end;
            if author == Author::Model
                && let Some(end) = self.kept_to(&text, &found)
            {
                at = end;
                continue;
            }
            marked.push_str(&text[copied..found.start]);
            marked.push(OPEN);
            marked.push_str(&text[found.clone()]);
            marked.push(CLOSE);
            copied = found.end;
        }
        if copied == 0 {
            return text;
        }
        marked.push_str(&text[copied..]);
        marked.into()
    }

    /// The end of the marker in `text` that the spelling at `found` is, or is a part of.
    fn kept_to(&self, text: &str, found: &Range<usize>) -> Option<usize> {
        let spelling = text.get(found.clone())?;
        let mut last: Option<usize> = None;
        for marker in &self.kept {
            for (before, _) in marker.match_indices(spelling) {
                let start = found.start.checked_sub(before);
                let rest = start.and_then(|start| text.get(start..));
                if rest.is_some_and(|rest| rest.starts_with(*marker)) {
                    last = last.max(Some(found.start - before + marker.len()));
                }
            }
        }
        last
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

    /// Whether `text` is the spelling of a control token.
    pub(super) fn is_spelling(&self, text: &str) -> bool {
        let first = text.bytes().next();
        let same = first.and_then(|first| self.spellings.get(&first));
        same.is_some_and(|same| same.iter().any(|spelling| **spelling == *text))
    }
}

/// Whether `char` is a mark, which must reach the prompt as it is.
pub(super) fn is_mark(char: char) -> bool {
    matches!(char, OPEN | CLOSE)
}

impl Prompt {
    /// The text in parts: those to be tokenised with control tokens (`true`), and those without.
    pub fn parts(&self) -> impl Iterator<Item = (&str, bool)> {
        parts(&self.text, &self.literals)
    }
}

/// `text` in parts: outside of `cuts` (`true`) and within them.
fn parts<'a>(text: &'a str, cuts: &'a [Range<usize>]) -> impl Iterator<Item = (&'a str, bool)> {
    let starts = std::iter::once(0).chain(cuts.iter().map(|cut| cut.end));
    let last = std::iter::once(text.len()..text.len());
    let all = starts.zip(cuts.iter().cloned().chain(last));
    all.flat_map(move |(start, cut)| {
        let outside = text.get(start..cut.start).unwrap_or_default();
        let inside = text.get(cut).unwrap_or_default();
        [(outside, true), (inside, false)]
    })
    .filter(|(text, _)| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Author, Literals, Prompt};

    fn literals() -> Literals {
        let spellings = ["<|im_end|>", "<s>", "<|im_start|>", "[INST]", "ü!", ""];
        let spellings = spellings.iter().map(|text| text.as_bytes());
        Literals::new(spellings, vec!["[INST]", "<think>"])
    }

    fn parts(prompt: &Prompt) -> Vec<(&str, bool)> {
        prompt.parts().collect()
    }

    #[test]
    fn spellings_are_marked_and_found_again() {
        let check = |text: &str, expected: &[(&str, bool)]| {
            let literals = literals();
            let prompt = literals.unmark(&literals.mark(text, Author::Caller));
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

    #[test]
    fn markers_in_the_models_own_answers_are_no_literals() {
        let literals = literals();
        let text = "<think>[INST]<s>[INST]";
        let prompt = literals.unmark(&literals.mark(text, Author::Model));
        let expected = [("<think>[INST]", true), ("<s>", false), ("[INST]", true)];
        assert_eq!(parts(&prompt), expected);
        let prompt = literals.unmark(&literals.mark(text, Author::Caller));
        assert_eq!(parts(&prompt)[1], ("[INST]", false));
    }

    /// A marker may be put together of control tokens and text; its parts alone are no markers.
    #[test]
    fn parts_of_a_marker_mean_something_only_in_it() {
        let spellings = ["<s>", "|x|"];
        let spellings = spellings.iter().map(|text| text.as_bytes());
        let literals = Literals::new(spellings, vec!["<|x|call>", "<s>think<s>"]);
        let text = "<|x|call>|x|<s>think<s><s>";
        let prompt = literals.unmark(&literals.mark(text, Author::Model));
        let expected = [
            ("<|x|call>", true),
            ("|x|", false),
            ("<s>think<s>", true),
            ("<s>", false),
        ];
        assert_eq!(parts(&prompt), expected);
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
            let prompt = literals.unmark(&literals.mark(&text, Author::Caller));
            prop_assert_eq!(&prompt.text, &text);
            let joined: String = prompt.parts().map(|(text, _)| text).collect();
            prop_assert_eq!(joined, text);
            for (text, parses) in prompt.parts() {
                // What is tokenised with control tokens holds none of the caller's.
                let marked = literals.mark(text, Author::Caller);
                prop_assert!(!parses || matches!(marked, std::borrow::Cow::Borrowed(_)));
            }
        }
    }
}
