//! What a server says when it refuses.

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

use crate::Error;

/// Longest text of a foreign error page that is passed on, characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// The `Retry-After` header, if it is a number of seconds.
pub(crate) fn retry_after_s(headers: &HeaderMap) -> Option<u32> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// The error behind a status that is no success.
pub(crate) fn read(status: u16, retry_after_s: Option<u32>, body: &[u8]) -> Error {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    match parsed.as_ref().and_then(|body| body.get("error")) {
        Some(error) => typed(status, retry_after_s, error),
        None => {
            let text = String::from_utf8_lossy(body);
            let message = match text.trim() {
                "" => "no reason given",
                text => text,
            };
            typed(status, retry_after_s, &Value::from(message))
        }
    }
}

/// The error that a stream carries instead of its next chunk.
pub(crate) fn in_stream(error: &Value) -> Error {
    let status = error["code"].as_u64().or_else(|| error["status"].as_u64());
    let status = status
        .and_then(|status| u16::try_from(status).ok())
        .unwrap_or(500);
    typed(status, None, error)
}

/// `error` is OpenAI's object, or just a text.
fn typed(status: u16, retry_after_s: Option<u32>, error: &Value) -> Error {
    let text = |key: &str| error.get(key).and_then(Value::as_str);
    let message: String = text("message")
        .or(error.as_str())
        .unwrap_or("no reason given")
        .chars()
        .take(MESSAGE_CHARS_MAX)
        .collect();
    let field = text("param").map(str::to_owned);
    let code = text("code").or_else(|| text("type")).unwrap_or_default();
    match (status, code) {
        (401, _) => Error::Unauthorized { message },
        (_, "model_not_found") => Error::ModelNotFound { message },
        (_, "context_length_exceeded" | "exceed_context_size_error") => {
            Error::ContextLengthExceeded { message }
        }
        (_, "shutting_down") => Error::ShuttingDown,
        (501, _) | (_, "unsupported_value" | "unsupported" | "not_supported_error") => {
            Error::Unsupported(message)
        }
        (400 | 422, _) => Error::InvalidRequest { field, message },
        (429, _) => Error::Overloaded {
            message,
            retry_after_s,
        },
        _ => Error::Server {
            status,
            code: (!code.is_empty()).then(|| code.to_owned()),
            message,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{MESSAGE_CHARS_MAX, read};
    use crate::Error;

    #[test]
    fn errors_are_typed() {
        let check = |status: u16, body: &str, expected: Error| {
            assert_eq!(read(status, Some(3), body.as_bytes()), expected, "{body}");
        };
        let message = || "m".to_owned();
        check(
            404,
            r#"{"error":{"message":"m","code":"model_not_found","param":"model"}}"#,
            Error::ModelNotFound { message: message() },
        );
        check(
            400,
            r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#,
            Error::ContextLengthExceeded { message: message() },
        );
        check(
            400,
            r#"{"error":{"message":"m","type":"invalid_request_error","param":"top_p","code":null}}"#,
            Error::InvalidRequest {
                field: Some("top_p".into()),
                message: message(),
            },
        );
        check(
            429,
            r#"{"error":{"message":"m"}}"#,
            Error::Overloaded {
                message: message(),
                retry_after_s: Some(3),
            },
        );
        check(
            401,
            r#"{"error":"m"}"#,
            Error::Unauthorized { message: message() },
        );
        check(
            502,
            "",
            Error::Server {
                status: 502,
                code: None,
                message: "no reason given".into(),
            },
        );
    }

    #[test]
    fn foreign_pages_are_cut() {
        let page = "ü".repeat(100_000);
        let Error::Server { message, .. } = read(500, None, page.as_bytes()) else {
            panic!("a page is no typed error");
        };
        assert_eq!(message.chars().count(), MESSAGE_CHARS_MAX);
    }
}
