//! Owns the list of architectures that synthetic models can have.

use std::fmt;
use std::str::FromStr;

use gguf::Pooling;

/// A graph of llama.cpp, or a variant of one that needs other tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Architecture {
    /// `llama`, dense.
    Llama,
    /// `llama` with experts, as Mixtral.
    LlamaExperts,
    /// `qwen2`: biases on queries, keys and values.
    Qwen2,
    /// `qwen3`: norms on queries and keys.
    Qwen3,
    /// `qwen3moe`: every layer with experts.
    Qwen3Moe,
    /// `qwen35`: linear attention, full attention in every other layer here.
    Qwen35,
    /// `qwen35moe`: as qwen35, every layer with experts and a shared one.
    Qwen35Moe,
    /// `gemma2`: scaled embeddings, soft caps, sliding window in every other layer.
    Gemma2,
    /// `gemma3`: as gemma2 with norms on queries and keys; window in every other layer here.
    Gemma3,
    /// `phi3`: fused attention and feed-forward matrices.
    Phi3,
    /// `glm4`: norms after each half layer, rotary positions on half of each head.
    Glm4,
    /// `glm4moe`: a leading dense layer, then experts with a shared one, chosen with a bias.
    Glm4Moe,
    /// `mistral3`: attention that grows sharper with the position.
    Mistral3,
    /// `deepseek2`: compressed attention, a leading dense layer, then experts with a shared one.
    Deepseek2,
    /// `gpt-oss`: attention sinks, biases everywhere, window in every other layer.
    GptOss,
    /// `qwen3` that embeds: pooling of the last token.
    Qwen3Embedding,
    /// `bert` that embeds: learned positions, mean pooling.
    Bert,
    /// `nomic-bert` that embeds: rotary positions, mean pooling.
    NomicBert,
}

impl Architecture {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Llama,
        Self::LlamaExperts,
        Self::Qwen2,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Qwen35,
        Self::Qwen35Moe,
        Self::Gemma2,
        Self::Gemma3,
        Self::Phi3,
        Self::Glm4,
        Self::Glm4Moe,
        Self::Mistral3,
        Self::Deepseek2,
        Self::GptOss,
        Self::Qwen3Embedding,
        Self::Bert,
        Self::NomicBert,
    ];

    /// `general.architecture` in the file.
    #[must_use]
    pub fn gguf_name(self) -> &'static str {
        match self {
            Self::Llama | Self::LlamaExperts => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 | Self::Qwen3Embedding => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Qwen35 => "qwen35",
            Self::Qwen35Moe => "qwen35moe",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::Glm4 => "glm4",
            Self::Glm4Moe => "glm4moe",
            Self::Mistral3 => "mistral3",
            Self::Deepseek2 => "deepseek2",
            Self::GptOss => "gpt-oss",
            Self::Bert => "bert",
            Self::NomicBert => "nomic-bert",
        }
    }

    /// Name of this variant, unlike [`Architecture::gguf_name`] different for each.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LlamaExperts => "llama-experts",
            Self::Qwen3Embedding => "qwen3-embedding",
            other => other.gguf_name(),
        }
    }

    /// True for models that embed text and do not generate.
    #[must_use]
    pub fn is_embedding(self) -> bool {
        matches!(self, Self::Qwen3Embedding | Self::Bert | Self::NomicBert)
    }

    /// How real models of this kind become one vector per text; `None` for those that generate.
    pub(crate) fn pooling(self) -> Option<Pooling> {
        match self {
            Self::Qwen3Embedding => Some(Pooling::Last),
            Self::Bert | Self::NomicBert => Some(Pooling::Mean),
            _ => None,
        }
    }

    /// True for encoders without a KV cache.
    #[must_use]
    pub fn is_bert(self) -> bool {
        matches!(self, Self::Bert | Self::NomicBert)
    }

    /// True when there are experts in at least some layers.
    #[must_use]
    pub fn has_experts(self) -> bool {
        matches!(
            self,
            Self::LlamaExperts
                | Self::Qwen3Moe
                | Self::Qwen35Moe
                | Self::Glm4Moe
                | Self::Deepseek2
                | Self::GptOss
        )
    }

    /// True when most layers keep a state of fixed size instead of a KV cache.
    #[must_use]
    pub fn has_linear_attention(self) -> bool {
        matches!(self, Self::Qwen35 | Self::Qwen35Moe)
    }

    /// True when there may be layers that only draft tokens.
    #[must_use]
    pub fn may_draft(self) -> bool {
        matches!(
            self,
            Self::Qwen35 | Self::Qwen35Moe | Self::Glm4 | Self::Glm4Moe | Self::Deepseek2
        )
    }

    /// True when some layers see only the last tokens.
    #[must_use]
    pub fn has_window(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3 | Self::GptOss)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture {0:?}")]
pub struct UnknownArchitecture(String);

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().copied().find(|a| a.name() == text);
        found.ok_or_else(|| UnknownArchitecture(text.to_owned()))
    }
}
