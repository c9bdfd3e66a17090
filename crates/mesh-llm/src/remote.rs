//! Requests to an OpenAI-compatible server.
//!
//! Lenient in what it reads: servers differ in what they leave out. Bounded in everything a
//! server can make it hold or wait for.

mod answer;
mod failure;
mod logprob;
mod request;
mod sse;

use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, Url};
use serde_json::Value;

use self::answer::Reader;
use self::sse::Lines;
use crate::event::ChoiceEvents;
use crate::generation::{Input, Options};
use crate::{Embeddings, Error};

/// Longest answer that is not a stream, bytes. The largest honest one is a few thousand
/// embeddings of a few thousand numbers each.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A server, and how to talk to it.
pub(crate) struct Remote {
    http: Client,
    /// Ends in `/`; OpenAI's paths are joined to it.
    base: Url,
    silence_max: Duration,
}

/// A model that the server lists.
pub(crate) struct Listed {
    pub(crate) id: String,
    owned_by: String,
}

impl Remote {
    /// Prepares to talk to `url`; sends nothing yet.
    pub(crate) fn new(
        url: &str,
        api_key: Option<&str>,
        connect_timeout: Duration,
        silence_max: Duration,
    ) -> Result<Self, Error> {
        let base = base_url(url)?;
        let mut headers = HeaderMap::new();
        if let Some(key) = api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
                Error::Unauthorized {
                    message: "the API key has characters that a header can't carry".to_owned(),
                }
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut http = Client::builder()
            .user_agent(concat!("mesh-llm/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(connect_timeout);
        if is_loopback(&base) {
            // A proxy can't reach this machine's own servers.
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|error| Error::Inference(error.to_string()))?;
        Ok(Self {
            http,
            base,
            silence_max,
        })
    }

    /// Whether `/health` beside `/v1` says so within `limit`.
    pub(crate) async fn is_healthy(&self, limit: Duration) -> bool {
        let Ok(url) = self.base.join("../health") else {
            return false;
        };
        let asked = self.http.get(url).timeout(limit).send().await;
        asked.is_ok_and(|response| response.status().is_success())
    }

    /// Models that the server lists.
    pub(crate) async fn models(&self) -> Result<Vec<Listed>, Error> {
        let response = self.send(Method::GET, "models", None).await?;
        let body = self.json(response).await?;
        let entries = body["data"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(entries
            .iter()
            .map(|entry| Listed {
                id: text(&entry["id"]),
                owned_by: text(&entry["owned_by"]),
            })
            .filter(|model| !model.id.is_empty())
            .collect())
    }

    /// What to ask when the caller names no model: a mesh-llm node chooses by itself, other
    /// servers get the first name that they list.
    pub(crate) async fn default_model(&self) -> Result<String, Error> {
        let models = match self.models().await {
            // A server of one model may do without the list.
            Err(Error::Server { status: 404, .. }) => return Ok(String::new()),
            models => models?,
        };
        Ok(match models.into_iter().next() {
            Some(first) if first.owned_by == "mesh-llm" => "auto".to_owned(),
            Some(first) => first.id,
            None => String::new(),
        })
    }

    /// Starts a generation.
    pub(crate) async fn generate(
        &self,
        model: &str,
        input: &Input,
        options: &Options,
    ) -> Result<ChoiceEvents, Error> {
        let (path, body) = request::body(model, input, options);
        let response = self.send(Method::POST, path, Some(&body)).await?;
        let mut reader = Reader::new(options.n.unwrap_or(1));
        if !is_event_stream(&response) {
            // A server that can't stream answers as a whole.
            let body = self.json(response).await?;
            let events = reader.read_whole(&body)?;
            return Ok(Box::pin(futures::stream::iter(events.into_iter().map(Ok))));
        }
        let silence_max = self.silence_max;
        Ok(Box::pin(async_stream::try_stream! {
            let mut bytes = response.bytes_stream();
            let mut lines = Lines::default();
            'stream: loop {
                let Some(piece) = within(silence_max, bytes.next()).await? else {
                    break;
                };
                let piece = piece.map_err(|error| Error::BrokenOff(reason(&error)))?;
                lines.push(&piece)?;
                while let Some(data) = lines.next_data() {
                    if data == "[DONE]" {
                        break 'stream;
                    }
                    for event in reader.read_chunk(&data)? {
                        yield event;
                    }
                }
            }
            for event in reader.end()? {
                yield event;
            }
        }))
    }

    /// Embeds texts.
    pub(crate) async fn embed(&self, model: &str, texts: &[String]) -> Result<Embeddings, Error> {
        let body = serde_json::json!({
            "model": model,
            "input": texts,
            "encoding_format": "float",
        });
        let response = self.send(Method::POST, "embeddings", Some(&body)).await?;
        answer::embeddings(&self.json(response).await?, texts.len())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, Error> {
        let url = self.base.join(path).map_err(|error| Error::Url {
            url: format!("{}{path}", self.base),
            reason: error.to_string(),
        })?;
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = within(self.silence_max, request.send())
            .await?
            .map_err(|error| {
                if error.is_timeout() || error.is_connect() || error.is_request() {
                    Error::Unreachable {
                        url: self.base.to_string(),
                        reason: reason(&error),
                    }
                } else {
                    Error::Protocol(reason(&error))
                }
            })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry_after_s = failure::retry_after_s(response.headers());
        let body = self.body(response).await.unwrap_or_default();
        Err(failure::read(status, retry_after_s, &body))
    }

    async fn json(&self, response: Response) -> Result<Value, Error> {
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Protocol(error.to_string()))
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        let mut bytes = response.bytes_stream();
        while let Some(piece) = within(self.silence_max, bytes.next()).await? {
            let piece = piece.map_err(|error| Error::BrokenOff(reason(&error)))?;
            if body.len() + piece.len() > BODY_BYTES_MAX {
                return Err(Error::Protocol(format!("over {BODY_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

async fn within<T>(limit: Duration, wait: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(limit, wait)
        .await
        .map_err(|_| Error::Timeout {
            silent_s: limit.as_secs(),
        })
}

fn base_url(text: &str) -> Result<Url, Error> {
    let unusable = |reason: String| Error::Url {
        url: text.to_owned(),
        reason,
    };
    let mut url = Url::parse(text).map_err(|error| unusable(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(unusable(
            "it must begin with http:// or https://".to_owned(),
        ));
    }
    let path = match url.path().trim_end_matches('/') {
        "" => "/v1/".to_owned(),
        path => format!("{path}/"),
    };
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE);
    // Some servers stream without saying so; only a plain JSON answer is taken as a whole.
    !content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

/// The innermost cause: the outer ones only say that a request failed.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::{base_url, is_loopback};

    #[test]
    fn urls_are_completed() {
        for (given, base) in [
            ("http://127.0.0.1:9337", "http://127.0.0.1:9337/v1/"),
            ("http://127.0.0.1:9337/", "http://127.0.0.1:9337/v1/"),
            ("http://localhost:8080/v1", "http://localhost:8080/v1/"),
            (
                "https://example.org/api/v3/?a=b#c",
                "https://example.org/api/v3/",
            ),
        ] {
            assert_eq!(base_url(given).unwrap().as_str(), base);
        }
        for bad in ["", "localhost:9337", "file:///etc/passwd", "9337"] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (url, expected) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://example.org", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&base_url(url).unwrap()), expected, "{url}");
        }
    }
}
