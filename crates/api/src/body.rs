//! Reading a request's body: bounded in size and in time, JSON with the path of a wrong field.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::ApiError;
use crate::state::App;

/// Time in which the rest of a body that is too long is read and thrown away, so that a client
/// that only reads after writing sees the answer and no reset connection.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Header in which browsers tell where a request comes from. Pages cannot set it.
const FETCH_SITE: &str = "sec-fetch-site";

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
    Arc<App>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        check_media_type(&parts.headers)?;
        let bytes = read(&parts.headers, body, &Arc::from_ref(state)).await?;
        parse(&bytes).map(Json)
    }
}

/// Any content type will do, as `curl -d` names that of a form, unless a web page of another origin
/// sends it. A page can send forms and plain text without the browser asking first, so whatever is
/// no JSON must not come from one: browsers name the page's origin, which was checked before, or
/// else say here that it is another.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::ORIGIN) || !is_from_elsewhere(headers) {
        return Ok(());
    }
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.map_or("(none)", |value| value.to_str().unwrap_or("?"));
    let essence = value.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json {
        Ok(())
    } else {
        Err(ApiError::media_type(
            &essence.chars().take(64).collect::<String>(),
        ))
    }
}

/// Whether a browser says that the page behind a request is not this server's own.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    headers
        .get(FETCH_SITE)
        .is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

async fn read(headers: &HeaderMap, body: Body, app: &App) -> Result<Bytes, ApiError> {
    let config = &app.config;
    let bytes_max = config.body_bytes_max;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_long = |length: u64| usize::try_from(length).map_or(true, |length| length > bytes_max);
    let mut pieces = body.into_data_stream();
    if declared.is_some_and(too_long) {
        // A client that waits for "100 Continue" has sent nothing yet, and must not be asked to.
        if !headers.contains_key(header::EXPECT) {
            discard(&mut pieces, bytes_max).await;
        }
        return Err(ApiError::body_too_large(bytes_max));
    }
    let deadline = Instant::now() + config.body_read_timeout;
    let mut whole = Vec::new();
    loop {
        let next = timeout(config.body_stall_timeout, pieces.next());
        let piece = match timeout_at(deadline, next).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(_)) | Err(_) => return Err(ApiError::body_timeout()),
        };
        match piece {
            None => return Ok(whole.into()),
            Some(Err(error)) => {
                return Err(ApiError::malformed(
                    None,
                    format!("the request body could not be read: {error}"),
                ));
            }
            Some(Ok(piece)) if whole.len() + piece.len() > bytes_max => {
                discard(&mut pieces, bytes_max).await;
                return Err(ApiError::body_too_large(bytes_max));
            }
            Some(Ok(piece)) => whole.extend_from_slice(&piece),
        }
    }
}

/// Reads up to `bytes_max` further bytes and forgets them.
async fn discard(pieces: &mut BodyDataStream, bytes_max: usize) {
    let reading = async {
        let mut left = bytes_max;
        while let Some(Ok(piece)) = pieces.next().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Late or not, the answer is the same.
    let _ = timeout(DISCARD_TIMEOUT, reading).await;
}

/// Parses JSON; errors carry the path of the field.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::malformed(None, "the request body is empty"));
    }
    // serde would also take a list of an object's values, in order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::malformed(
            None,
            "the request body must be a JSON object, not a list",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        wrong(&path, error.inner())
    })?;
    deserializer.end().map_err(|error| wrong(".", &error))?;
    Ok(value)
}

fn wrong(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if error.is_syntax() || error.is_eof() {
        return ApiError::malformed(None, format!("the request body is not valid JSON: {text}"));
    }
    let text = text.split(" at line ").next().unwrap_or(&text);
    let text: String = plain_words(text).chars().take(300).collect();
    let parent = if path == "." { "" } else { path };
    let path = match missing_field(&text) {
        Some(field) if parent.is_empty() => field.to_owned(),
        Some(field) => format!("{parent}.{field}"),
        None => parent.to_owned(),
    };
    if path.is_empty() {
        return ApiError::malformed(None, text);
    }
    let message = format!("{path}: {text}");
    ApiError::malformed(Some(path), message)
}

/// serde's message in the words of JSON: its own are those of Rust and of other formats.
fn plain_words(text: &str) -> String {
    let words = [
        ("expected f64", "expected a number"),
        ("expected a map", "expected an object"),
        ("expected a sequence", "expected an array"),
        ("invalid type: map", "invalid type: object"),
        ("invalid type: sequence", "invalid type: array"),
    ];
    (words.iter()).fold(text.to_owned(), |text, (serde, json)| {
        text.replace(serde, json)
    })
}

/// Name of the field that serde misses.
fn missing_field(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.split('`').next()
}
