//! Chat answers: one JSON object, or chunks.

use bytes::BytesMut;
use engine::{
    Delta, Event, FinishReason, Input, Request, Summary, TokenLogprob, ToolCallDelta, ToolChoice,
};
use futures::StreamExt;

use super::sse::{Chunks, Head};
use super::{Envelope, finish_reason, logprob, text_of};
use crate::error::ApiError;
use crate::generation::Observed;
use crate::openai::chat::{
    AnswerFunction, AnswerMessage, AnswerToolCall, ChatChoice, ChatChunkChoice, ChatCompletion,
    ChatDelta, ChatFunctionDelta, ChatLogprobs, ChatTokenLogprob, ChatToolCallDelta,
    ChatTopLogprob,
};

/// What a request asked for, as far as it shapes the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) choices: u32,
    pub(crate) logprobs: bool,
    /// The answer must be a call: it has no text, not even an empty one.
    pub(crate) call: bool,
}

impl Asked {
    pub(crate) fn of(request: &Request) -> Self {
        let call = match &request.input {
            Input::Chat(chat) => matches!(
                chat.tool_choice,
                ToolChoice::Required | ToolChoice::Named(_)
            ),
            Input::Text(_) | Input::Tokens(_) => false,
        };
        Self {
            choices: request.n,
            logprobs: request.logprobs.is_some(),
            call,
        }
    }
}

/// Waits for the end of `events` and puts the whole answer together.
pub(crate) async fn whole(
    mut events: Observed,
    envelope: Envelope,
    asked: Asked,
) -> Result<ChatCompletion, ApiError> {
    let mut drafts: Vec<Draft> = (0..asked.choices).map(|_| Draft::default()).collect();
    let mut summary = Summary::default();
    while let Some(event) = events.next().await {
        match event? {
            Event::Started { .. } => {}
            Event::Delta { choice, delta } => {
                if let Some(draft) = drafts.get_mut(choice as usize) {
                    draft.push(delta, asked.logprobs);
                }
            }
            Event::Finished { choice, reason } => {
                if let Some(draft) = drafts.get_mut(choice as usize) {
                    draft.reason = Some(reason);
                }
            }
            Event::Done(done) => summary = done,
        }
    }
    Ok(ChatCompletion {
        id: envelope.id,
        object: "chat.completion",
        created: envelope.created,
        model: envelope.model,
        system_fingerprint: envelope.fingerprint,
        choices: (0..)
            .zip(drafts)
            .map(|(index, draft)| draft.finish(index, asked))
            .collect(),
        usage: (&summary.usage).into(),
        timings: (&summary).into(),
    })
}

/// A choice that grows.
#[derive(Default)]
struct Draft {
    content: String,
    reasoning: String,
    calls: Vec<AnswerToolCall>,
    logprobs: Vec<ChatTokenLogprob>,
    reason: Option<FinishReason>,
}

impl Draft {
    fn push(&mut self, delta: Delta, with_logprobs: bool) {
        self.content.push_str(&delta.content);
        self.reasoning.push_str(&delta.reasoning);
        for piece in delta.tool_calls {
            self.push_call(piece);
        }
        if with_logprobs {
            self.logprobs
                .extend(delta.logprobs.into_iter().map(token_logprob));
        }
    }

    /// Pieces of a call come in order; a new index begins a new call.
    fn push_call(&mut self, piece: ToolCallDelta) {
        let index = piece.index as usize;
        if index >= self.calls.len() {
            self.calls.push(AnswerToolCall {
                id: String::new(),
                kind: "function",
                function: AnswerFunction::default(),
            });
        }
        let place = index.min(self.calls.len() - 1);
        let call = &mut self.calls[place];
        if let Some(id) = piece.id {
            call.id = id;
        }
        if let Some(name) = piece.name {
            call.function.name.push_str(&name);
        }
        call.function.arguments.push_str(&piece.arguments);
    }

    fn finish(self, index: u32, asked: Asked) -> ChatChoice {
        let only_calls = self.content.is_empty() && (asked.call || !self.calls.is_empty());
        ChatChoice {
            index,
            message: AnswerMessage {
                role: "assistant",
                content: (!only_calls).then_some(self.content),
                reasoning_content: (!self.reasoning.is_empty()).then_some(self.reasoning),
                refusal: None,
                tool_calls: self.calls,
            },
            logprobs: asked.logprobs.then_some(ChatLogprobs {
                content: self.logprobs,
                refusal: None,
            }),
            finish_reason: finish_reason(self.reason.unwrap_or(FinishReason::Stop)),
        }
    }
}

fn token_logprob(token: TokenLogprob) -> ChatTokenLogprob {
    ChatTokenLogprob {
        token: text_of(&token.bytes),
        logprob: logprob(token.logprob),
        bytes: token.bytes,
        top_logprobs: token
            .top
            .into_iter()
            .map(|(_, bytes, value)| ChatTopLogprob {
                token: text_of(&bytes),
                logprob: logprob(value),
                bytes,
            })
            .collect(),
    }
}

/// Writes chat chunks.
pub(crate) struct ChatChunks {
    head: Head,
    asked: Asked,
}

impl ChatChunks {
    pub(crate) fn new(envelope: &Envelope, asked: Asked, with_usage: bool) -> Self {
        Self {
            head: Head::new(envelope, "chat.completion.chunk", with_usage),
            asked,
        }
    }

    fn choice(
        &self,
        index: u32,
        delta: ChatDelta,
        logprobs: Option<ChatLogprobs>,
    ) -> ChatChunkChoice {
        ChatChunkChoice {
            index,
            delta,
            logprobs,
            finish_reason: None,
        }
    }
}

impl Chunks for ChatChunks {
    fn head(&self) -> &Head {
        &self.head
    }

    fn open(&mut self, out: &mut BytesMut) {
        for index in 0..self.asked.choices {
            let delta = ChatDelta {
                role: Some("assistant"),
                content: (!self.asked.call).then(String::new),
                ..ChatDelta::default()
            };
            self.head.write(&self.choice(index, delta, None), None, out);
        }
    }

    fn delta(&mut self, index: u32, delta: Delta, out: &mut BytesMut) {
        let logprobs = (self.asked.logprobs && !delta.logprobs.is_empty()).then(|| ChatLogprobs {
            content: delta.logprobs.into_iter().map(token_logprob).collect(),
            refusal: None,
        });
        let news = ChatDelta {
            content: (!delta.content.is_empty()).then_some(delta.content),
            reasoning_content: (!delta.reasoning.is_empty()).then_some(delta.reasoning),
            tool_calls: delta.tool_calls.into_iter().map(call_delta).collect(),
            ..ChatDelta::default()
        };
        if news == ChatDelta::default() && logprobs.is_none() {
            return;
        }
        self.head
            .write(&self.choice(index, news, logprobs), None, out);
    }

    fn finish(
        &mut self,
        index: u32,
        reason: FinishReason,
        summary: Option<&Summary>,
        out: &mut BytesMut,
    ) {
        let choice = ChatChunkChoice {
            finish_reason: Some(finish_reason(reason)),
            ..self.choice(index, ChatDelta::default(), None)
        };
        self.head.write(&choice, summary, out);
    }
}

fn call_delta(piece: ToolCallDelta) -> ChatToolCallDelta {
    ChatToolCallDelta {
        index: piece.index,
        kind: piece.id.is_some().then_some("function"),
        id: piece.id,
        function: ChatFunctionDelta {
            name: piece.name,
            arguments: piece.arguments,
        },
    }
}
