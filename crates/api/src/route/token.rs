//! `POST /v1/tokenize` and `POST /v1/detokenize`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use engine::Backend;

use super::{BodyRefusals, Failures, Refusals, json_by};
use crate::body::Json;
use crate::convert;
use crate::error::ApiError;
use crate::openai::token::{DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest};
use crate::state::App;

/// Turn text into tokens
///
/// Send exactly one of `content`, `prompt` (the same under vLLM's name) and `messages`.
#[utoipa::path(
    post,
    path = "/v1/tokenize",
    tag = "tokens",
    request_body = inline(crate::openapi::union::Tokenize),
    responses(
        (status = 200, description = "The tokens", body = TokenizeAnswer),
        Failures,
        BodyRefusals,
        Refusals,
    )
)]
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    Json(wire): Json<TokenizeRequest>,
) -> Result<Response, ApiError> {
    let (backend, info) = app.generator(wire.model.as_deref()).await?;
    let templated = wire.messages.is_some();
    let text = text(&wire, backend.as_ref()).await?;
    let add_special = wire.add_special.unwrap_or(!templated);
    let parse_special = wire.parse_special.unwrap_or(true);
    let tokens = backend.tokenize(text, add_special, parse_special).await?;
    let pieces = match wire.with_pieces {
        Some(true) => Some(
            backend
                .token_bytes(tokens.clone())
                .await?
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .collect(),
        ),
        _ => None,
    };
    let answer = TokenizeAnswer {
        model: info.name.clone(),
        count: tokens.len(),
        tokens,
        max_model_len: info.context_tokens,
        pieces,
    };
    Ok(json_by(&info.name, &answer))
}

async fn text(wire: &TokenizeRequest, backend: &dyn Backend) -> Result<String, ApiError> {
    match (&wire.content, &wire.prompt, &wire.messages) {
        (Some(text), None, None) | (None, Some(text), None) => Ok(text.clone()),
        (None, None, Some(messages)) => {
            let chat = convert::chat::bare_chat(messages.clone(), wire.tools.clone())?;
            Ok(backend.render(chat).await?)
        }
        _ => Err(ApiError::invalid(
            "content",
            "content: send exactly one of content, prompt and messages",
        )),
    }
}

/// Turn tokens into text
#[utoipa::path(
    post,
    path = "/v1/detokenize",
    tag = "tokens",
    request_body = DetokenizeRequest,
    responses(
        (status = 200, description = "The text", body = DetokenizeAnswer),
        Failures,
        BodyRefusals,
        Refusals,
    )
)]
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    Json(wire): Json<DetokenizeRequest>,
) -> Result<Response, ApiError> {
    let (backend, info) = app.generator(wire.model.as_deref()).await?;
    let tokens = wire.tokens.0;
    if !tokens.is_empty() {
        convert::completion::check_tokens(&tokens, &info, "tokens")?;
    }
    let bytes = backend.token_bytes(tokens).await?.concat();
    let answer = DetokenizeAnswer {
        model: info.name.clone(),
        content: String::from_utf8_lossy(&bytes).into_owned(),
    };
    Ok(json_by(&info.name, &answer))
}
