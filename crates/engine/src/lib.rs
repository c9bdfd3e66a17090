//! Runs models, whole or in parts: requests in, events out.
//!
//! Owns what happens between a normalised [`Request`] and its stream of [`Event`]s: chat
//! templates, constraints on the output, scheduling, sampling, tool-call and reasoning parsing.
//! Knows nothing of HTTP, of peers, or of any API dialect.
//!
//! With the feature `solo` (on by default) models run in-process on llama.cpp. Without it only
//! the types, templates, constraints and parsers are built, and no C++ compiler is needed.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod assembler;
pub mod backend;
pub mod error;
pub mod event;
#[cfg(feature = "solo")]
mod local;
pub mod request;
pub mod scheduler;
pub mod speculation;
#[cfg(feature = "solo")]
pub mod stage;
pub mod text;

pub use backend::{Backend, Load, ModelInfo};
pub use error::Error;
pub use event::{
    Delta, Embeddings, Event, EventStream, FinishReason, Summary, Timings, TokenLogprob,
    ToolCallDelta, Usage,
};
#[cfg(feature = "solo")]
pub use local::{
    Draft, Engine, LoadOptions, ModelSource, Placement, Vacancy, gpu_bytes_free, gpus,
    memory_needed, native_kernels, place, stage_options, threads_default,
};
pub use request::{
    Chat, EmbedInput, EmbedRequest, Format, Input, Limits, Message, Mirostat, Request, Resumed,
    Role, Sampling, TokenId, Tool, ToolCall, ToolChoice,
};
