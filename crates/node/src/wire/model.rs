//! [`engine::ModelInfo`] on the wire.

use engine::ModelInfo;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ModelInfoWire {
    name: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    quantization: String,
    #[serde(default)]
    parameters: u64,
    #[serde(default)]
    size_bytes: u64,
    context_tokens: u32,
    #[serde(default)]
    trained_context_tokens: u32,
    #[serde(default)]
    embedding_width: u32,
    vocabulary_tokens: u32,
    #[serde(default)]
    slots: u32,
    generates: bool,
    embeds: bool,
    #[serde(default)]
    tools: bool,
    #[serde(default)]
    reasoning: bool,
    #[serde(default)]
    created_unix_s: u64,
    #[serde(default)]
    fingerprint: String,
}

impl From<&ModelInfo> for ModelInfoWire {
    fn from(i: &ModelInfo) -> Self {
        Self {
            name: i.name.clone(),
            architecture: i.architecture.clone(),
            quantization: i.quantization.clone(),
            parameters: i.parameters,
            size_bytes: i.size_bytes,
            context_tokens: i.context_tokens,
            trained_context_tokens: i.trained_context_tokens,
            embedding_width: i.embedding_width,
            vocabulary_tokens: i.vocabulary_tokens,
            slots: i.slots,
            generates: i.generates,
            embeds: i.embeds,
            tools: i.tools,
            reasoning: i.reasoning,
            created_unix_s: i.created_unix_s,
            fingerprint: i.fingerprint.clone(),
        }
    }
}

impl From<ModelInfoWire> for ModelInfo {
    fn from(w: ModelInfoWire) -> Self {
        Self {
            name: w.name,
            architecture: w.architecture,
            quantization: w.quantization,
            parameters: w.parameters,
            size_bytes: w.size_bytes,
            context_tokens: w.context_tokens,
            trained_context_tokens: w.trained_context_tokens,
            embedding_width: w.embedding_width,
            vocabulary_tokens: w.vocabulary_tokens,
            slots: w.slots,
            generates: w.generates,
            embeds: w.embeds,
            tools: w.tools,
            reasoning: w.reasoning,
            created_unix_s: w.created_unix_s,
            fingerprint: w.fingerprint,
        }
    }
}
