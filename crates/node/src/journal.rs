//! What an ingress remembers of an answer that a peer makes, so that another host can go on with
//! it. Pure.
//!
//! A host that goes on is given the tokens of the answer so far. It says everything again from the
//! beginning: text is a function of tokens, so what the client has already is cut off here by its
//! length. Where text ends within a held-back piece or a tool call, the parser at the new host gets
//! to the same place by itself.

use engine::{Delta, Event, FinishReason, Request, Resumed, TokenId, ToolCallDelta};

/// Most choices of an answer that are followed; requests with more were refused before.
const CHOICES_MAX: usize = 1_024;

/// Most tool calls of one choice.
const CALLS_MAX: usize = 1_024;

/// Most tokens of a choice whose request names no end: longer than any context that hosts offer.
const TOKENS_MAX: usize = 1 << 20;

/// Most bytes of text per token, on average, and what may come beside: pieces of vocabularies have a
/// few hundred bytes at most, and a call's name and marks need no token of their own.
const TEXT_BYTES_PER_TOKEN_MAX: usize = 1_024;
const TEXT_BYTES_BESIDE: usize = 64 * 1_024;

/// Events without a token that an answer may have beside one per token: beginnings and ends of
/// choices, calls, and text that was held back.
const EVENTS_BESIDE: usize = 4 * CHOICES_MAX;

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Journal {
    request: Request,
    choices: Vec<Choice>,
    started: bool,
    /// Events and tokens of the present host.
    events: usize,
    tokens: usize,
}

/// What the client has of a choice, and what the present host has said.
#[derive(Debug, Default)]
struct Choice {
    sent: Said,
    said: Said,
    tokens: Vec<TokenId>,
    finished: bool,
}

/// Lengths: tokens, and bytes of text.
#[derive(Debug, Default, Clone)]
struct Said {
    tokens: usize,
    content: usize,
    reasoning: usize,
    calls: Vec<Call>,
}

#[derive(Debug, Default, Clone)]
struct Call {
    id: bool,
    name: bool,
    arguments: usize,
}

/// The host says something that does not go on from what another one said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Diverged {
    /// A choice or call that there can't be.
    #[error("it speaks of a choice or call that there is not")]
    Unknown,
    /// Other tokens or text than the first host.
    #[error("it goes on from another answer")]
    Other,
    /// More than the request asks for: a host could fill this node's memory with that.
    #[error("it says more than was asked for")]
    TooMuch,
}

impl Journal {
    /// Begins the journal of an answer. The request needs a seed if it draws.
    pub(crate) fn new(request: Request) -> Self {
        let choices = (request.n as usize).min(CHOICES_MAX);
        Self {
            choices: (0..choices).map(|_| Choice::default()).collect(),
            request,
            started: false,
            events: 0,
            tokens: 0,
        }
    }

    /// Whether the client has anything of the answer.
    pub(crate) fn has_begun(&self) -> bool {
        self.choices.iter().any(|choice| choice.sent.tokens > 0)
    }

    /// What to ask the next host for.
    pub(crate) fn resume(&mut self) -> Request {
        (self.events, self.tokens) = (0, 0);
        let mut request = self.request.clone();
        if self.has_begun() {
            let resumed = |choice: &Choice| Resumed {
                tokens: choice.tokens.clone(),
                finished: choice.finished,
            };
            request.resume = self.choices.iter().map(resumed).collect();
        }
        for choice in &mut self.choices {
            choice.said = Said::default();
            if choice.finished {
                // Nothing more is said of it.
                choice.said = choice.sent.clone();
            }
        }
        request
    }

    /// Takes in what the host says; gives what is new to the client.
    pub(crate) fn note(&mut self, event: Event) -> Result<Option<Event>, Diverged> {
        self.events += 1;
        if self.events > self.tokens.saturating_add(EVENTS_BESIDE) {
            return Err(Diverged::TooMuch);
        }
        match event {
            Event::Started { .. } => {
                Ok((!std::mem::replace(&mut self.started, true)).then_some(event))
            }
            Event::Delta { choice, delta } => {
                self.tokens = self.tokens.saturating_add(delta.tokens.len());
                let bounds = Bounds::of(&self.request);
                let delta = self.choice(choice)?.delta(delta, &bounds)?;
                Ok((delta != Delta::default()).then_some(Event::Delta { choice, delta }))
            }
            Event::Finished { choice, reason } => self.finish(choice, reason),
            Event::Done(_) => Ok(Some(event)),
        }
    }

    fn finish(&mut self, index: u32, reason: FinishReason) -> Result<Option<Event>, Diverged> {
        let choice = self.choice(index)?;
        let again = std::mem::replace(&mut choice.finished, true);
        Ok((!again).then_some(Event::Finished {
            choice: index,
            reason,
        }))
    }

    fn choice(&mut self, index: u32) -> Result<&mut Choice, Diverged> {
        let choice = usize::try_from(index).ok();
        choice
            .and_then(|index| self.choices.get_mut(index))
            .ok_or(Diverged::Unknown)
    }
}

/// What a request asks for at most.
struct Bounds {
    tokens_max: usize,
    alternatives_max: Option<usize>,
}

impl Bounds {
    fn of(request: &Request) -> Self {
        let usize_of = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let tokens_max = request.limits.max_tokens.map_or(TOKENS_MAX, usize_of);
        Self {
            tokens_max: tokens_max.min(TOKENS_MAX),
            alternatives_max: request.logprobs.map(usize_of),
        }
    }

    fn check(&self, choice: &Choice, delta: &Delta) -> Result<(), Diverged> {
        let tokens = choice.said.tokens.saturating_add(delta.tokens.len());
        let calls = delta.tool_calls.iter().map(|call| {
            let names = [&call.id, &call.name].into_iter().flatten();
            names.map(String::len).sum::<usize>() + call.arguments.len()
        });
        let text = delta.content.len() + delta.reasoning.len() + calls.sum::<usize>();
        let text_max = tokens.saturating_mul(TEXT_BYTES_PER_TOKEN_MAX) + TEXT_BYTES_BESIDE;
        let drawn = |logprob: &engine::TokenLogprob| {
            let alternatives = self
                .alternatives_max
                .is_some_and(|max| logprob.top.len() <= max);
            let mut pieces = logprob.top.iter().map(|(_, bytes, _)| bytes);
            alternatives
                && logprob.bytes.len() <= TEXT_BYTES_PER_TOKEN_MAX
                && pieces.all(|bytes| bytes.len() <= TEXT_BYTES_PER_TOKEN_MAX)
        };
        let kept = tokens <= self.tokens_max
            && choice.said.text().saturating_add(text) <= text_max
            && delta.logprobs.len() <= delta.tokens.len()
            && delta.logprobs.iter().all(drawn);
        kept.then_some(()).ok_or(Diverged::TooMuch)
    }
}

impl Said {
    /// Bytes of all text so far.
    fn text(&self) -> usize {
        let arguments = self.calls.iter().map(|call| call.arguments);
        self.content + self.reasoning + arguments.sum::<usize>()
    }
}

impl Choice {
    fn delta(&mut self, mut delta: Delta, bounds: &Bounds) -> Result<Delta, Diverged> {
        bounds.check(self, &delta)?;
        let known = self
            .sent
            .tokens
            .saturating_sub(self.said.tokens)
            .min(delta.tokens.len());
        let before = self.tokens.get(self.said.tokens..self.said.tokens + known);
        if before != delta.tokens.get(..known) {
            return Err(Diverged::Other);
        }
        self.said.tokens += delta.tokens.len();
        delta.tokens.drain(..known);
        delta.logprobs.drain(..known.min(delta.logprobs.len()));
        self.tokens.extend(&delta.tokens);
        self.sent.tokens += delta.tokens.len();

        cut(
            &mut delta.content,
            &mut self.said.content,
            &mut self.sent.content,
        )?;
        cut(
            &mut delta.reasoning,
            &mut self.said.reasoning,
            &mut self.sent.reasoning,
        )?;
        let mut calls = Vec::with_capacity(delta.tool_calls.len());
        for call in std::mem::take(&mut delta.tool_calls) {
            calls.extend(self.call(call)?);
        }
        delta.tool_calls = calls;
        Ok(delta)
    }

    fn call(&mut self, mut delta: ToolCallDelta) -> Result<Option<ToolCallDelta>, Diverged> {
        let index = delta.index as usize;
        if index >= CALLS_MAX {
            return Err(Diverged::Unknown);
        }
        for calls in [&mut self.said.calls, &mut self.sent.calls] {
            if calls.len() <= index {
                calls.resize(index + 1, Call::default());
            }
        }
        let (Some(said), Some(sent)) = (
            self.said.calls.get_mut(index),
            self.sent.calls.get_mut(index),
        ) else {
            return Err(Diverged::Unknown);
        };
        // A new host makes up another identifier; the client keeps the first.
        for (part, said, sent) in [
            (&mut delta.id, &mut said.id, &mut sent.id),
            (&mut delta.name, &mut said.name, &mut sent.name),
        ] {
            if part.is_some() {
                let again = *sent && !*said;
                (*said, *sent) = (true, true);
                if again {
                    *part = None;
                }
            }
        }
        cut(
            &mut delta.arguments,
            &mut said.arguments,
            &mut sent.arguments,
        )?;
        let empty = delta.id.is_none() && delta.name.is_none() && delta.arguments.is_empty();
        Ok((!empty).then_some(delta))
    }
}

/// Cuts off what the client has. `said`: bytes the host has said; `sent`: bytes the client has.
fn cut(text: &mut String, said: &mut usize, sent: &mut usize) -> Result<(), Diverged> {
    let known = sent.saturating_sub(*said).min(text.len());
    if !text.is_char_boundary(known) {
        return Err(Diverged::Other);
    }
    *said += text.len();
    text.drain(..known);
    *sent += text.len();
    Ok(())
}

#[cfg(test)]
mod tests;
