//! From token bytes to text: whole characters only, and nothing of a stop string.

/// Joins the bytes of tokens to text and watches for stop strings.
///
/// Text is given out as soon as it can't be part of a stop string any more; bytes as soon as they
/// make a whole UTF-8 character. Bytes that can't become one turn into U+FFFD.
#[derive(Debug, Clone, Default)]
pub struct Assembler {
    stops: Vec<String>,
    /// The beginning of a character.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

/// What one push gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assembled {
    /// New text.
    pub text: String,
    /// A stop string was found; the text ends before it, and nothing follows.
    pub stopped: bool,
}

impl Assembler {
    /// An assembler that ends at any of `stops`; empty ones are ignored.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).collect();
        Self {
            stops,
            ..Self::default()
        }
    }

    /// Adds the bytes of a token.
    pub fn push(&mut self, bytes: &[u8]) -> Assembled {
        self.bytes.extend_from_slice(bytes);
        let text = take_characters(&mut self.bytes);
        if self.stops.is_empty() {
            return Assembled {
                text,
                stopped: false,
            };
        }
        self.held.push_str(&text);
        if let Some(at) = self
            .stops
            .iter()
            .filter_map(|s| self.held.find(s.as_str()))
            .min()
        {
            self.held.truncate(at);
            self.bytes.clear();
            return Assembled {
                text: std::mem::take(&mut self.held),
                stopped: true,
            };
        }
        let keep = self
            .stops
            .iter()
            .map(|s| overlap(&self.held, s))
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Assembled {
            text: std::mem::replace(&mut self.held, rest),
            stopped: false,
        }
    }

    /// The end: gives what was held back.
    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        if !self.bytes.is_empty() {
            text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.bytes)));
        }
        text
    }
}

/// Removes all whole characters from the front of `bytes`, invalid ones as U+FFFD.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                bytes.clear();
                return text;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[..valid]));
                let Some(invalid) = error.error_len() else {
                    // The rest may become a character with the next token.
                    bytes.drain(..valid);
                    return text;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                bytes.drain(..valid + invalid);
            }
        }
    }
}

/// Length in bytes of the longest end of `text` that is a beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|n| text.as_bytes()[text.len() - n..] == stop.as_bytes()[..*n])
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(stops: &[&str], pieces: &[&[u8]], expected: &[&str], stopped: bool) {
        let mut assembler = Assembler::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut given = Vec::new();
        let mut ended = false;
        for piece in pieces {
            let out = assembler.push(piece);
            given.push(out.text);
            ended = out.stopped;
        }
        if !ended {
            given.push(assembler.finish());
        }
        assert_eq!(given, expected);
        assert_eq!(ended, stopped);
    }

    #[test]
    fn characters_stay_whole() {
        check(
            &[],
            &[b"a\xe2", b"\x82", b"\xacb"],
            &["a", "", "€b", ""],
            false,
        );
        check(&[], &["👍".as_bytes()], &["👍", ""], false);
    }

    #[test]
    fn impossible_bytes_become_replacements() {
        check(&[], &[b"a\xffb"], &["a\u{fffd}b", ""], false);
        check(&[], &[b"a\xe2"], &["a", "\u{fffd}"], false);
        check(&[], &[b"\xe2", b"x"], &["", "\u{fffd}x", ""], false);
    }

    #[test]
    fn stops_may_straddle_tokens() {
        check(
            &["END"],
            &[b"one E", b"N", b"D two"],
            &["one ", "", ""],
            true,
        );
        check(
            &["END"],
            &[b"one E", b"N", b"X"],
            &["one ", "", "ENX", ""],
            false,
        );
        check(&["END"], &[b"one EN"], &["one ", "EN"], false);
        check(&["ab", "b"], &[b"xab"], &["x"], true);
        check(&["aab"], &[b"aa", b"ab"], &["", "a"], true);
        check(&["€"], &[b"x\xe2\x82", b"\xac"], &["x", ""], true);
        check(&[""], &[b"x"], &["x", ""], false);
    }

    proptest! {
        #[test]
        fn text_before_the_first_stop_comes_out_however_it_is_cut(
            text in "[ab€]{0,40}", stop in "[ab€]{1,4}", cuts in prop::collection::vec(1usize..6, 1..60),
        ) {
            let mut assembler = Assembler::new(vec![stop.clone()]);
            let (mut out, mut stopped, mut rest) = (String::new(), false, text.as_bytes());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || stopped { break; }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                let pushed = assembler.push(piece);
                out.push_str(&pushed.text);
                stopped = pushed.stopped;
                rest = tail;
            }
            if !stopped { out.push_str(&assembler.finish()); }
            let expected = text.split(stop.as_str()).next().unwrap();
            prop_assert_eq!(out, expected);
            prop_assert_eq!(stopped, text.contains(&stop));
        }
    }
}
