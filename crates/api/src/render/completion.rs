//! Completion answers: one JSON object, or chunks of the same shape.

use bytes::BytesMut;
use engine::{Delta, Event, FinishReason, Summary, TokenLogprob};
use futures::StreamExt;
use serde_json::{Map, Value};

use super::sse::{Chunks, Head};
use super::{Envelope, finish_reason, logprob, text_of};
use crate::error::ApiError;
use crate::generation::Observed;
use crate::openai::completion::{Completion, CompletionChoice, CompletionLogprobs};

/// Waits for the end of `events` and puts the whole answer together. `openings` has one text per
/// choice that comes before it: the prompt when it is to be echoed, else empty.
pub(crate) async fn whole(
    mut events: Observed,
    envelope: Envelope,
    openings: Vec<String>,
    with_logprobs: bool,
) -> Result<Completion, ApiError> {
    let mut choices: Vec<CompletionChoice> = (0..)
        .zip(openings)
        .map(|(index, text)| CompletionChoice {
            text,
            index,
            logprobs: with_logprobs.then(CompletionLogprobs::default),
            finish_reason: None,
        })
        .collect();
    let mut offsets = vec![0; choices.len()];
    let mut summary = Summary::default();
    while let Some(event) = events.next().await {
        match event? {
            Event::Started { .. } => {}
            Event::Delta { choice, delta } => {
                let index = choice as usize;
                if let (Some(choice), Some(offset)) =
                    (choices.get_mut(index), offsets.get_mut(index))
                {
                    choice.text.push_str(&delta.content);
                    if let Some(list) = &mut choice.logprobs {
                        append(list, delta.logprobs, offset);
                    }
                }
            }
            Event::Finished { choice, reason } => {
                if let Some(choice) = choices.get_mut(choice as usize) {
                    choice.finish_reason = Some(finish_reason(reason));
                }
            }
            Event::Done(done) => summary = done,
        }
    }
    Ok(Completion {
        id: envelope.id,
        object: "text_completion",
        created: envelope.created,
        model: envelope.model,
        system_fingerprint: envelope.fingerprint,
        choices,
        usage: Some((&summary.usage).into()),
        timings: Some((&summary).into()),
    })
}

/// Adds tokens to `list`; `offset` is the length so far, characters.
fn append(list: &mut CompletionLogprobs, tokens: Vec<TokenLogprob>, offset: &mut u32) {
    for token in tokens {
        let text = text_of(&token.bytes);
        list.text_offset.push(*offset);
        let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        *offset = offset.saturating_add(length);
        list.tokens.push(text);
        list.token_logprobs.push(logprob(token.logprob));
        let top: Map<String, Value> = token
            .top
            .iter()
            .map(|(_, bytes, value)| (text_of(bytes), number(logprob(*value))))
            .collect();
        list.top_logprobs.push(top);
    }
}

/// `value` with its own few digits; widened to f64 it would have many more.
fn number(value: f32) -> Value {
    let wide = value.to_string().parse().unwrap_or(f64::from(value));
    Value::from(wide)
}

/// Writes completion chunks.
pub(crate) struct CompletionChunks {
    head: Head,
    openings: Vec<String>,
    offsets: Vec<u32>,
    with_logprobs: bool,
}

impl CompletionChunks {
    pub(crate) fn new(
        envelope: &Envelope,
        openings: Vec<String>,
        with_logprobs: bool,
        with_usage: bool,
    ) -> Self {
        Self {
            head: Head::new(envelope, "text_completion", with_usage),
            offsets: vec![0; openings.len()],
            openings,
            with_logprobs,
        }
    }
}

fn choice(index: u32, text: String) -> CompletionChoice {
    CompletionChoice {
        text,
        index,
        logprobs: None,
        finish_reason: None,
    }
}

impl Chunks for CompletionChunks {
    fn head(&self) -> &Head {
        &self.head
    }

    fn open(&mut self, out: &mut BytesMut) {
        for (index, text) in (0..).zip(std::mem::take(&mut self.openings)) {
            if !text.is_empty() {
                self.head.write(&choice(index, text), None, out);
            }
        }
    }

    fn delta(&mut self, index: u32, delta: Delta, out: &mut BytesMut) {
        let mut choice = choice(index, delta.content);
        if self.with_logprobs
            && !delta.logprobs.is_empty()
            && let Some(offset) = self.offsets.get_mut(index as usize)
        {
            let mut list = CompletionLogprobs::default();
            append(&mut list, delta.logprobs, offset);
            choice.logprobs = Some(list);
        }
        if !choice.text.is_empty() || choice.logprobs.is_some() {
            self.head.write(&choice, None, out);
        }
    }

    fn finish(
        &mut self,
        index: u32,
        reason: FinishReason,
        summary: Option<&Summary>,
        out: &mut BytesMut,
    ) {
        let choice = CompletionChoice {
            finish_reason: Some(finish_reason(reason)),
            ..choice(index, String::new())
        };
        self.head.write(&choice, summary, out);
    }
}
