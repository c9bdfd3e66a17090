//! `GET /api/events`: a snapshot, then what changes, and nothing while nothing does.

use std::sync::Arc;
use std::time::Duration;

use api::management::{Change, Config, Event, ModelPhase, Status};
use engine::Backend;
use futures::StreamExt;
use futures::stream::BoxStream;
use node::{Node, Settings};
use reqwest::header::CONTENT_TYPE;
use tokio::io::AsyncWriteExt;

use super::loader::{Order, loading};
use crate::script::{Scripted, info, say};
use crate::server::{Server, check_error, read_all, read_until};

/// Short enough for a test, long enough for any machine to notice in between.
const SHORT: Duration = Duration::from_millis(200);

/// A stream of events, cut into its parts.
struct Reader {
    bytes: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Reader {
    async fn open(server: &Server) -> Self {
        let response = server.get("/api/events").send().await.unwrap();
        assert_eq!(response.status(), 200);
        let kind = &response.headers()[CONTENT_TYPE];
        assert_eq!(kind, "text/event-stream; charset=utf-8");
        Self {
            bytes: response.bytes_stream().boxed(),
            text: String::new(),
        }
    }

    /// The next event or comment as it came; `None` at the end.
    async fn raw(&mut self) -> Option<String> {
        loop {
            if let Some((first, rest)) = self.text.split_once("\n\n") {
                let (first, rest) = (first.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(first);
            }
            let piece = self.bytes.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            let raw = self.raw().await?;
            if raw.starts_with(':') {
                continue;
            }
            let (name, data) = raw.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            return Some(Event::read(name, data).unwrap().unwrap());
        }
    }

    async fn snapshot(&mut self) -> Status {
        match self.event().await {
            Some(Event::Snapshot(status)) => status,
            other => panic!("the snapshot comes first: {other:?}"),
        }
    }

    async fn change(&mut self) -> Change {
        match self.event().await {
            Some(Event::Change(change)) => change,
            other => panic!("no change: {other:?}"),
        }
    }
}

/// A node that serves `backends`. What it may use of the machine's memory is always free, so that
/// what runs beside a test makes no news.
fn steady(backends: Vec<Arc<dyn Backend>>) -> Node {
    let settings = Settings {
        memory_bytes_max: Some(64 << 20),
        ..Settings::default()
    };
    Node::from_backends_with(settings, backends)
}

fn quick(config: api::Config) -> Config {
    Config {
        server: config,
        ..Config::default()
    }
}

#[tokio::test]
async fn a_model_is_followed_from_loading_to_ready() {
    let (node, orders) = loading(&["m"]).await;
    let server = Server::managing(node, Config::default()).await;
    let mut reader = Reader::open(&server).await;
    let mut state = reader.snapshot().await;
    assert_eq!(state.models[0].state, ModelPhase::Loading);
    orders.send(Order::Progress(0.5)).unwrap();
    let mut changes = 0;
    while state.models[0].state != ModelPhase::Ready {
        let change = reader.change().await;
        state.apply(change);
        changes += 1;
        if state.models[0].progress == 0.5 {
            orders.send(Order::Finish).unwrap();
        }
    }
    // The role follows; whoever asks now gets what the reader holds.
    while state.node.role != api::management::Role::Serving {
        state.apply(reader.change().await);
    }
    assert!(changes >= 2, "{changes}");
    let asked: Status = server
        .get("/api/status")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(asked.models, state.models);
}

#[tokio::test]
async fn nothing_is_sent_while_nothing_changes() {
    let config = quick(api::Config {
        keep_alive_interval: SHORT,
        ..api::Config::default()
    });
    let model = Scripted::new(|_| Ok(say(&["ok"])));
    let server = Server::managing(steady(vec![model.clone()]), config).await;
    let mut reader = Reader::open(&server).await;
    reader.snapshot().await;
    // Longer than the node's figures are left unlooked at.
    for _ in 0..8 {
        assert_eq!(reader.raw().await.unwrap(), ": keep-alive");
    }
    // A figure that changes without notice is found all the same.
    model.live.send_replace(2);
    match reader.change().await {
        Change::Model(model) => assert_eq!(model.running, 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_stream_ends_when_the_node_stops() {
    let model = Scripted::new(|_| Ok(say(&["ok"])));
    let mut server = Server::managing(steady(vec![model]), Config::default()).await;
    let mut reader = Reader::open(&server).await;
    reader.snapshot().await;
    server.node.shutdown(SHORT).await;
    match reader.change().await {
        Change::Node(node) => assert!(node.stopping),
        other => panic!("{other:?}"),
    }
    // It goes on until the server stops too, and does not hold that back.
    server.stop();
    server.stopped().await;
    assert!(reader.event().await.is_none());
}

#[tokio::test]
async fn readers_are_bounded() {
    let config = Config {
        readers_max: 2,
        ..Config::default()
    };
    let server = Server::managing(steady(Vec::new()), config).await;
    let mut first = Reader::open(&server).await;
    let mut second = Reader::open(&server).await;
    first.snapshot().await;
    second.snapshot().await;
    let third = server.get("/api/events").send().await.unwrap();
    check_error(third, 429, "too_many_streams", None).await;
    drop(first);
    // The place is free once the server has noticed.
    while server.get("/api/events").send().await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
}

/// A state that is larger than what the kernel holds for a reader that takes nothing.
#[tokio::test]
async fn a_reader_that_reads_nothing_is_cut() {
    let models = (0..64).map(|number| {
        let name = format!("{number}-{}", "x".repeat(256 * 1024));
        Scripted::with_info(info(&name), |_| Ok(say(&["ok"]))) as Arc<dyn Backend>
    });
    let config = Config {
        readers_max: 1,
        ..quick(api::Config {
            write_stall_timeout: SHORT,
            ..api::Config::default()
        })
    };
    let server = Server::managing(steady(models.collect()), config).await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut deaf, "event: snapshot").await;
    // Its place is taken until it is cut.
    while server.get("/api/events").send().await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
    let rest = read_all(&mut deaf).await;
    assert!(rest.len() < 64 * 256 * 1024, "{}", rest.len());
}
