//! [`engine::Error`] on the wire.

use engine::Error;
use serde::{Deserialize, Serialize};

/// Most characters of a message that are kept from a peer.
const TEXT_CHARS_MAX: usize = 2_000;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ErrorWire {
    ModelNotFound {
        model: String,
        hint: String,
    },
    ContextLengthExceeded {
        prompt_tokens: u32,
        context_tokens: u32,
    },
    InvalidRequest {
        field: String,
        reason: String,
    },
    QueueFull {
        waiting: u32,
        retry_after_s: u32,
    },
    ShuttingDown,
    Unsupported(String),
    Inference(String),
    Lost(String),
}

impl From<&Error> for ErrorWire {
    fn from(error: &Error) -> Self {
        match error {
            Error::ModelNotFound { model, hint } => Self::ModelNotFound {
                model: model.clone(),
                hint: hint.clone(),
            },
            Error::ContextLengthExceeded {
                prompt_tokens,
                context_tokens,
            } => Self::ContextLengthExceeded {
                prompt_tokens: *prompt_tokens,
                context_tokens: *context_tokens,
            },
            Error::InvalidRequest { field, reason } => Self::InvalidRequest {
                field: field.clone(),
                reason: reason.clone(),
            },
            Error::QueueFull {
                waiting,
                retry_after_s,
            } => Self::QueueFull {
                waiting: *waiting,
                retry_after_s: *retry_after_s,
            },
            Error::ShuttingDown => Self::ShuttingDown,
            Error::Unsupported(text) => Self::Unsupported(text.clone()),
            Error::Inference(text) | Error::Load(text) => Self::Inference(text.clone()),
            Error::Lost(text) => Self::Lost(text.clone()),
        }
    }
}

impl From<ErrorWire> for Error {
    fn from(wire: ErrorWire) -> Self {
        let cut = |text: String| text.chars().take(TEXT_CHARS_MAX).collect::<String>();
        match wire {
            ErrorWire::ModelNotFound { model, hint } => Self::ModelNotFound {
                model: cut(model),
                hint: cut(hint),
            },
            ErrorWire::ContextLengthExceeded {
                prompt_tokens,
                context_tokens,
            } => Self::ContextLengthExceeded {
                prompt_tokens,
                context_tokens,
            },
            ErrorWire::InvalidRequest { field, reason } => Self::InvalidRequest {
                field: cut(field),
                reason: cut(reason),
            },
            ErrorWire::QueueFull {
                waiting,
                retry_after_s,
            } => Self::QueueFull {
                waiting,
                retry_after_s,
            },
            ErrorWire::ShuttingDown => Self::ShuttingDown,
            ErrorWire::Unsupported(text) => Self::Unsupported(cut(text)),
            ErrorWire::Inference(text) => Self::Inference(cut(text)),
            ErrorWire::Lost(text) => Self::Lost(cut(text)),
        }
    }
}
