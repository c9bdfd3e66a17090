//! `/v1/tokenize`, `/v1/detokenize` and `/health`: small routes outside OpenAI's API.

use engine::TokenId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::chat::{ChatMessage, ChatTool};
use super::input::{Tokens, objects_only};

/// Text to turn into tokens: exactly one of `content`, `prompt` (the same) and `messages`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self")]
pub struct TokenizeRequest {
    /// Name of a model; left out or `auto`: the largest that is loaded, here or in the mesh.
    #[serde(default)]
    pub model: Option<String>,
    /// Text.
    #[serde(default)]
    pub content: Option<String>,
    /// Text, vLLM's name.
    #[serde(default)]
    pub prompt: Option<String>,
    /// A conversation; the model's template is applied.
    #[serde(default)]
    pub messages: Option<Vec<ChatMessage>>,
    /// Tools for the template; only with `messages`.
    #[serde(default)]
    pub tools: Option<Vec<ChatTool>>,
    /// Add what the model wants around a text; on by default, off for `messages`, whose template
    /// does that.
    #[serde(default)]
    pub add_special: Option<bool>,
    /// Recognise special tokens inside the text; on by default.
    #[serde(default)]
    pub parse_special: Option<bool>,
    /// Also send the text of each token.
    #[serde(default)]
    pub with_pieces: Option<bool>,
}

/// Tokens of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TokenizeAnswer {
    /// The model whose tokens they are.
    pub model: String,
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// Their number.
    pub count: usize,
    /// Tokens that one sequence can hold.
    pub max_model_len: u32,
    /// The text of each token, as far as it is UTF-8; with `with_pieces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pieces: Option<Vec<String>>,
}

/// Tokens to turn into text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct DetokenizeRequest {
    /// Name of a model; left out or `auto`: the largest that is loaded, here or in the mesh.
    #[serde(default)]
    pub model: Option<String>,
    /// The tokens.
    #[schema(schema_with = crate::openapi::union::tokens)]
    pub tokens: Tokens,
}

/// Text of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DetokenizeAnswer {
    /// The model whose tokens they are.
    pub model: String,
    /// The text; bytes that are no UTF-8 become U+FFFD.
    pub content: String,
}

/// State of the server, for probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, `idle`, `loading`, `failed` or `shutting_down`.
    pub status: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Models that answer requests.
    pub models_ready: usize,
    /// Models that are being loaded.
    pub models_loading: usize,
    /// Models that could not be loaded.
    pub models_failed: usize,
}

objects_only!(TokenizeRequest, DetokenizeRequest);
