//! What a model is for, by its header: text, or vectors of texts. What can't be served is refused here, before any
//! weight is read.

use gguf::Metadata;
use llama::Pooling;

use crate::Error;

/// Architectures that attend in both directions and keep nothing of a text: all they can give is vectors, also
/// where a file does not say how to make them.
const BOTH_DIRECTIONS: [&str; 9] = [
    "bert",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
];

/// Architectures that llama.cpp evaluates in two graphs, an encoder's and a decoder's. Asked for the second one
/// alone, it ends the process.
const WITH_ENCODER: [&str; 4] = ["dflash", "eagle3", "t5", "t5encoder"];

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It writes text.
    Text,
    /// It makes one vector of a text, by joining hidden states so.
    Vectors(Pooling),
}

impl Purpose {
    /// What the model with this header is for.
    ///
    /// # Errors
    /// [`Error::Load`] if that is nothing that is served here, or can't be told.
    pub(super) fn of(metadata: &Metadata) -> Result<Self, Error> {
        let load = |e: gguf::KeyError| Error::Load(e.to_string());
        let architecture = metadata.architecture().map_err(load)?;
        if WITH_ENCODER.contains(&architecture) {
            return Err(has_encoder(architecture));
        }
        let pooling = match metadata.pooling().map_err(load)? {
            None | Some(gguf::Pooling::None) => None,
            Some(gguf::Pooling::Mean) => Some(Pooling::Mean),
            Some(gguf::Pooling::Cls) => Some(Pooling::First),
            Some(gguf::Pooling::Last) => Some(Pooling::Last),
            Some(gguf::Pooling::Rank) => {
                return Err(Error::Load(
                    "the model ranks texts (pooling type `rank`): rerankers are not served; \
                     hint: take an embedding model"
                        .into(),
                ));
            }
        };
        Ok(match pooling {
            Some(pooling) => Self::Vectors(pooling),
            None if BOTH_DIRECTIONS.contains(&architecture) => Self::Vectors(Pooling::Mean),
            None => Self::Text,
        })
    }

    /// Whether it makes vectors.
    pub(super) fn embeds(self) -> bool {
        matches!(self, Self::Vectors(_))
    }
}

/// Why a model with an encoder is refused.
pub(super) fn has_encoder(architecture: &str) -> Error {
    Error::Load(format!(
        "models with an encoder (`{architecture}`) are not served; \
         hint: take one that only decodes, or an embedding model"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose(architecture: &str, pooling: Option<u32>) -> Result<Purpose, String> {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", architecture);
        if let Some(pooling) = pooling {
            metadata.set(format!("{architecture}.pooling_type"), pooling);
        }
        Purpose::of(&metadata).map_err(|e| e.to_string())
    }

    #[test]
    fn pooling_and_architecture_decide() {
        assert_eq!(purpose("qwen3", None), Ok(Purpose::Text));
        assert_eq!(purpose("qwen3", Some(0)), Ok(Purpose::Text));
        let vectors = |pooling| Ok::<_, String>(Purpose::Vectors(pooling));
        assert_eq!(purpose("qwen3", Some(1)), vectors(Pooling::Mean));
        assert_eq!(purpose("bert", Some(2)), vectors(Pooling::First));
        assert_eq!(purpose("qwen3", Some(3)), vectors(Pooling::Last));
        for architecture in BOTH_DIRECTIONS {
            assert_eq!(purpose(architecture, None), vectors(Pooling::Mean));
            assert_eq!(purpose(architecture, Some(0)), vectors(Pooling::Mean));
        }
    }

    #[test]
    fn what_is_not_served_is_refused() {
        let refused = |architecture, pooling| purpose(architecture, pooling).unwrap_err();
        for architecture in WITH_ENCODER {
            // Whatever else the header says.
            for pooling in [None, Some(1)] {
                assert!(refused(architecture, pooling).contains("encoder"));
            }
        }
        for architecture in ["bert", "qwen3"] {
            assert!(refused(architecture, Some(4)).contains("rerankers"));
        }
    }
}
