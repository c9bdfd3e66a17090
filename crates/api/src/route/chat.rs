//! `POST /v1/chat/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::{by, json_by};
use crate::body::Json;
use crate::convert;
use crate::error::ApiError;
use crate::generation;
use crate::openai::chat::{ChatCompletion, ChatRequest};
use crate::openai::error::ErrorBody;
use crate::openai::sampling::StreamEvent;
use crate::render::chat::{Asked, ChatChunks, whole};
use crate::render::{Envelope, sse};
use crate::state::App;

/// Answer a conversation
///
/// With `stream` the answer is a stream of server-sent events whose data are chunks; `[DONE]`
/// ends it. If something fails on the way, the last event is an error body instead.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "generation",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer", content(
            (ChatCompletion = "application/json"),
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
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Json(wire): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (_, info) = app.generator(wire.model.as_deref())?;
    let streamed = wire.stream.unwrap_or(false);
    let with_usage = wire
        .stream_options
        .and_then(|options| options.include_usage);
    let answer = async {
        let request = convert::chat::request(wire, &info)?;
        let asked = Asked::of(&request);
        let events = generation::run(&app, vec![request], arrived).await?;
        let envelope = Envelope::new("chatcmpl", &info);
        if streamed {
            let with_usage = with_usage.unwrap_or(false);
            let chunks = ChatChunks::new(&envelope, asked, with_usage);
            sse::respond(&app, events, chunks).await
        } else {
            let answer = whole(events, envelope, asked).await?;
            Ok(json_by(&info.name, &answer))
        }
    };
    let answer: Result<Response, ApiError> = answer.await;
    Ok(by(&info.name, answer.into_response()))
}
