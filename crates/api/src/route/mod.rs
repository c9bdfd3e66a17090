//! One handler per route: parse, convert, ask the node, render.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod embedding;
pub(crate) mod model;
pub(crate) mod status;
pub(crate) mod token;

use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Name of the model that answered, for the metrics; travels as a response extension.
#[derive(Debug, Clone)]
pub(crate) struct Answered(pub(crate) String);

/// `response` with the model's name attached.
fn by(model: &str, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.extensions_mut().insert(Answered(model.to_owned()));
    response
}

/// `answer` as JSON with the model's name attached.
fn json_by<T: Serialize>(model: &str, answer: &T) -> Response {
    by(model, axum::Json(answer))
}
