//! Large language models for Rust programs: in this process, or on any OpenAI-compatible server,
//! behind one [`Engine`].
//!
//! ```
//! # #[cfg(feature = "solo")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use mesh_llm::{Engine, Message};
//!
//! let engine = Engine::starter().await?; // or solo(path), connect(url), auto(path)
//! let answer = engine
//!     .chat([Message::user("What is mesh-llm?")])
//!     .temperature(0.0)
//!     .max_tokens(40)
//!     .text()
//!     .await?;
//! assert!(!answer.is_empty());
//! # Ok(())
//! # })
//! # }
//! # #[cfg(not(feature = "solo"))]
//! # fn main() {}
//! ```
//!
//! Every answer is a stream of typed [`Event`]s that ends with the token counts. What goes wrong
//! is an [`Error`], never text inside the answer.
//!
//! Without the cargo feature `solo` nothing is compiled but [`Engine::connect`], and no C++
//! compiler is needed.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod engine;
mod error;
mod event;
mod generation;
mod local;
mod remote;

#[cfg(feature = "solo")]
pub use crate::engine::{Auto, STARTER, STARTER_NAME, Solo};
pub use crate::engine::{Connect, Engine};
pub use crate::error::Error;
pub use crate::event::{Event, Events, Reply, TokenLogprob};
pub use crate::generation::Generation;

pub use ::engine::{
    Embeddings, FinishReason, Message, Role, Tool, ToolCall, ToolCallDelta, ToolChoice, Usage,
};
pub use serde_json::{Value, json};
