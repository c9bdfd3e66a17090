//! Chunks from a hub that notes every range it was asked for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use gguf::SliceRole;
use split::weights::{FetchError, HttpSource, HubFiles, Source};

use crate::world::World;

/// What the hub does beside answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Good,
    /// The first so many requests get an error that passes.
    BusyFirst(usize),
    /// Every body breaks off half-way, the first so many times.
    BreaksFirst(usize),
    /// Gives the whole file, whatever is asked for.
    Whole,
    /// Gives another range of the same length.
    Shifted,
    Gone,
    /// Sends on to itself for ever.
    Loops,
    WrongBytes,
}

#[derive(Clone)]
struct Hub {
    file: Arc<Vec<u8>>,
    manner: Manner,
    asked: Arc<Mutex<Vec<(u64, u64)>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

async fn answer(State(hub): State<Hub>, request: Request) -> Response {
    let count = {
        let mut requests = hub.requests.lock().unwrap();
        requests.push(request.uri().path().to_owned());
        requests.len()
    };
    if request.uri().path() == "/acme/model/resolve/main/model.gguf" {
        return (StatusCode::FOUND, [(header::LOCATION, "/bytes")]).into_response();
    }
    match hub.manner {
        Manner::Gone => return StatusCode::NOT_FOUND.into_response(),
        Manner::Loops => {
            return (StatusCode::FOUND, [(header::LOCATION, "/bytes")]).into_response();
        }
        Manner::BusyFirst(n) if count <= n => {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        Manner::Whole => return hub.file.to_vec().into_response(),
        _ => {}
    }
    let range = request.headers()[header::RANGE].to_str().unwrap();
    let (start, last) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let (mut start, last): (u64, u64) = (start.parse().unwrap(), last.parse().unwrap());
    let mut end = (last + 1).min(hub.file.len() as u64);
    hub.asked.lock().unwrap().push((start, end));
    if hub.manner == Manner::Shifted {
        (start, end) = (start - 1, end - 1);
    }
    let mut bytes = hub.file[start as usize..end as usize].to_vec();
    if hub.manner == Manner::WrongBytes {
        bytes.iter_mut().for_each(|b| *b ^= 1);
    }
    let content = format!("bytes {start}-{}/{}", end - 1, hub.file.len());
    let response = Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, content);
    if matches!(hub.manner, Manner::BreaksFirst(n) if count <= n) {
        let length = bytes.len();
        bytes.truncate(length / 2);
        let response = response.header(header::CONTENT_LENGTH, length);
        return response.body(Body::from_stream(broken(bytes))).unwrap();
    }
    response.body(Body::from(bytes)).unwrap()
}

fn broken(bytes: Vec<u8>) -> impl futures::Stream<Item = std::io::Result<Vec<u8>>> {
    let end = Err(std::io::ErrorKind::ConnectionReset.into());
    futures::stream::iter([Ok(bytes), end])
}

impl Hub {
    async fn start(world: &World, manner: Manner) -> (Self, HubFiles) {
        let hub = Self {
            file: Arc::new(world.file.clone()),
            manner,
            asked: Arc::default(),
            requests: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(hub.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let files = HubFiles {
            hub: format!("http://{address}/"),
            repo: "acme/model".to_owned(),
            revision: "main".to_owned(),
            files: vec!["model.gguf".to_owned()],
            token: None,
        };
        (hub, files)
    }
}

async fn fetched(world: &World, manner: Manner) -> (Hub, Result<Vec<u8>, FetchError>) {
    let (hub, files) = Hub::start(world, manner).await;
    let source: Arc<dyn Source> = Arc::new(HttpSource::new(files).unwrap());
    let (slice, _) = world.fetch(&world.cache("cache"), vec![source]).await;
    (hub, slice.map(|slice| std::fs::read(slice.path()).unwrap()))
}

#[tokio::test]
async fn only_the_ranges_of_the_slice_are_asked_for_and_each_once() {
    for (layers, role) in [(1..3, SliceRole::Stage), (3..4, SliceRole::Tail)] {
        let world = World::of(layers, role);
        let (hub, slice) = fetched(&world, Manner::Good).await;
        assert_eq!(slice.unwrap(), world.expected());
        let ranges = world.job.plan().ranges();
        let mut asked = hub.asked.lock().unwrap().clone();
        asked.sort_unstable();
        assert!(!asked.is_empty() && asked.windows(2).all(|w| w[0].1 <= w[1].0));
        for &(start, end) in &asked {
            let inside = ranges
                .iter()
                .any(|r| r.bytes.start <= start && end <= r.bytes.end);
            assert!(inside, "{start}..{end} is not in {ranges:?}");
        }
        let bytes: u64 = asked.iter().map(|(start, end)| end - start).sum();
        assert!(bytes >= world.job.chunk_bytes());
        // Chunks that lie together are asked for together.
        assert!(asked.len() < world.job.chunks().len());
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for manner in [Manner::BusyFirst(3), Manner::BreaksFirst(4)] {
        let world = World::new();
        let (_, slice) = fetched(&world, manner).await;
        assert_eq!(slice.unwrap(), world.expected(), "{manner:?}");
    }
}

#[tokio::test]
async fn a_hub_that_does_otherwise_is_left_out() {
    for (manner, reason) in [
        (Manner::Whole, "does not give ranges"),
        (Manner::Shifted, "another range"),
        (Manner::Gone, "404"),
        (Manner::Loops, "too many redirects"),
        (Manner::WrongBytes, "wrong bytes"),
    ] {
        let world = World::new();
        let (hub, slice) = fetched(&world, manner).await;
        let error = slice.unwrap_err().to_string();
        assert!(error.contains(reason), "{manner:?}: {error}");
        // Batches that were under way at once, with their redirects, and no more.
        let requests = hub.requests.lock().unwrap().len();
        assert!(requests <= 40, "{manner:?}: {requests} requests");
    }
}

#[tokio::test]
async fn a_hub_may_have_the_model_in_a_file_of_another_order() {
    let mut world = World::new();
    let (path, file) = world.reordered();
    let expected = world.expected();
    world.file = file;
    let (_, files) = Hub::start(&world, Manner::Good).await;
    let model = gguf::Model::open(path).unwrap();
    let hub = HttpSource::new(files).unwrap().with_layout(&model).unwrap();
    let (slice, progress) = world
        .fetch(&world.cache("cache"), vec![Arc::new(hub)])
        .await;
    assert_eq!(std::fs::read(slice.unwrap().path()).unwrap(), expected);
    assert_eq!(progress.sources[0].left_out, None);
}

#[tokio::test]
async fn headers_come_in_pieces_and_are_checked() {
    let world = World::new();
    let (hub, files) = Hub::start(&world, Manner::BusyFirst(1)).await;
    let source = HttpSource::new(files).unwrap();
    let wanted = world.model.fingerprint();
    let read = tokio::time::timeout(Duration::from_secs(60), source.headers(wanted));
    let (_, model) = read.await.unwrap().unwrap();
    assert_eq!(model.fingerprint(), wanted);
    assert_eq!(hub.asked.lock().unwrap().as_slice(), [(0, 1 << 20)]);
    let other = gguf::Fingerprint([7; 32]);
    assert!(source.headers(other).await.is_err());
}
