//! Errors on the wire: status, OpenAI's body, and the headers that go with them.
//!
//! The one place where an [`engine::Error`] becomes a status code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::openai::error::{ErrorBody, ErrorDetail};

/// Wait that is suggested to a client while a model loads or the server stops, s.
const RETRY_AFTER_S: u32 = 2;

/// A failed request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry_after_s: Option<u32>,
    /// The connection can't be used further, for example because a body was left unread.
    close: bool,
}

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            code,
            param: None,
            message: message.into(),
            retry_after_s: None,
            close: false,
        }
    }

    fn request(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", code, message)
    }

    /// What the caller asked for can't be done as things stand.
    pub(crate) fn refused(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::request(status, Some(code), message)
    }

    /// The caller is not to blame.
    pub(crate) fn failed(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::new(status, "server_error", Some(code), message)
    }

    /// 400: the value at `param` can't be used.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::request(
            StatusCode::BAD_REQUEST,
            Some("invalid_value"),
            message.into(),
        );
        let param = param.into();
        error.param = (!param.is_empty()).then_some(param);
        error
    }

    /// 400: the value at `param` has a meaning that this server does not implement.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: Some("unsupported_value"),
            ..Self::invalid(param, message)
        }
    }

    /// 400: the body is no JSON, or a field (`param`) has the wrong type.
    pub(crate) fn malformed(param: Option<String>, message: impl Into<String>) -> Self {
        Self {
            param,
            ..Self::request(StatusCode::BAD_REQUEST, Some("invalid_json"), message)
        }
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::request(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), message)
    }

    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::request(StatusCode::FORBIDDEN, Some(code), message)
    }

    pub(crate) fn no_route(message: impl Into<String>) -> Self {
        Self::request(StatusCode::NOT_FOUND, Some("unknown_url"), message)
    }

    pub(crate) fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::request(
            StatusCode::METHOD_NOT_ALLOWED,
            Some("method_not_allowed"),
            message,
        )
    }

    pub(crate) fn body_too_large(bytes_max: usize) -> Self {
        Self {
            close: true,
            ..Self::request(
                StatusCode::PAYLOAD_TOO_LARGE,
                Some("request_too_large"),
                format!("the request body is longer than {bytes_max} bytes"),
            )
        }
    }

    pub(crate) fn body_timeout() -> Self {
        Self {
            close: true,
            ..Self::request(
                StatusCode::REQUEST_TIMEOUT,
                Some("request_timeout"),
                "the request body did not arrive in time",
            )
        }
    }

    pub(crate) fn media_type(found: &str) -> Self {
        Self::request(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Some("unsupported_media_type"),
            format!(
                "the content type is `{found}`; hint: send JSON with the header \
                 `content-type: application/json`"
            ),
        )
    }

    /// 503: `model` is still being loaded.
    pub(crate) fn loading(model: &str, progress: f32) -> Self {
        Self {
            retry_after_s: Some(RETRY_AFTER_S),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                Some("model_loading"),
                format!(
                    "the model `{model}` is being loaded ({:.0} %); hint: try again shortly",
                    progress.clamp(0.0, 1.0) * 100.0
                ),
            )
        }
    }

    /// 503: `model` waits for machines or memory.
    pub(crate) fn waiting(model: &str, reason: &str) -> Self {
        Self {
            retry_after_s: Some(RETRY_AFTER_S),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                Some("model_waiting"),
                format!("the model `{model}` waits: {reason}"),
            )
        }
    }

    /// 429: more changes of the membership than are carried out at a time.
    pub(crate) fn too_many_orders() -> Self {
        Self {
            retry_after_s: Some(RETRY_AFTER_S),
            ..Self::refused(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many",
                "too many joins and leaves wait; hint: try again in a few seconds",
            )
        }
    }

    /// 503: the node has nothing that could answer, and waits to be told what to do.
    pub(crate) fn idle() -> Self {
        Self::failed(
            StatusCode::SERVICE_UNAVAILABLE,
            "idle",
            "this node is idle: it serves no model and is in no mesh; hint: load a model with \
             `mesh-llm load NAME`, or join a mesh with `mesh-llm join TICKET`",
        )
    }

    /// 503: the server stops. Its connection is closed after the answer.
    pub(crate) fn shutting_down() -> Self {
        Self {
            retry_after_s: Some(RETRY_AFTER_S),
            close: true,
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                Some("shutting_down"),
                "the server is shutting down",
            )
        }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            Some("inference_failed"),
            message,
        )
    }

    /// The same with another path in `param`.
    pub(crate) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The body alone, as it also goes into a stream that fails on its way.
    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                message: self.message.clone(),
                kind: self.kind.to_owned(),
                param: self.param.clone(),
                code: self.code.map(str::to_owned),
            },
        }
    }
}

impl From<engine::Error> for ApiError {
    fn from(error: engine::Error) -> Self {
        let message = error.to_string();
        match error {
            engine::Error::ModelNotFound { .. } => {
                Self::request(StatusCode::NOT_FOUND, Some("model_not_found"), message).at("model")
            }
            engine::Error::ContextLengthExceeded { .. } => Self::request(
                StatusCode::BAD_REQUEST,
                Some("context_length_exceeded"),
                message,
            ),
            engine::Error::InvalidRequest { field, .. } => Self::invalid(field, message),
            engine::Error::QueueFull { retry_after_s, .. } => Self {
                retry_after_s: Some(retry_after_s.max(1)),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limit_error",
                    Some("queue_full"),
                    message,
                )
            },
            engine::Error::ShuttingDown => Self::shutting_down(),
            engine::Error::Unsupported(_) => {
                Self::request(StatusCode::BAD_REQUEST, Some("unsupported_value"), message)
            }
            engine::Error::Inference(_) => Self::internal(message),
            engine::Error::Lost(_) => Self {
                retry_after_s: Some(RETRY_AFTER_S),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "server_error",
                    Some("host_lost"),
                    message,
                )
            },
            engine::Error::Load(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                Some("model_not_loaded"),
                message,
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
