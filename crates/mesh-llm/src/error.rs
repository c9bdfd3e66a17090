//! What can go wrong, the same for a model in this process and for one behind a URL.

use thiserror::Error;

/// Why a model could not be reached or did not answer.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The model can't be loaded.
    #[error(transparent)]
    Start(#[from] node::StartError),
    /// The URL can't be used.
    #[error("`{url}` is not a usable URL: {reason}; hint: for example http://127.0.0.1:9337")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there.
    #[error("no server answers at {url}: {reason}; hint: `mesh-llm` starts one")]
    Unreachable {
        /// Where.
        url: String,
        /// The system's reason.
        reason: String,
    },
    /// The server stayed silent for too long.
    #[error("the server said nothing for {silent_s} s")]
    Timeout {
        /// How long, s.
        silent_s: u64,
    },
    /// The connection broke before the answer was complete.
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
    /// The server wants another API key.
    #[error("not allowed: {message}; hint: set the server's API key with `api_key`")]
    Unauthorized {
        /// The server's words.
        message: String,
    },
    /// No model of that name is served.
    #[error("{message}")]
    ModelNotFound {
        /// Which, and what is served instead.
        message: String,
    },
    /// The prompt leaves no room for an answer.
    #[error("{message}")]
    ContextLengthExceeded {
        /// How long it is and how long it may be.
        message: String,
    },
    /// A value of the request can't be used.
    #[error("{message}")]
    InvalidRequest {
        /// Path of the field, where known.
        field: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// Too many requests wait already.
    #[error("{message}")]
    Overloaded {
        /// How many wait, or the server's words.
        message: String,
        /// A sensible time to wait, s.
        retry_after_s: Option<u32>,
    },
    /// The engine or server is about to stop.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The model or the server can't do that.
    #[error("{0}")]
    Unsupported(String),
    /// The engine failed.
    #[error("{0}")]
    Inference(String),
    /// The server refused or failed in a way that has no variant of its own.
    #[error("the server answered {status}: {message}")]
    Server {
        /// HTTP status.
        status: u16,
        /// The server's error code, if any.
        code: Option<String>,
        /// The server's words.
        message: String,
    },
    /// The server's answer is not what an OpenAI-compatible server sends.
    #[error("can't read the server's answer: {0}")]
    Protocol(String),
}

impl From<::engine::Error> for Error {
    fn from(error: ::engine::Error) -> Self {
        use ::engine::Error as Engine;
        let message = error.to_string();
        match error {
            Engine::ModelNotFound { .. } => Self::ModelNotFound { message },
            Engine::ContextLengthExceeded { .. } => Self::ContextLengthExceeded { message },
            Engine::InvalidRequest { field, .. } => Self::InvalidRequest {
                field: Some(field),
                message,
            },
            Engine::QueueFull { retry_after_s, .. } => Self::Overloaded {
                message,
                retry_after_s: Some(retry_after_s),
            },
            Engine::ShuttingDown => Self::ShuttingDown,
            Engine::Unsupported(reason) => Self::Unsupported(reason),
            Engine::Inference(_) | Engine::Load(_) => Self::Inference(message),
            Engine::Lost(_) => Self::BrokenOff(message),
        }
    }
}
