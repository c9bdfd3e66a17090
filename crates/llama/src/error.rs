//! What llama.cpp can refuse.

use std::path::PathBuf;

/// Why a model, context or sampler could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// llama.cpp could not load the file; `reason` is its last error line.
    #[error("llama.cpp can't load {}: {reason}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// llama.cpp's last error lines.
        reason: String,
    },
    /// Loading was stopped by the progress callback.
    #[error("loading was cancelled")]
    Cancelled,
    /// llama.cpp could not make a context.
    #[error("llama.cpp can't make a context: {0}")]
    Context(String),
    /// A path or text holds a NUL byte, or is longer than llama.cpp can take.
    #[error("llama.cpp can't take this text: {0}")]
    Text(&'static str),
    /// The model has no vocabulary.
    #[error("the model has no vocabulary")]
    NoVocabulary,
    /// No such device.
    #[error("no device named `{name}`; hint: there are {known}")]
    Device {
        /// What was asked for.
        name: String,
        /// What there is, comma-separated.
        known: String,
    },
    /// Hidden states can't be put into this model or taken out of it.
    #[error("no hidden states: {0}")]
    Hidden(&'static str),
    /// A sampler stage was refused.
    #[error("llama.cpp refused the sampler `{0}`")]
    Sampler(&'static str),
}

/// Why a batch was not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No room in the KV cache; the memory is as before the call.
    #[error("no room in the KV cache")]
    NoKvSlot,
    /// Stopped by the abort callback.
    #[error("aborted")]
    Aborted,
    /// llama.cpp refuses the batch.
    #[error("invalid batch")]
    InvalidBatch,
    /// The graph ran, but gave or took no hidden states at the named nodes. The memory holds the rows.
    #[error("llama.cpp's graph has no hidden states at the expected place")]
    NoHiddenState,
    /// A fatal error inside llama.cpp.
    #[error("llama.cpp failed with code {0}")]
    Fatal(i32),
}
