//! What can go wrong between a request and its answer.

use thiserror::Error;

/// Why a request failed. Front ends map the variants to their own codes.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Error {
    /// No model of that name is served.
    #[error("the model `{model}` is not served here; hint: {hint}")]
    ModelNotFound {
        /// What was asked for.
        model: String,
        /// What to do next.
        hint: String,
    },
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt_tokens} tokens, the context holds {context_tokens}; hint: shorten the prompt or start with a larger --ctx-size"
    )]
    ContextLengthExceeded {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens that one sequence can hold, prompt and answer together.
        context_tokens: u32,
    },
    /// A value of the request can't be used.
    #[error("{field}: {reason}")]
    InvalidRequest {
        /// The field, as a path of the normalised request's caller (for example `tools[0].parameters`).
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The waiting queue is full.
    #[error("{waiting} requests are waiting already; hint: try again in {retry_after_s} s")]
    QueueFull {
        /// Requests in the queue.
        waiting: u32,
        /// A sensible time to wait, s.
        retry_after_s: u32,
    },
    /// The engine is shutting down.
    #[error("shutting down")]
    ShuttingDown,
    /// The model can't do that (for example embeddings from a chat model).
    #[error("{0}")]
    Unsupported(String),
    /// Our own fault or llama.cpp's: the request can't be completed.
    #[error("inference failed: {0}")]
    Inference(String),
    /// The model file can't be used.
    #[error("{0}")]
    Load(String),
    /// The machine that worked on the request is gone, and no other can go on.
    #[error("{0}")]
    Lost(String),
}

impl Error {
    /// An [`Error::InvalidRequest`] at `field`.
    #[must_use]
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidRequest {
            field: field.into(),
            reason: reason.into(),
        }
    }
}
