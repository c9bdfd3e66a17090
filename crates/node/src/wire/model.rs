//! [`engine::ModelInfo`] on the wire.

use engine::ModelInfo;
use mesh::announcement::{FINGERPRINT_BYTES_MAX, MODEL_NAME_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// Most bytes of an architecture's or a quantisation's name that are kept from a peer; usual ones have
/// some ten.
const KIND_BYTES_MAX: usize = 64;

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
            name: cut(w.name, MODEL_NAME_BYTES_MAX),
            architecture: cut(w.architecture, KIND_BYTES_MAX),
            quantization: cut(w.quantization, KIND_BYTES_MAX),
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
            fingerprint: cut(w.fingerprint, FINGERPRINT_BYTES_MAX),
        }
    }
}

/// The beginning of a text, without the room that the rest took: descriptions are kept.
fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text.shrink_to_fit();
    text
}
