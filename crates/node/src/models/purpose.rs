//! What models are asked for, and by which names.

use engine::{Error, ModelInfo};

/// What a request needs a model for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Text.
    Generate,
    /// Embeddings.
    Embed,
}

impl Purpose {
    /// Whether a model can do it.
    pub(crate) fn fits(self, info: &ModelInfo) -> bool {
        match self {
            Self::Generate => info.generates,
            Self::Embed => info.embeds,
        }
    }

    /// Refuses a model that can't do it.
    pub(crate) fn check(self, info: &ModelInfo) -> Result<(), Error> {
        match self {
            Self::Generate if !info.generates => Err(Error::Unsupported(format!(
                "`{}` makes embeddings and generates no text",
                info.name
            ))),
            Self::Embed if !info.embeds => Err(Error::Unsupported(format!(
                "`{}` makes no embeddings; hint: serve an embedding model",
                info.name
            ))),
            _ => Ok(()),
        }
    }
}

/// Whether a user who writes `asked` means the model `name`.
pub(crate) fn is_called(name: &str, asked: &str) -> bool {
    let asked = asked.to_lowercase();
    let stem = asked.strip_suffix(".gguf").unwrap_or(&asked);
    name.to_lowercase() == stem
}

/// Whether the best model is asked for, whatever it is called.
pub(crate) fn is_auto(asked: &str) -> bool {
    asked.is_empty() || asked.eq_ignore_ascii_case("auto")
}
