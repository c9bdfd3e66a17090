//! `POST /v1/chat/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;

use super::{BodyRefusals, Failures, Refusals, answered, computed_by, json_by, named};
use crate::body::Json;
use crate::convert;
use crate::error::ApiError;
use crate::generation;
use crate::openai::chat::{ChatCompletion, ChatRequest};
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
        Failures,
        BodyRefusals,
        Refusals,
    )
)]
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Json(wire): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (_, info) = app.generator(wire.model.as_deref()).await?;
    let stream = wire.stream();
    answered(&info.name, async {
        let request = convert::chat::request(wire, &info)?;
        let asked = Asked::of(&request);
        let events = generation::run(&app, vec![request], arrived).await?;
        let host = events.host().and_then(named);
        let envelope = Envelope::new("chatcmpl", &info);
        if let Some(with_usage) = stream {
            let chunks = ChatChunks::new(&envelope, asked, with_usage);
            let response = sse::respond(&app, events, chunks).await?;
            Ok(computed_by(host, response))
        } else {
            let answer = whole(events, envelope, asked).await?;
            Ok(computed_by(host, json_by(&info.name, &answer)))
        }
    })
    .await
}
