//! From the decode thread's messages to the events of a request: the half outside that thread.

use std::collections::VecDeque;

use futures::stream;
use tokio::sync::mpsc;

use super::choice::{Figures, Piece};
use crate::text::{self, OutputParser};
use crate::{Delta, Error, Event, EventStream, FinishReason, Summary};

/// State of one request's stream.
struct Generation {
    pieces: mpsc::Receiver<Piece>,
    /// One per choice.
    parsers: Vec<OutputParser>,
    open_choices: usize,
    prompt_tokens: u32,
    summary: Summary,
    /// Comes right after the start.
    replayed: Vec<Piece>,
    ready: VecDeque<Result<Event, Error>>,
    ended: bool,
}

/// What a resumed request begins with.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// What the answer's tokens from elsewhere lead to.
    pub(super) pieces: Vec<Piece>,
    /// Choices of which nothing more is said.
    pub(super) finished_choices: usize,
    /// Their tokens.
    pub(super) finished_tokens: u32,
    /// No choice goes on: nothing will come from the decode thread.
    pub(super) starts: bool,
}

/// The events of a request with one parser per choice.
pub(super) fn events(
    pieces: mpsc::Receiver<Piece>,
    parsers: Vec<OutputParser>,
    prompt_tokens: u32,
    replayed: Replayed,
) -> EventStream {
    let mut generation = Generation {
        pieces,
        open_choices: parsers.len().saturating_sub(replayed.finished_choices),
        parsers,
        prompt_tokens,
        summary: Summary::default(),
        replayed: replayed.pieces,
        ready: VecDeque::new(),
        ended: false,
    };
    generation.summary.usage.completion_tokens = replayed.finished_tokens;
    if replayed.starts {
        generation.take(Piece::Started {
            cached_tokens: 0,
            queue_ms: 0.0,
        });
        if generation.open_choices == 0 {
            generation.end();
        }
    }
    Box::pin(stream::unfold(generation, |mut generation| async move {
        let event = generation.next().await?;
        Some((event, generation))
    }))
}

impl Generation {
    async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match self.pieces.recv().await {
                Some(piece) => self.take(piece),
                None => self.fail(Error::Inference("the engine stopped in mid-answer".into())),
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.ended = true;
        self.ready.push_back(Err(error));
    }

    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Started {
                cached_tokens,
                queue_ms,
            } => {
                let usage = &mut self.summary.usage;
                usage.prompt_tokens = self.prompt_tokens;
                usage.cached_tokens = cached_tokens;
                self.summary.timings.queue_ms = queue_ms;
                let prompt_tokens = self.prompt_tokens;
                self.ready.push_back(Ok(Event::Started {
                    prompt_tokens,
                    cached_tokens,
                }));
                for piece in std::mem::take(&mut self.replayed) {
                    self.take(piece);
                }
            }
            Piece::Token {
                choice,
                token,
                text,
                logprob,
            } => {
                let Some(parser) = self.parsers.get_mut(choice as usize) else {
                    return;
                };
                let mut delta = Delta {
                    tokens: vec![token],
                    logprobs: Vec::from_iter(logprob),
                    ..Delta::default()
                };
                self.summary.usage.reasoning_tokens += u32::from(parser.in_reasoning());
                collect(&mut delta, parser.push(&text));
                self.ready.push_back(Ok(Event::Delta { choice, delta }));
            }
            Piece::Finished {
                choice,
                text,
                reason,
                figures,
            } => {
                self.finish(choice, &text, reason, figures);
            }
            Piece::Failed(error) => self.fail(error),
        }
    }

    fn finish(&mut self, choice: u32, text: &str, reason: FinishReason, figures: Figures) {
        let Some(parser) = self.parsers.get_mut(choice as usize) else {
            return;
        };
        let mut delta = Delta::default();
        collect(&mut delta, parser.push(text));
        collect(&mut delta, parser.finish(reason));
        if delta != Delta::default() {
            self.ready.push_back(Ok(Event::Delta { choice, delta }));
        }
        let called = parser.called_tools() && reason == FinishReason::Stop;
        let reason = if called {
            FinishReason::ToolCalls
        } else {
            reason
        };
        self.ready.push_back(Ok(Event::Finished { choice, reason }));

        let usage = &mut self.summary.usage;
        usage.completion_tokens += figures.generated;
        usage.drafted_tokens += figures.drafted;
        usage.accepted_tokens += figures.accepted;
        let timings = &mut self.summary.timings;
        timings.prompt_ms = timings.prompt_ms.max(figures.prompt_ms);
        timings.decode_ms = timings.decode_ms.max(figures.decode_ms);
        self.open_choices = self.open_choices.saturating_sub(1);
        if self.open_choices == 0 {
            self.end();
        }
    }

    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.ready.push_back(Ok(Event::Done(self.summary.clone())));
        }
    }
}

/// Adds what a parser gave to a delta.
fn collect(delta: &mut Delta, pieces: Vec<text::Piece>) {
    for piece in pieces {
        match piece {
            text::Piece::Content(text) => delta.content.push_str(&text),
            text::Piece::Reasoning(text) => delta.reasoning.push_str(&text),
            text::Piece::ToolCall(call) => delta.tool_calls.push(call),
        }
    }
}
