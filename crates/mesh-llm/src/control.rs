//! Talks to the running node over its management API.

use std::time::Duration;

use api::management::Event;
use api::openai::error::ErrorBody;
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use crate::failure::Failure;
use crate::key;
use crate::settings::Settings;

/// How long opening a connection may take. On the same machine a closed port refuses at once.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long an answer may take. Joining asks several members, each with its own deadline.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// How long a stream of events may be silent: the node sends comments far more often.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest answer, and longest line of a stream, bytes: the state of a mesh of many thousands.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The running node.
pub(crate) struct Control {
    http: Client,
    port: u16,
    key: Option<String>,
}

/// What went wrong.
#[derive(Debug)]
pub(crate) enum ControlError {
    /// Nobody listens at this port.
    NobodyThere(u16),
    /// Anything else, to be told as it is.
    Failed(Failure),
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NobodyThere(port) => Self::other(format!(
                "no node answers on port {port} of this machine; hint: start one with \
                 `mesh-llm --model starter`, or name its port with --console"
            )),
            ControlError::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for ControlError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Control {
    /// The node that `settings` mean. Nothing is asked yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failure> {
        let Some(port) = settings.console.first_choice() else {
            return Err(Failure::settings(
                "the settings say no_console; hint: name the port of the running node with --console",
            ));
        };
        if port == 0 {
            return Err(Failure::settings(
                "port 0 names no running node; hint: --console with the port that it told at its start",
            ));
        }
        // A proxy can't reach this machine's own servers.
        let http = Client::builder()
            .user_agent(concat!("mesh-llm/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_MAX)
            .no_proxy()
            .build()
            .map_err(|error| Failure::other(format!("can't set up HTTP: {error}")))?;
        Ok(Self {
            http,
            port,
            key: settings
                .api_key
                .clone()
                .or_else(|| key::kept(&settings.home)),
        })
    }

    /// Asks for something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        let response = self.send(Method::GET, path, None::<&()>).await?;
        self.read(response).await
    }

    /// Sends `body` and reads the answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let response = self.send(Method::POST, path, Some(body)).await?;
        self.read(response).await
    }

    /// Asks for something that has no answer but that it is done.
    pub(crate) async fn order(&self, method: Method, path: &str) -> Result<(), ControlError> {
        self.send(method, path, None::<&()>).await.map(drop)
    }

    /// The state of the node and its changes, until it stops.
    pub(crate) async fn events(
        &self,
    ) -> Result<impl Stream<Item = Result<Event, Failure>> + Unpin + use<>, ControlError> {
        let response = self.send(Method::GET, "/api/events", None::<&()>).await?;
        let port = self.port;
        let bytes = response.bytes_stream().map_err(std::io::Error::other);
        let lines = LinesCodec::new_with_max_length(BYTES_MAX);
        let mut lines = FramedRead::new(StreamReader::new(bytes), lines);
        Ok(Box::pin(async_stream::try_stream! {
            let mut name = String::new();
            loop {
                let line = tokio::time::timeout(SILENCE_MAX, lines.next()).await;
                let line = line.map_err(|_| broken(port, "it fell silent"))?;
                let Some(line) = line else {
                    break;
                };
                let line = line.map_err(|error| broken(port, &error.to_string()))?;
                // One line of data an event is all that the node sends.
                if let Some(value) = line.strip_prefix("event: ") {
                    value.clone_into(&mut name);
                } else if let Some(data) = line.strip_prefix("data: ") {
                    let event = Event::read(&name, data);
                    if let Some(event) = event.map_err(|error| broken(port, &error.to_string()))? {
                        yield event;
                    }
                }
            }
        }))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response, ControlError> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.http.request(method, url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = match tokio::time::timeout(ANSWER_MAX, request.send()).await {
            Err(_) => return Err(broken(self.port, "no answer in time").into()),
            Ok(Err(error)) if error.is_connect() => {
                return Err(ControlError::NobodyThere(self.port));
            }
            Ok(Err(error)) => return Err(broken(self.port, &error.to_string()).into()),
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await.into())
    }

    async fn refusal(&self, response: Response) -> Failure {
        let status = response.status();
        let body: Result<ErrorBody, _> = self.read(response).await;
        match body {
            Ok(_) if status == StatusCode::UNAUTHORIZED => Failure::other(
                "the node wants another key; hint: set MESH_LLM_API_KEY to the one that it was started with",
            ),
            Ok(body) => Failure::other(body.error.message),
            Err(_) => broken(self.port, &format!("it answers {status}")),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ControlError> {
        let mut body = Vec::new();
        let mut bytes = response.bytes_stream();
        loop {
            let piece = tokio::time::timeout(ANSWER_MAX, bytes.next()).await;
            let piece = piece.map_err(|_| broken(self.port, "it fell silent"))?;
            let Some(piece) = piece else {
                break;
            };
            let piece = piece.map_err(|error| broken(self.port, &error.to_string()))?;
            if body.len() + piece.len() > BYTES_MAX {
                return Err(broken(self.port, "the answer has no end").into());
            }
            body.extend_from_slice(&piece);
        }
        serde_json::from_slice(&body)
            .map_err(|error| broken(self.port, &format!("unexpected answer: {error}")).into())
    }
}

/// What answers is no mesh-llm, or not well.
fn broken(port: u16, reason: &str) -> Failure {
    Failure::other(format!(
        "port {port} of this machine does not answer like mesh-llm: {reason}; hint: name the port \
         of the running node with --console"
    ))
}
