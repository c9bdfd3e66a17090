//! `POST /v1/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::{Backend, Input, Request};

use super::{by, json_by};
use crate::body::Json;
use crate::convert;
use crate::error::ApiError;
use crate::generation;
use crate::openai::completion::{Completion, CompletionRequest};
use crate::openai::error::ErrorBody;
use crate::openai::sampling::StreamEvent;
use crate::render::completion::{CompletionChunks, whole};
use crate::render::{Envelope, sse};
use crate::state::App;

/// Continue a text
///
/// No chat template is applied. With `stream` the answer is a stream of server-sent events whose
/// data have the same shape; `[DONE]` ends it.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "generation",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answer", content(
            (Completion = "application/json"),
            (StreamEvent = "text/event-stream"),
        )),
        (status = 400, description = "A value can't be used", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        (status = 415, description = "The body is no JSON", body = ErrorBody),
        (status = 429, description = "Too many requests wait", body = ErrorBody),
        (status = 500, description = "Inference failed", body = ErrorBody),
        (status = 503, description = "Loading or shutting down", body = ErrorBody),
    )
)]
pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    Json(wire): Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (backend, info) = app.generator(wire.model.as_deref())?;
    let streamed = wire.stream.unwrap_or(false);
    let with_usage = wire
        .stream_options
        .and_then(|options| options.include_usage);
    let echo = wire.echo.unwrap_or(false);
    let answer = async {
        let requests = convert::completion::requests(wire, &info)?;
        let with_logprobs = requests.iter().any(|request| request.logprobs.is_some());
        let openings = openings(&requests, echo, backend.as_ref())?;
        let events = generation::run(&app, requests, arrived).await?;
        let envelope = Envelope::new("cmpl", &info);
        if streamed {
            let with_usage = with_usage.unwrap_or(false);
            let chunks = CompletionChunks::new(&envelope, openings, with_logprobs, with_usage);
            sse::respond(&app, events, chunks).await
        } else {
            let answer = whole(events, envelope, openings, with_logprobs).await?;
            Ok(json_by(&info.name, &answer))
        }
    };
    let answer: Result<Response, ApiError> = answer.await;
    Ok(by(&info.name, answer.into_response()))
}

/// What each choice begins with: its prompt if `echo`, else nothing.
fn openings(
    requests: &[Request],
    echo: bool,
    backend: &dyn Backend,
) -> Result<Vec<String>, ApiError> {
    let mut openings = Vec::new();
    for request in requests {
        let text = match &request.input {
            Input::Text(text) if echo => text.clone(),
            Input::Tokens(tokens) if echo => {
                let bytes = backend.token_bytes(tokens)?.concat();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => String::new(),
        };
        openings.extend((0..request.n).map(|_| text.clone()));
    }
    Ok(openings)
}
