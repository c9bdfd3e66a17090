//! A thin safe layer over llama.cpp: backend, model, vocabulary, context, batch, sampler chain,
//! hidden states in and out of a part of a model.
//!
//! The one crate with `unsafe`. It owns pointers and lifetimes and decides nothing: what to
//! batch, whom to serve and how to sample is its callers' business. It wraps only what they use.
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod backend;
mod batch;
mod context;
mod dequantize;
mod error;
mod huge_pages;
mod layer_hook;
mod model;
mod order;
mod sampler;
mod threadpool;
mod vocabulary;

pub use backend::{Device, DeviceKind, cpu_features_missing, devices, init, row_group};
pub use batch::Batch;
pub use context::{Context, ContextParams, KvType, Pooling};
pub use dequantize::{DequantizeError, dequantize};
pub use error::{DecodeError, Error};
pub use layer_hook::LayerHook;
pub use model::{Model, ModelParams};
pub use sampler::{DryParams, PenaltyParams, Sampler, SamplerStage};
pub use threadpool::Threadpool;
pub use vocabulary::Vocabulary;

/// A token id.
pub type Token = i32;
/// A sequence id: `0..n_seq_max`.
pub type SeqId = i32;
/// A position within a sequence.
pub type Pos = i32;
