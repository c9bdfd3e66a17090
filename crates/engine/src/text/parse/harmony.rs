//! Reads OpenAI's channels (gpt-oss): `analysis` is reasoning, `final` content, and a message
//! to a function is a call, whose text is the arguments.

use super::counter::CallCounter;
use super::markers::{Found, find_first};
use super::{Piece, calls};

/// The tokens that structure an answer.
pub(in crate::text) const MARKERS: [&str; 7] = [
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
];

/// Longest header that is read, bytes; a real one has under 100.
const HEADER_BYTES_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Between messages.
    #[default]
    Outside,
    /// Role, channel, recipient.
    Header,
    Reasoning,
    Content,
    /// Arguments of a call; whether any text has come.
    Call(bool),
}

/// Reads one answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Harmony {
    state: State,
    header: String,
}

impl Harmony {
    /// Reads `text`; returns its end that may be part of a marker.
    pub(super) fn push(
        &mut self,
        mut text: String,
        calls: &mut CallCounter,
        out: &mut Vec<Piece>,
    ) -> String {
        loop {
            match find_first(&text, &MARKERS) {
                Found::At(at, marker) => {
                    self.text(&text[..at], calls, out);
                    self.marker(marker, calls, out);
                    text.drain(..at + marker.len());
                }
                Found::Perhaps(at) => {
                    self.text(&text[..at], calls, out);
                    text.drain(..at);
                    return text;
                }
            }
        }
    }

    /// The answer has ended; `rest` is what was held back: the beginning of a marker, which is
    /// no text if the answer was `cut` off.
    pub(super) fn finish(
        &mut self,
        rest: &str,
        cut: bool,
        calls: &mut CallCounter,
        out: &mut Vec<Piece>,
    ) {
        if !cut {
            self.text(rest, calls, out);
            self.end_message(calls, out);
        }
    }

    pub(super) fn in_reasoning(&self) -> bool {
        self.state == State::Reasoning
    }

    fn text(&mut self, text: &str, calls: &mut CallCounter, out: &mut Vec<Piece>) {
        if text.is_empty() {
            return;
        }
        match &mut self.state {
            State::Outside => {
                if !text.trim().is_empty() {
                    // Text without a header: a model that does not keep to the format.
                    self.state = State::Content;
                    append(out, Piece::Content(text.trim_start().to_owned()));
                }
            }
            State::Header => {
                self.header.push_str(text);
                if self.header.len() > HEADER_BYTES_MAX {
                    self.state = State::Content;
                    append(out, Piece::Content(std::mem::take(&mut self.header)));
                }
            }
            State::Reasoning => append(out, Piece::Reasoning(text.to_owned())),
            State::Content => append(out, Piece::Content(text.to_owned())),
            State::Call(any) => {
                *any = true;
                calls.emit(
                    calls::Delta {
                        index_in_answer: calls::NEXT,
                        arguments: text.to_owned(),
                        ..calls::Delta::default()
                    },
                    out,
                );
            }
        }
    }

    fn marker(&mut self, marker: &str, calls: &mut CallCounter, out: &mut Vec<Piece>) {
        match marker {
            "<|start|>" => {
                self.end_message(calls, out);
                self.state = State::Header;
            }
            "<|channel|>" => {
                if self.state != State::Header {
                    self.end_message(calls, out);
                    self.state = State::Header;
                }
                self.header.push(' ');
            }
            "<|constrain|>" if self.state == State::Header => self.header.push(' '),
            "<|message|>" => self.begin_message(calls, out),
            _ => self.end_message(calls, out),
        }
    }

    fn begin_message(&mut self, calls: &mut CallCounter, out: &mut Vec<Piece>) {
        let header = std::mem::take(&mut self.header);
        let recipient = header
            .split_whitespace()
            .find_map(|word| word.strip_prefix("to="))
            .map(|name| name.strip_prefix("functions.").unwrap_or(name))
            .filter(|name| !name.is_empty());
        self.state = match recipient {
            Some(name) => {
                calls.emit(
                    calls::Delta {
                        index_in_answer: calls::NEXT,
                        name: Some(name.to_owned()),
                        ..calls::Delta::default()
                    },
                    out,
                );
                State::Call(false)
            }
            None if header.split_whitespace().any(|word| word == "analysis") => State::Reasoning,
            None => State::Content,
        };
    }

    fn end_message(&mut self, calls: &mut CallCounter, out: &mut Vec<Piece>) {
        if self.state == State::Call(false) {
            self.text("{}", calls, out);
        }
        self.state = State::Outside;
        self.header.clear();
    }
}

fn append(out: &mut Vec<Piece>, piece: Piece) {
    match (out.last_mut(), piece) {
        (Some(Piece::Content(last)), Piece::Content(text))
        | (Some(Piece::Reasoning(last)), Piece::Reasoning(text)) => last.push_str(&text),
        (_, piece) => out.push(piece),
    }
}
