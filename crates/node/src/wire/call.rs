//! What an ingress asks of a host.

use engine::{Chat, EmbedInput, EmbedRequest, Request, TokenId};
use mesh::announcement::{FINGERPRINT_BYTES_MAX, MODEL_NAME_BYTES_MAX};
use mesh::codec;
use serde::{Deserialize, Serialize};

use super::request::{ChatWire, RequestWire};
use super::{CALL_BYTES_MAX, WireError};

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    /// Generate; answered by events.
    Generate(Box<Request>),
    /// Embed; answered by one vector an input, then their tokens.
    Embed(EmbedRequest),
    /// Say what a model is.
    Describe {
        /// Its name.
        model: String,
    },
    /// See [`engine::Backend::tokenize`].
    Tokenize {
        /// Of which model.
        model: String,
        /// What.
        text: String,
        /// BOS and EOS around it.
        add_special: bool,
        /// Special tokens in it.
        parse_special: bool,
    },
    /// See [`engine::Backend::token_bytes`].
    TokenBytes {
        /// Of which model.
        model: String,
        /// Which.
        tokens: Vec<TokenId>,
    },
    /// See [`engine::Backend::render`].
    Render {
        /// With whose template.
        model: String,
        /// What.
        chat: Chat,
    },
    /// Serve all of a model; answered by what it is, once it answers there.
    TakeUp(TakeUp),
}

/// A model that a node asks another one to serve whole, from a file of its own or one that it gets first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakeUp {
    /// Under which name.
    pub(crate) model: String,
    /// Identity of its content, whatever the file is called.
    pub(crate) fingerprint: String,
    /// Tokens that its context is to hold at least; 0: as many as the other node's owner wants.
    pub(crate) context_tokens: u32,
    /// Requests that are to run at once, if the other node's owner allows so many; 0: as many as that one wants.
    pub(crate) slots: u32,
    /// Where it lacks the file it is to get it from members or its hub first. Whoever asks takes in
    /// [`Reply::Fetching`](super::Reply::Fetching).
    pub(crate) fetch: bool,
    /// Where it would serve the model with less context, it is to say how much before it refuses. Whoever asks takes in
    /// [`Reply::ContextMax`](super::Reply::ContextMax).
    pub(crate) tell_context: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum CallWire {
    Generate(Box<RequestWire>),
    Embed(EmbedWire),
    Describe {
        model: String,
    },
    Tokenize {
        model: String,
        text: String,
        add_special: bool,
        parse_special: bool,
    },
    TokenBytes {
        model: String,
        tokens: Vec<TokenId>,
    },
    Render {
        model: String,
        chat: ChatWire,
    },
    TakeUp {
        model: String,
        fingerprint: String,
        #[serde(default)]
        context_tokens: u32,
        #[serde(default)]
        slots: u32,
        #[serde(default)]
        fetch: bool,
        #[serde(default)]
        tell_context: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct EmbedWire {
    model: String,
    inputs: Vec<EmbedInputWire>,
}

#[derive(Debug, Serialize, Deserialize)]
enum EmbedInputWire {
    Text(String),
    Tokens(Vec<TokenId>),
}

impl Call {
    /// The model it is about.
    pub(crate) fn model(&self) -> &str {
        match self {
            Self::Generate(request) => &request.model,
            Self::Embed(request) => &request.model,
            Self::TakeUp(wanted) => &wanted.model,
            Self::Describe { model }
            | Self::Tokenize { model, .. }
            | Self::TokenBytes { model, .. }
            | Self::Render { model, .. } => model,
        }
    }
}

/// The bytes of a call.
pub(crate) fn call_bytes(call: &Call) -> Vec<u8> {
    let wire = match call {
        Call::Generate(request) => CallWire::Generate(Box::new(request.as_ref().into())),
        Call::Embed(request) => CallWire::Embed(EmbedWire {
            model: request.model.clone(),
            inputs: (request.inputs.iter())
                .map(|input| match input {
                    EmbedInput::Text(text) => EmbedInputWire::Text(text.clone()),
                    EmbedInput::Tokens(tokens) => EmbedInputWire::Tokens(tokens.clone()),
                })
                .collect(),
        }),
        Call::Describe { model } => CallWire::Describe {
            model: model.clone(),
        },
        Call::Tokenize {
            model,
            text,
            add_special,
            parse_special,
        } => CallWire::Tokenize {
            model: model.clone(),
            text: text.clone(),
            add_special: *add_special,
            parse_special: *parse_special,
        },
        Call::TokenBytes { model, tokens } => CallWire::TokenBytes {
            model: model.clone(),
            tokens: tokens.clone(),
        },
        Call::Render { model, chat } => CallWire::Render {
            model: model.clone(),
            chat: chat.into(),
        },
        Call::TakeUp(wanted) => CallWire::TakeUp {
            model: wanted.model.clone(),
            fingerprint: wanted.fingerprint.clone(),
            context_tokens: wanted.context_tokens,
            slots: wanted.slots,
            fetch: wanted.fetch,
            tell_context: wanted.tell_context,
        },
    };
    codec::encode(&wire)
}

/// Reads a call.
pub(crate) fn read_call(bytes: &[u8]) -> Result<Call, WireError> {
    Ok(match codec::decode::<CallWire>(bytes, CALL_BYTES_MAX)? {
        CallWire::Generate(request) => Call::Generate(Box::new((*request).try_into()?)),
        CallWire::Embed(EmbedWire { model, inputs }) => Call::Embed(EmbedRequest {
            model,
            inputs: (inputs.into_iter())
                .map(|input| match input {
                    EmbedInputWire::Text(text) => EmbedInput::Text(text),
                    EmbedInputWire::Tokens(tokens) => EmbedInput::Tokens(tokens),
                })
                .collect(),
        }),
        CallWire::Describe { model } => Call::Describe { model },
        CallWire::Tokenize {
            model,
            text,
            add_special,
            parse_special,
        } => Call::Tokenize {
            model,
            text,
            add_special,
            parse_special,
        },
        CallWire::TokenBytes { model, tokens } => Call::TokenBytes { model, tokens },
        CallWire::Render { model, chat } => Call::Render {
            model,
            chat: chat.try_into()?,
        },
        CallWire::TakeUp {
            model,
            fingerprint,
            context_tokens,
            slots,
            fetch,
            tell_context,
        } => {
            let is_odd = model.chars().any(char::is_control);
            if model.is_empty() || model.len() > MODEL_NAME_BYTES_MAX || is_odd {
                return Err(WireError::Range("a model's name"));
            }
            if fingerprint.is_empty() || fingerprint.len() > FINGERPRINT_BYTES_MAX {
                return Err(WireError::Range("a fingerprint"));
            }
            Call::TakeUp(TakeUp {
                model,
                fingerprint,
                context_tokens,
                slots,
                fetch,
                tell_context,
            })
        }
    })
}
