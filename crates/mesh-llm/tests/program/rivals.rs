//! Two hosts that ask one worker at once.

use serde_json::Value;

use crate::alphabet::{HOST_GB, LARGE_CONTEXT, assert_alphabet, write_large_as};
use crate::several::{Node, question};

/// Three layers of one of the two models, and not of both.
const ROOM_FOR_ONE_GB: &str = "0.65";

const LETTERS: u32 = 100;

/// A host that keeps one layer of the model of this name.
struct Rival {
    name: &'static str,
    node: Node,
    _shelf: tempfile::TempDir,
}

impl Rival {
    fn start(name: &'static str, ticket: Option<&str>) -> Self {
        let shelf = tempfile::tempdir().unwrap();
        write_large_as(shelf.path(), name);
        let arguments = [
            "--split".to_owned(),
            "--grace-seconds=0".to_owned(),
            format!("--model={name}"),
            format!("--node-name=host-of-{name}"),
            format!("--models-dir={}", shelf.path().display()),
            format!("--ctx-size={LARGE_CONTEXT}"),
            format!("--max-vram={HOST_GB}"),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let node = match ticket {
            Some(ticket) => Node::join(ticket, &arguments),
            None => Node::start(&arguments),
        };
        Self {
            name,
            node,
            _shelf: shelf,
        }
    }

    async fn state(&self) -> String {
        let status = self.node.status().await;
        status["models"][0]["state"].as_str().unwrap().to_owned()
    }

    async fn comes_to(&self, state: &str) {
        let comes = |status: &Value| status["models"][0]["state"] == state;
        self.node.until(comes).await;
    }

    async fn answers(&self) {
        let mut question = question(LETTERS, true);
        question["model"] = self.name.into();
        let text = self.node.ask(&question).await.content().await;
        assert_alphabet(&text, LETTERS as usize);
    }
}

/// A worker that has none of the models, so that it only lends itself.
fn worker(ticket: &str, gb: &str, nothing: &tempfile::TempDir) -> Node {
    let folder = nothing.path().display().to_string();
    let room = format!("--max-vram={gb}");
    let named = ["--standby", "--node-name=worker", &room, "--models-dir"];
    Node::join(ticket, &[&named[..], &[&folder]].concat())
}

/// Whoever comes first has it; the other one says what it waits for, and gets it afterwards.
#[tokio::test]
async fn a_worker_with_room_for_one_host_serves_one_and_then_the_other() {
    let first = Rival::start("first", None);
    let ticket = first.node.ticket();
    let second = Rival::start("second", Some(&ticket));
    for rival in [&first, &second] {
        rival.comes_to("waiting").await;
    }
    let nothing = tempfile::tempdir().unwrap();
    let _worker = worker(&ticket, ROOM_FOR_ONE_GB, &nothing);
    // Both begin at once.
    let won = tokio::select! {
        () = first.comes_to("ready") => true,
        () = second.comes_to("ready") => false,
    };
    let (winner, loser) = match won {
        true => (first, second),
        false => (second, first),
    };
    winner.answers().await;
    assert_ne!(loser.state().await, "ready");
    winner.node.running.signal("TERM");
    loser.comes_to("ready").await;
    loser.answers().await;
}

/// With room for both it computes for both.
#[tokio::test]
async fn a_worker_with_room_for_two_hosts_serves_both_at_once() {
    let first = Rival::start("first", None);
    let ticket = first.node.ticket();
    let second = Rival::start("second", Some(&ticket));
    let nothing = tempfile::tempdir().unwrap();
    let _worker = worker(&ticket, "2", &nothing);
    for rival in [&first, &second] {
        rival.comes_to("ready").await;
    }
    tokio::join!(first.answers(), second.answers());
}
