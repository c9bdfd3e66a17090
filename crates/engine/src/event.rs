//! What a generation says while it runs, and when it ends.

use std::pin::Pin;

use futures::Stream;

use crate::{Error, TokenId};

/// Events of one request, in order. An `Err` is the last item.
///
/// Dropping the stream cancels the request; its slot is free within one scheduler step.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

/// One step of a request's life.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt has been evaluated; the first token is about to follow.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Of these, how many were found in the KV of earlier requests.
        cached_tokens: u32,
    },
    /// New output of one choice.
    Delta {
        /// Index of the choice.
        choice: u32,
        /// What is new.
        delta: Delta,
    },
    /// One choice has ended; no more deltas of it follow.
    Finished {
        /// Index of the choice.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// Everything has ended. Always the last event.
    Done(Summary),
}

/// New output of one choice. Empty parts are common.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    /// Text; whole UTF-8 characters only.
    pub content: String,
    /// Reasoning text, apart from the content.
    pub reasoning: String,
    /// Pieces of tool calls.
    pub tool_calls: Vec<ToolCallDelta>,
    /// The tokens behind this delta (they may run ahead of the text by a held-back piece).
    pub tokens: Vec<TokenId>,
    /// For each of `tokens`, when asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// A piece of a tool call. The first piece of a call carries `id` and `name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Index of the call within its choice.
    pub index: u32,
    /// Identifier, with the first piece.
    pub id: Option<String>,
    /// Function name, with the first piece.
    pub name: Option<String>,
    /// Next part of the arguments' JSON text.
    pub arguments: String,
}

/// Log-probability of a drawn token and of its alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// Its bytes; may be part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability under the model, before sampling settings.
    pub logprob: f32,
    /// The likeliest tokens at this place, likeliest first: token, bytes, logprob.
    pub top: Vec<(TokenId, Vec<u8>, f32)>,
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// End of text, or a stop string.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
    /// The model called tools.
    ToolCalls,
}

/// Figures of a finished request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Token counts.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
}

/// Token counts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, found in the KV of earlier requests.
    pub cached_tokens: u32,
    /// Generated tokens, all choices together.
    pub completion_tokens: u32,
    /// Of these, tokens of reasoning.
    pub reasoning_tokens: u32,
    /// Tokens drafted by speculation.
    pub drafted_tokens: u32,
    /// Drafted tokens that were accepted.
    pub accepted_tokens: u32,
}

/// Times of a request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    /// From submission until the prompt's evaluation began, ms.
    pub queue_ms: f64,
    /// Evaluation of the prompt, ms.
    pub prompt_ms: f64,
    /// From the first token to the last, ms.
    pub decode_ms: f64,
}

/// The answer to an [`crate::EmbedRequest`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    /// One vector of unit length per input, in order; its length is the model's width.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs together.
    pub prompt_tokens: u32,
}
