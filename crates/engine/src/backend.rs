//! What every way of running a model offers: whole, split, or on a peer.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::{EmbedRequest, Embeddings, Error, EventStream, Request, TokenId};

/// A model that answers requests.
///
/// Methods return quickly or await; none blocks its thread.
pub trait Backend: Send + Sync {
    /// What the model is; fixed for the backend's life.
    fn info(&self) -> &Arc<ModelInfo>;
    /// What it does at this moment.
    fn load(&self) -> Load;
    /// Starts a generation. Errors that are known before the first token come from here.
    fn generate(&self, request: Request) -> BoxFuture<'_, Result<EventStream, Error>>;
    /// Embeds texts; [`Error::Unsupported`] unless the model is an embedding model.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>>;
    /// Turns text into tokens. `add_special` adds what the model wants around a text (BOS, EOS);
    /// special tokens inside the text are recognised if `parse_special`.
    fn tokenize(
        &self,
        text: String,
        add_special: bool,
        parse_special: bool,
    ) -> BoxFuture<'_, Result<Vec<TokenId>, Error>>;
    /// The bytes of each token, special tokens spelled out.
    ///
    /// Fails with [`Error::InvalidRequest`] for a token outside the vocabulary.
    fn token_bytes(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Error>>;
    /// Renders a conversation with the model's template, as a generation would.
    fn render(&self, chat: crate::Chat) -> BoxFuture<'_, Result<String, Error>>;
    /// Stops: refuses new requests, lets running ones go on until `deadline`, ends the rest
    /// with [`Error::ShuttingDown`]. Returns when nothing runs any more.
    fn shutdown(&self, deadline: std::time::Instant) -> BoxFuture<'_, ()>;
}

/// What a model is.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Name under which it is served.
    pub name: String,
    /// Architecture of the GGUF (for example `qwen3`).
    pub architecture: String,
    /// Quantisation (for example `Q4_K_M`), as the file says.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Size of the tensors, bytes.
    pub size_bytes: u64,
    /// Tokens that one sequence can hold, prompt and answer together.
    pub context_tokens: u32,
    /// Context length that the model was trained for, tokens.
    pub trained_context_tokens: u32,
    /// Width of hidden states and of embeddings.
    pub embedding_width: u32,
    /// Size of the vocabulary, tokens.
    pub vocabulary_tokens: u32,
    /// Sequences that can run at the same time.
    pub slots: u32,
    /// Whether it generates text.
    pub generates: bool,
    /// Whether it makes embeddings.
    pub embeds: bool,
    /// Whether its template knows tools.
    pub tools: bool,
    /// Whether the model can reason apart from its answer.
    pub reasoning: bool,
    /// When it became ready, Unix seconds.
    pub created_unix_s: u64,
    /// Identity of the content: see `gguf`'s fingerprint; empty when unknown.
    pub fingerprint: String,
}

/// What a backend does at this moment, and has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Sequences that run.
    pub running: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
    /// KV cells in use, tokens.
    pub kv_used_tokens: u32,
    /// KV cells in all, tokens.
    pub kv_total_tokens: u32,
    /// Requests finished since the start.
    pub requests_total: u64,
    /// Requests cancelled by their consumer since the start.
    pub cancelled_total: u64,
    /// Prompt tokens since the start, cached ones included.
    pub prompt_tokens_total: u64,
    /// Of these, found in the KV of earlier requests.
    pub cached_tokens_total: u64,
    /// Generated tokens since the start.
    pub generated_tokens_total: u64,
    /// Tokens drafted by speculation since the start.
    pub drafted_tokens_total: u64,
    /// Drafted tokens accepted since the start.
    pub accepted_tokens_total: u64,
    /// Steps since the start: batches that were evaluated.
    pub steps_total: u64,
}
