//! One handler per route: parse, convert, ask the node, render.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod embedding;
pub(crate) mod model;
pub(crate) mod status;
pub(crate) mod token;

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use node::Computes;
use serde::Serialize;

use crate::error::ApiError;
use crate::openai::error::ErrorBody;

/// Name of the model that answered, for the metrics; travels as a response extension.
#[derive(Debug, Clone)]
pub(crate) struct Answered(pub(crate) String);

/// `response` with the model's name attached.
fn by(model: &str, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.extensions_mut().insert(Answered(model.to_owned()));
    response
}

/// What `answer` comes to, an error too, with the model's name attached.
async fn answered(
    model: &str,
    answer: impl Future<Output = Result<Response, ApiError>>,
) -> Result<Response, ApiError> {
    Ok(by(model, answer.await))
}

/// Says which machine computes an answer, where that is another one than this.
const HOST: HeaderName = HeaderName::from_static("x-mesh-llm-host");

/// The value of that header: the machine's name and key, as far as a header can hold the name.
fn named(host: &Computes) -> Option<HeaderValue> {
    let name: String = (host.name.chars())
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .collect();
    HeaderValue::from_str(&format!("{name} ({})", host.node)).ok()
}

/// `response` with the machine that computes it, if that is another one.
fn computed_by(host: Option<HeaderValue>, mut response: Response) -> Response {
    if let Some(host) = host {
        response.headers_mut().insert(HOST, host);
    }
    response
}

/// How a request to a model can fail, once it was let in and read.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "read by the description alone")]
pub(crate) enum Failures {
    #[response(status = 400, description = "A value can't be used")]
    Invalid(ErrorBody),
    #[response(status = 404, description = "No such model")]
    NotFound(ErrorBody),
    #[response(status = 429, description = "Too many requests wait")]
    QueueFull(ErrorBody),
    #[response(status = 500, description = "Inference failed")]
    Inference(ErrorBody),
}

/// How a body is refused before it is understood.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "read by the description alone")]
pub(crate) enum BodyRefusals {
    #[response(status = 408, description = "The body did not arrive in time")]
    Timeout(ErrorBody),
    #[response(status = 413, description = "The body is too long")]
    TooLarge(ErrorBody),
    #[response(
        status = 415,
        description = "A web page of another origin sends something else than JSON"
    )]
    MediaType(ErrorBody),
}

/// How any request is refused.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "read by the description alone")]
pub(crate) enum Refusals {
    #[response(status = 401, description = "The API key is missing or wrong")]
    Unauthorized(ErrorBody),
    #[response(
        status = 403,
        description = "The host name or the web page's origin is not allowed"
    )]
    Forbidden(ErrorBody),
    #[response(status = 503, description = "Loading or shutting down")]
    Unavailable(ErrorBody),
}

/// `answer` as JSON with the model's name attached.
fn json_by<T: Serialize>(model: &str, answer: &T) -> Response {
    by(model, axum::Json(answer))
}
