//! `/v1/embeddings`: request and answer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::input::{Prompt, objects_only};

/// Texts to embed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct EmbeddingRequest {
    /// Text, texts, a list of token ids, or lists of them.
    #[schema(schema_with = crate::openapi::union::embedding_input)]
    pub input: Prompt,
    /// Name of an embedding model; left out or `auto`: the largest that is loaded, here or in the mesh.
    #[serde(default)]
    pub model: Option<String>,
    /// `float` or `base64` (little-endian 32-bit floats).
    #[serde(default)]
    #[schema(schema_with = crate::openapi::union::encoding_format)]
    pub encoding_format: Option<String>,
    /// Keep only so many leading numbers, scaled to unit length again. Meaningful for models that
    /// were trained for it; at most the model's width.
    #[serde(default, deserialize_with = "crate::openai::input::whole")]
    #[schema(minimum = 1)]
    pub dimensions: Option<i64>,
}

/// Embeddings, in the order of the inputs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EmbeddingList {
    /// `list`.
    pub object: &'static str,
    /// One for each input.
    pub data: Vec<Embedding>,
    /// The model that made them.
    pub model: String,
    /// Token counts.
    pub usage: EmbeddingUsage,
}

/// One embedding.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Embedding {
    /// `embedding`.
    pub object: &'static str,
    /// Index of the input.
    pub index: usize,
    /// The vector, of unit length.
    pub embedding: Vector,
}

/// A vector in the encoding that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// Little-endian 32-bit floats, Base64.
    Base64(String),
}

/// Token counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    /// Tokens of all inputs.
    pub prompt_tokens: u32,
    /// The same.
    pub total_tokens: u32,
}

objects_only!(EmbeddingRequest);
