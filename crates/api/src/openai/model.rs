//! `/v1/models`: what is served.

use serde::Serialize;
use utoipa::ToSchema;

/// The models that are ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// The models.
    pub data: Vec<Model>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Model {
    /// Name to use in requests.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// When it became ready, Unix seconds.
    pub created: u64,
    /// `mesh-llm`.
    pub owned_by: &'static str,
    /// What it is; an extension.
    pub meta: ModelMeta,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModelMeta {
    /// Architecture, for example `qwen3`.
    pub architecture: String,
    /// Quantisation, for example `Q4_K_M`.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Size of the tensors, bytes.
    pub size_bytes: u64,
    /// Tokens that one sequence can hold, prompt and answer together.
    pub context_tokens: u32,
    /// Context length that the model was trained for, tokens.
    pub trained_context_tokens: u32,
    /// Width of embeddings.
    pub embedding_width: u32,
    /// Size of the vocabulary, tokens.
    pub vocabulary_tokens: u32,
    /// Sequences that can run at the same time.
    pub slots: u32,
    /// What it can do: `chat`, `completion`, `embedding`, `tools`, `reasoning`.
    pub capabilities: Vec<&'static str>,
}

impl From<&engine::ModelInfo> for Model {
    fn from(info: &engine::ModelInfo) -> Self {
        let capabilities = [
            (info.generates, "chat"),
            (info.generates, "completion"),
            (info.embeds, "embedding"),
            (info.tools, "tools"),
            (info.reasoning, "reasoning"),
        ];
        Self {
            id: info.name.clone(),
            object: "model",
            created: info.created_unix_s,
            owned_by: "mesh-llm",
            meta: ModelMeta {
                architecture: info.architecture.clone(),
                quantization: info.quantization.clone(),
                parameters: info.parameters,
                size_bytes: info.size_bytes,
                context_tokens: info.context_tokens,
                trained_context_tokens: info.trained_context_tokens,
                embedding_width: info.embedding_width,
                vocabulary_tokens: info.vocabulary_tokens,
                slots: info.slots,
                capabilities: capabilities
                    .into_iter()
                    .filter_map(|(has, name)| has.then_some(name))
                    .collect(),
            },
        }
    }
}
