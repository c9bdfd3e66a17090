//! A server on a free port, and requests to it.

use std::net::SocketAddr;
use std::sync::Arc;

use api::{Api, Config, management};
use engine::Backend;
use node::Node;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) node: Node,
    pub(crate) client: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(backend: Arc<dyn Backend>) -> Self {
        Self::with(vec![backend], Config::default()).await
    }

    pub(crate) async fn with(backends: Vec<Arc<dyn Backend>>, config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Node::from_backends(backends);
        let (stop, stopped) = oneshot::channel();
        let serving = api::serve(listener, node.clone(), config, async {
            let _ = stopped.await;
        });
        Self {
            address,
            node,
            client: Client::new(),
            stop: Some(stop),
            task: tokio::spawn(serving),
        }
    }

    /// The management API of `node`.
    pub(crate) async fn managing(node: Node, config: management::Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Api::new(node.clone());
        let (stop, stopped) = oneshot::channel();
        let serving = async move {
            let stopped = async {
                let _ = stopped.await;
            };
            api.serve_management(listener, config, stopped).await
        };
        Self {
            address,
            node,
            client: Client::new(),
            stop: Some(stop),
            task: tokio::spawn(serving),
        }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client
            .post(format!("http://{}{path}", self.address))
            .json(body)
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(format!("http://{}{path}", self.address))
    }

    pub(crate) async fn chat(&self, body: &Value) -> Response {
        let request = self.post("/v1/chat/completions", body);
        request.send().await.unwrap()
    }

    /// A connection of our own, for requests that no client would send.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until the server has stopped.
    pub(crate) async fn stopped(self) {
        self.task.await.unwrap().unwrap();
    }
}

/// The answer's body, which must be JSON, and its status.
pub(crate) async fn json(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (status, body)
}

/// Checks an error answer: status, `code` and `param` of OpenAI's body.
pub(crate) async fn check_error(response: Response, status: u16, code: &str, param: Option<&str>) {
    let (found, body) = json(response).await;
    let error = &body["error"];
    assert_eq!(found.as_u16(), status, "{body}");
    assert_eq!(error["code"], code, "{body}");
    assert_eq!(error["param"], serde_json::json!(param), "{body}");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{body}"
    );
    assert!(error["type"].is_string(), "{body}");
}

/// `value` with what differs from run to run made equal.
pub(crate) fn steady(mut value: Value) -> Value {
    if let Some(id) = value["id"].as_str() {
        let prefix = id.split('-').next().unwrap().to_owned();
        assert_eq!(id.len(), prefix.len() + 33, "{id}");
        value["id"] = Value::from(format!("{prefix}-ID"));
    }
    if value["created"].is_u64() {
        value["created"] = Value::from(0);
    }
    value
}

/// Events of a stream, one line each, made steady.
pub(crate) fn steady_events(text: &str) -> String {
    let mut lines = Vec::new();
    for event in text.split_terminator("\n\n") {
        let data = event
            .strip_prefix("data: ")
            .unwrap_or_else(|| panic!("{event:?}"));
        lines.push(match serde_json::from_str(data) {
            Ok(value) => steady(value).to_string(),
            Err(_) => data.to_owned(),
        });
    }
    lines.join("\n")
}

/// Reads until the peer closes.
pub(crate) async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a close, too.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `text` has come.
pub(crate) async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = String::new();
    let mut buffer = [0; 4096];
    while !all.contains(text) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "closed before {text:?}: {all}");
        all.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    all
}

/// Sends a request with `body`, as HTTP/1.1 text.
pub(crate) async fn send(stream: &mut TcpStream, path: &str, body: &str) {
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
}
