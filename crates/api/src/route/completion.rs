//! `POST /v1/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use engine::{Backend, Input, Request};

use super::{BodyRefusals, Failures, Refusals, answered, computed_by, json_by, named};
use crate::body::Json;
use crate::convert;
use crate::error::ApiError;
use crate::generation;
use crate::openai::completion::{Completion, CompletionRequest};
use crate::openai::sampling::StreamEvent;
use crate::render::completion::{CompletionChunks, whole};
use crate::render::{Envelope, sse};
use crate::state::App;

/// Continue a text
///
/// No chat template is applied. Without `max_tokens` the text goes on until the model ends it or
/// the context is full; OpenAI's own server would stop after 16 tokens. With `stream` the answer is a stream of server-sent events whose
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
        Failures,
        BodyRefusals,
        Refusals,
    )
)]
pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    Json(wire): Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (backend, info) = app.generator(wire.model.as_deref()).await?;
    let stream = wire.stream();
    let echo = wire.echo.unwrap_or(false);
    answered(&info.name, async {
        let requests = convert::completion::requests(wire, &info)?;
        let with_logprobs = requests.iter().any(|request| request.logprobs.is_some());
        let openings = openings(&requests, echo, backend.as_ref()).await?;
        let events = generation::run(&app, requests, arrived).await?;
        let host = events.host().and_then(named);
        let envelope = Envelope::new("cmpl", &info);
        if let Some(with_usage) = stream {
            let chunks = CompletionChunks::new(&envelope, openings, with_logprobs, with_usage);
            let response = sse::respond(&app, events, chunks).await?;
            Ok(computed_by(host, response))
        } else {
            let answer = whole(events, envelope, openings, with_logprobs).await?;
            Ok(computed_by(host, json_by(&info.name, &answer)))
        }
    })
    .await
}

/// What each choice begins with: its prompt if `echo`, else nothing.
async fn openings(
    requests: &[Request],
    echo: bool,
    backend: &dyn Backend,
) -> Result<Vec<String>, ApiError> {
    let mut openings = Vec::new();
    for request in requests {
        let text = match &request.input {
            Input::Text(text) if echo => text.clone(),
            Input::Tokens(tokens) if echo => {
                let bytes = backend.token_bytes(tokens.clone()).await?.concat();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => String::new(),
        };
        openings.extend((0..request.n).map(|_| text.clone()));
    }
    Ok(openings)
}
