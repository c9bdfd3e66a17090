//! Several machines: real processes that join over real QUIC on loopback.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use testkit::model::{Architecture, ModelSpec};
use tokio::time::{sleep, timeout};

use crate::alphabet::write_alphabet;
use crate::process::{Program, Running};

/// Longest wait for something that takes moments; the machine may be busy.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Pause between two looks at a status.
const LOOK: Duration = Duration::from_millis(50);

/// An answer that is long enough to be cut off. Its words are given, as a grammar: where the small
/// model does not know what to say, rounding decides, and that differs between batches of different
/// shapes.
fn long_question() -> Value {
    let words: String = (0..300).map(|number| format!("{number}, ")).collect();
    let mut question = question(2_000, true);
    question["grammar"] = format!("root ::= \"{words}\"").into();
    question["ignore_eos"] = false.into();
    question
}

fn long_answer() -> String {
    (0..300).map(|number| format!("{number}, ")).collect()
}

/// A node that is ready.
pub(crate) struct Node {
    pub(crate) running: Running,
    ready: Value,
    client: Client,
}

fn program(arguments: &[&str]) -> Program {
    Program::node(&[&["--parallel=8"], arguments].concat())
}

impl Node {
    fn of(running: Running) -> Self {
        let ready = running.event("ready");
        Self {
            running,
            ready,
            client: Client::new(),
        }
    }

    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(program(arguments).start())
    }

    pub(crate) fn join(ticket: &str, arguments: &[&str]) -> Self {
        Self::start(&[&["--join", ticket][..], arguments].concat())
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.ready[key]
            .as_str()
            .unwrap_or_else(|| panic!("no {key} in {}", self.ready))
            .to_owned()
    }

    pub(crate) fn ticket(&self) -> String {
        self.text("ticket")
    }

    pub(crate) async fn status(&self) -> Value {
        let url = format!("{}/api/status", self.text("console_url"));
        self.client
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn models(&self) -> Vec<String> {
        let url = format!("{}/models", self.text("api_url"));
        let list: Value = self
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let ids = list["data"].as_array().unwrap().iter();
        ids.map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until the node knows so many hosts of a model.
    pub(crate) async fn knows(&self, model: &str, hosts: usize) {
        self.until(|status| {
            let targets = status["targets"].as_array().unwrap();
            let target = targets.iter().find(|target| target["model"] == model);
            target.map_or(0, |target| target["hosts"].as_array().unwrap().len()) == hosts
        })
        .await;
    }

    /// Waits until the node's state is as wished.
    pub(crate) async fn until(&self, wish: impl Fn(&Value) -> bool) {
        let mut status = Value::Null;
        let waited = timeout(WAIT_MAX, async {
            loop {
                status = self.status().await;
                if wish(&status) {
                    return;
                }
                sleep(LOOK).await;
            }
        });
        if waited.await.is_err() {
            panic!("never came about: {status:#}");
        }
    }

    pub(crate) async fn ask(&self, body: &Value) -> Asked {
        let url = format!("{}/chat/completions", self.text("api_url"));
        let response = self.client.post(url).json(body).send().await.unwrap();
        let host = response.headers().get("x-mesh-llm-host");
        Asked {
            status: response.status(),
            host: host.map(|host| host.to_str().unwrap().to_owned()),
            bytes: response.bytes_stream().boxed(),
            text: String::new(),
            arrivals: Vec::new(),
        }
    }
}

/// An answer on its way.
pub(crate) struct Asked {
    pub(crate) status: StatusCode,
    pub(crate) host: Option<String>,
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    pub(crate) text: String,
    /// When each piece of it came.
    pub(crate) arrivals: Vec<Instant>,
}

impl Asked {
    pub(crate) async fn read(&mut self) -> bool {
        match timeout(WAIT_MAX, self.bytes.next())
            .await
            .expect("the stream hangs")
        {
            Some(Ok(bytes)) => {
                self.take(&bytes);
                true
            }
            Some(Err(error)) => panic!("{error} after {}", self.text),
            None => false,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.text += &String::from_utf8_lossy(bytes);
        self.arrivals.push(Instant::now());
    }

    /// Reads until the answer ends, breaks off or hangs; which of them it was is told by what has come.
    pub(crate) async fn read_on(&mut self) {
        while let Ok(Some(Ok(bytes))) = timeout(WAIT_MAX, self.bytes.next()).await {
            self.take(&bytes);
        }
    }

    /// Reads until so many chunks with content are there.
    pub(crate) async fn chunks(&mut self, count: usize) {
        while self.text.matches("\"content\":\"").count() < count {
            assert!(self.read().await, "ended early: {}", self.text);
        }
    }

    /// What the whole answer says.
    pub(crate) async fn content(mut self) -> String {
        while self.read().await {}
        self.said()
    }

    /// What an answer of exactly so many tokens says, whose question asked for the usage.
    pub(crate) async fn content_of(mut self, tokens: u32) -> String {
        self.ends_after(tokens).await
    }

    /// Reads such an answer to its end.
    pub(crate) async fn ends_after(&mut self, tokens: u32) -> String {
        while self.read().await {}
        let chunks = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: {"));
        let chunks: Vec<Value> = chunks
            .map(|line| serde_json::from_str(&format!("{{{line}")).unwrap())
            .collect();
        let ends = |chunk: &&Value| chunk["choices"][0]["finish_reason"] == "length";
        assert_eq!(chunks.iter().filter(ends).count(), 1, "{}", self.text);
        let counts = |chunk: &&Value| chunk["usage"]["completion_tokens"] == tokens;
        assert_eq!(chunks.iter().filter(counts).count(), 1, "{}", self.text);
        self.said()
    }

    fn said(&self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        if !self.text.starts_with("data: ") {
            let answer: Value = serde_json::from_str(&self.text).unwrap();
            return answer["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .to_owned();
        }
        assert!(self.text.ends_with("data: [DONE]\n\n"), "{}", self.text);
        let lines = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: {"));
        lines
            .map(|line| {
                let chunk: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
                assert!(chunk["error"].is_null(), "{chunk}");
                chunk["choices"][0]["delta"]["content"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }
}

/// A question with the same answer each time.
pub(crate) fn question(tokens: u32, stream: bool) -> Value {
    json!({
        "model": "starter",
        "messages": [{ "role": "user", "content": "Count to one hundred." }],
        "temperature": 0,
        "ignore_eos": true,
        "max_tokens": tokens,
        "stream": stream,
    })
}

#[tokio::test]
async fn machines_that_join_answer_for_each_other() {
    let first = Node::start(&["--model=starter", "--node-name=first"]);
    let ticket = first.ticket();
    let client = Node::join(&ticket, &["--client"]);
    client.knows("starter", 1).await;
    assert_eq!(client.models().await, ["starter"]);
    let direct = first.ask(&question(40, false)).await;
    assert_eq!(direct.host, None);
    let whole = direct.content().await;
    for stream in [false, true] {
        let answer = client.ask(&question(40, stream)).await;
        assert!(
            answer.host.as_ref().unwrap().starts_with("first ("),
            "{:?}",
            answer.host
        );
        assert_eq!(answer.content().await, whole);
    }
    let status = client.status().await;
    assert_eq!(status["node"]["role"], "client", "{status:#}");
}

#[tokio::test]
async fn a_host_that_is_killed_in_mid_answer_is_replaced() {
    let first = Node::start(&["--model=starter", "--node-name=first"]);
    let ticket = first.ticket();
    let second = Node::join(&ticket, &["--model=starter", "--node-name=second"]);
    let client = Node::join(&ticket, &["--client"]);
    client.knows("starter", 2).await;
    let whole = long_answer();

    let mut answer = client.ask(&long_question()).await;
    answer.chunks(3).await;
    let host = answer.host.clone().unwrap();
    let (killed, other) = if host.starts_with("first (") {
        (&first, &second)
    } else {
        (&second, &first)
    };
    killed.running.signal("KILL");
    assert_eq!(answer.content().await, whole, "served by {host}");
    // Nobody depends on the one that died.
    client.knows("starter", 1).await;
    assert_eq!(client.ask(&long_question()).await.content().await, whole);
    other.knows("starter", 1).await;
}

/// A small model of random weights.
fn write_model(folder: &Path, name: &str) -> PathBuf {
    let spec = ModelSpec {
        name: name.into(),
        context: 2_048,
        ..ModelSpec::tiny(Architecture::Qwen3)
    };
    let path = folder.join(format!("{name}.gguf"));
    testkit::model::write(&spec, &path).unwrap();
    path
}

fn free_question(model: &str) -> Value {
    let mut question = question(800, true);
    question["model"] = model.into();
    question
}

#[tokio::test]
async fn free_text_of_a_killed_host_is_what_it_would_have_been() {
    let folder = tempfile::tempdir().unwrap();
    let model = format!("--model={}", write_alphabet(folder.path()).display());
    let first = Node::start(&[&model, "--node-name=first"]);
    let ticket = first.ticket();
    let second = Node::join(&ticket, &[&model, "--node-name=second"]);
    let client = Node::join(&ticket, &["--client"]);
    client.knows("alphabet", 2).await;
    let question = free_question("alphabet");
    let whole = first.ask(&question).await.content().await;
    assert!(
        whole.len() == 800 && whole.contains("abcdefghijklmnopabc"),
        "{whole}"
    );
    assert_eq!(second.ask(&question).await.content().await, whole);

    let mut answer = client.ask(&question).await;
    answer.chunks(3).await;
    let host = answer.host.clone().unwrap();
    let killed = [&second, &first][usize::from(host.starts_with("first ("))];
    killed.running.signal("KILL");
    assert!(
        !answer.text.contains("[DONE]"),
        "it was too fast to be killed"
    );
    assert_eq!(answer.content().await, whole, "served by {host}");
}

#[tokio::test]
async fn two_models_on_two_machines_are_reached_from_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let model = format!("--model={}", write_model(folder.path(), "noise").display());
    let first = Node::start(&["--model=starter", "--node-name=first"]);
    let ticket = first.ticket();
    let second = Node::join(&ticket, &[&model, "--node-name=second"]);
    let client = Node::join(&ticket, &["--client"]);
    let mut texts: Vec<Vec<String>> = Vec::new();
    for node in [&first, &second, &client] {
        node.knows("starter", 1).await;
        node.knows("noise", 1).await;
        let mut models = node.models().await;
        models.sort_unstable();
        assert_eq!(models, ["noise", "starter"]);
        let mut of_node = Vec::new();
        for model in ["starter", "noise"] {
            for stream in [true, false] {
                let mut question = question(40, stream);
                question["model"] = model.into();
                let answer = node.ask(&question).await;
                let own = match model {
                    "starter" => &first,
                    _ => &second,
                };
                assert_eq!(answer.host.is_none(), std::ptr::eq(own, node), "{model}");
                of_node.push(answer.content().await);
            }
        }
        texts.push(of_node);
    }
    // The same answers, wherever they were asked for.
    assert_eq!(texts[1], texts[0]);
    assert_eq!(texts[2], texts[0]);
    // A name that nobody serves is refused, and the refusal names what there is.
    let mut unknown = question(4, false);
    unknown["model"] = "nonesuch".into();
    let mut refused = client.ask(&unknown).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    while refused.read().await {}
    assert!(refused.text.contains("`noise`"), "{}", refused.text);
}

#[tokio::test]
async fn a_joiner_hands_over_to_its_own_model_without_losing_a_request() {
    let first = Node::start(&["--model=starter", "--node-name=first"]);
    let whole = first.ask(&question(40, false)).await.content().await;
    let joiner = Node::join(&first.ticket(), &["--node-name=joiner"]);
    joiner.knows("starter", 1).await;
    // Its own one is loaded while requests go on.
    let url = format!("{}/api/models/load", joiner.text("console_url"));
    let load = async {
        let order = joiner.client.post(url).json(&json!({ "model": "starter" }));
        assert!(order.send().await.unwrap().status().is_success());
        joiner.knows("starter", 2).await;
    };
    let asking = async {
        let mut hosts = std::collections::BTreeSet::new();
        for _ in 0..2_000 {
            let answer = joiner.ask(&question(40, true)).await;
            let here = answer.host.is_none();
            hosts.insert(here);
            assert_eq!(answer.content().await, whole);
            if here {
                break;
            }
        }
        hosts
    };
    let ((), hosts) = tokio::join!(load, asking);
    assert_eq!(hosts.into_iter().collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_machine_that_pauses_loses_its_requests_and_comes_back() {
    let first = Node::start(&["--model=starter", "--node-name=first"]);
    let ticket = first.ticket();
    let second = Node::join(&ticket, &["--model=starter", "--node-name=second"]);
    let client = Node::join(&ticket, &["--client"]);
    client.knows("starter", 2).await;
    let whole = long_answer();
    let mut answer = client.ask(&long_question()).await;
    answer.chunks(3).await;
    let host = answer.host.clone().unwrap();
    let paused = if host.starts_with("first (") {
        &first
    } else {
        &second
    };
    paused.running.signal("STOP");
    assert_eq!(answer.content().await, whole, "served by {host}");
    client.knows("starter", 1).await;
    paused.running.signal("CONT");
    client.knows("starter", 2).await;
}

#[tokio::test]
async fn nobody_depends_on_the_first_machine() {
    let starting = program(&["--model=starter", "--node-name=first"]);
    let home = starting.home().to_path_buf();
    let first = Node::of(starting.start());
    let ticket = first.ticket();
    let second = Node::join(&ticket, &["--model=starter", "--node-name=second"]);
    let client = Node::join(&ticket, &["--client"]);
    client.knows("starter", 2).await;
    let key = std::fs::read(home.join(".mesh-llm/key")).unwrap();
    let kept = || {
        let meshes = std::fs::read_dir(home.join(".mesh-llm/meshes"))
            .unwrap()
            .flatten();
        meshes
            .into_iter()
            .any(|mesh| mesh.path().join("bootstrap").exists())
    };
    timeout(WAIT_MAX, async {
        while !kept() {
            sleep(LOOK).await;
        }
    })
    .await
    .expect("it never writes down who the others are");
    first.running.signal("KILL");
    client.knows("starter", 1).await;
    assert!(
        !client
            .ask(&question(5, false))
            .await
            .content()
            .await
            .is_empty()
    );
    // It comes back with the same key: another life of the same node.
    let id = first.text("node_id");
    let again = Node::of(
        program(&["--model=starter", "--node-name=first"])
            .env("MESH_LLM_HOME", home.join(".mesh-llm"))
            .start(),
    );
    assert_eq!(again.text("node_id"), id);
    assert_eq!(again.text("mesh_id"), second.text("mesh_id"));
    assert_eq!(std::fs::read(home.join(".mesh-llm/key")).unwrap(), key);
    client.knows("starter", 2).await;
    again.knows("starter", 2).await;
}

#[tokio::test]
async fn a_revoked_ticket_admits_nobody_and_its_members_go() {
    let first = Node::start(&["--model=starter", "--node-name=first"]);
    let url = format!("{}/api/invites", first.text("console_url"));
    let http = Client::new();
    let invited = http
        .post(&url)
        .json(&json!({ "role": "client" }))
        .send()
        .await
        .unwrap();
    assert_eq!(invited.status(), StatusCode::CREATED);
    let invited: Value = invited.json().await.unwrap();
    let ticket = invited["ticket"].as_str().unwrap();
    let client = Node::join(ticket, &["--client"]);
    client.knows("starter", 1).await;
    let revoked = format!("{url}/{}", invited["id"].as_str().unwrap());
    let gone = http.delete(revoked).send().await.unwrap();
    assert!(gone.status().is_success(), "{}", gone.status());
    client.knows("starter", 0).await;
    let late = program(&["--client", "--join", ticket]).run();
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.stdout.contains("revoked"), "{}", late.stdout);
}

#[tokio::test]
async fn fifty_clients_at_once() {
    const CLIENTS: usize = 50;
    let first = Node::start(&["--model=starter", "--node-name=first", "--queue=200"]);
    let ticket = first.ticket();
    let clients: Vec<Running> = (0..CLIENTS)
        .map(|_| program(&["--client", "--join", &ticket]).start())
        .collect();
    let clients: Vec<Node> = clients.into_iter().map(Node::of).collect();
    // So far it is sure of what it says: in a crowd the last bits are others.
    const TOKENS: u32 = 16;
    let whole = first.ask(&question(TOKENS, false)).await.content().await;
    let answers = clients.iter().map(|client| async {
        client.knows("starter", 1).await;
        client.ask(&question(TOKENS, true)).await.content().await
    });
    for answer in futures::future::join_all(answers).await {
        assert_eq!(answer, whole);
    }
    first
        .until(|status| status["mesh"]["clients"] == CLIENTS)
        .await;
}
