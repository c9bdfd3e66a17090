//! Layers that no member gives come from a hub, and no others.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use gguf::{LayerMap, Model, SliceRole};
use serde_json::Value;

use crate::several::{Node, question};

/// The path at which the hub has the model.
const FILE: &str = "/acme/Six-GGUF/resolve/0a1b2c/q8/six.gguf";

/// A hub with one file, that notes what it was asked for, and answers once it is open.
struct Hub {
    url: String,
    notes: Arc<Notes>,
}

#[derive(Default)]
struct Notes {
    asked: Mutex<Vec<Asked>>,
    is_open: Mutex<bool>,
    opens: Condvar,
}

#[derive(Debug, Clone, PartialEq)]
struct Asked {
    path: String,
    bytes: Range<u64>,
}

impl Hub {
    fn start(file: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let notes = Arc::new(Notes::default());
        let own = Arc::clone(&notes);
        let file = Arc::new(file);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (file, notes) = (Arc::clone(&file), Arc::clone(&own));
                std::thread::spawn(move || answer(stream, &file, &notes));
            }
        });
        Self { url, notes }
    }

    fn open(&self) {
        *self.notes.is_open.lock().unwrap() = true;
        self.notes.opens.notify_all();
    }
}

/// Answers the requests of one connection.
fn answer(mut stream: TcpStream, file: &[u8], notes: &Notes) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    loop {
        let head: Vec<String> = lines
            .by_ref()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        let Some(first) = head.first() else { return };
        let path = first.split(' ').nth(1).unwrap().to_owned();
        let range = head.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let value = value.strip_prefix("bytes=")?;
            name.eq_ignore_ascii_case("range").then(|| value.to_owned())
        });
        let (start, last) = range.as_deref().unwrap().split_once('-').unwrap();
        let (start, last): (u64, u64) = (start.parse().unwrap(), last.parse().unwrap());
        let bytes = start..(last + 1).min(file.len() as u64);
        let body = &file[bytes.start as usize..bytes.end as usize];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\n\r\n",
            bytes.end - 1,
            file.len(),
            body.len()
        );
        notes.asked.lock().unwrap().push(Asked { path, bytes });
        let is_open = notes.is_open.lock().unwrap();
        drop(notes.opens.wait_while(is_open, |open| !*open).unwrap());
        let sent = stream.write_all(head.as_bytes());
        if sent.and_then(|()| stream.write_all(body)).is_err() {
            return;
        }
    }
}

/// A folder like the Hugging Face cache, with the starter model.
fn cache() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder
        .path()
        .join("models--acme--Six-GGUF/snapshots/0a1b2c/q8");
    std::fs::create_dir_all(&inside).unwrap();
    let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");
    let path = inside.join("six.gguf");
    std::fs::copy(starter, &path).unwrap();
    (folder, path)
}

#[tokio::test]
async fn a_worker_fetches_from_the_hub_what_no_member_gives() {
    let (folder, path) = cache();
    let hub = Hub::start(std::fs::read(&path).unwrap());
    let models = folder.path().display().to_string();
    let host = Node::start(&[
        "--models-dir",
        &models,
        "--split",
        "--model=six",
        "--no-share",
        "--ctx-size=4096",
        "--node-name=host",
    ]);
    let empty = tempfile::tempdir().unwrap();
    let nothing = empty.path().display().to_string();
    let worker = Node::join(
        &host.ticket(),
        &[
            "--models-dir",
            &nothing,
            "--standby",
            "--hub",
            &hub.url,
            "--node-name=attic",
        ],
    );
    // Everybody can see what is waited for.
    host.until(|status| {
        let loading = &status["models"][0]["loading"][0];
        let summary = loading["summary"].as_str().unwrap_or_default();
        summary.starts_with("attic: fetching layers 0-") && summary.ends_with(" %")
    })
    .await;
    hub.open();
    host.until(|status| status["models"][0]["state"] == "ready")
        .await;
    let status = host.status().await;
    assert!(status["models"][0]["loading"].is_null(), "{status:#}");
    let stage = &status["models"][0]["split"]["stages"][0];
    assert_eq!(stage["id"], worker.status().await["node"]["id"]);
    let number = |key: &str| u32::try_from(stage[key].as_u64().unwrap()).unwrap();
    let layers = number("first_layer")..number("last_layer") + 1;

    // Nothing but the tensors of these layers was asked for.
    let model = Model::open(&path).unwrap();
    let plan = LayerMap::of(&model).unwrap().plan(layers, SliceRole::Stage);
    let plan = plan.unwrap();
    let ranges = plan.ranges();
    let asked = hub.notes.asked.lock().unwrap().clone();
    for one in &asked {
        assert_eq!(one.path, FILE);
        let within =
            |range: &Range<u64>| range.start <= one.bytes.start && one.bytes.end <= range.end;
        assert!(
            ranges.iter().any(|r| within(&r.bytes)),
            "{one:?} of {ranges:?}"
        );
    }
    let bytes: u64 = asked
        .iter()
        .map(|one| one.bytes.end - one.bytes.start)
        .sum();
    assert!(bytes >= plan.copied_bytes() && bytes < 2 * plan.copied_bytes());

    // And it is the model.
    let alone = Node::start(&[
        &format!("--model={}", path.display()),
        "--no-mesh",
        "--ctx-size=4096",
    ]);
    let mut asked: Value = question(24, true);
    asked["model"] = "six".into();
    let expected = alone.ask(&asked).await.content().await;
    assert_eq!(host.ask(&asked).await.content().await, expected);
}
