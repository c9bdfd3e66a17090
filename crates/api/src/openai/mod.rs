//! Wire types of OpenAI's dialect, with the extensions that users of llama.cpp and vLLM know.
//!
//! Only shapes live here: what a value may be is checked, and turned into the engine's types, in
//! `convert`; answers are put together in `render`. Unknown fields are ignored, since clients
//! send many.

pub mod chat;
pub mod completion;
pub mod embedding;
pub mod error;
pub mod input;
pub mod model;
pub mod sampling;
pub mod token;
pub mod usage;
