//! Machines that are network namespaces; each runs the real binary.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use testkit::net::{Lab, Link, Process};
use tokio::time::{sleep, timeout};

/// Longest wait for anything; the machine may be busy.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Pause between two looks at a status.
const LOOK: Duration = Duration::from_millis(100);

/// A machine of the lab with a node that is ready.
struct Machine<'a> {
    lab: &'a Lab,
    host: usize,
    ready: Value,
    _process: Process,
    _home: tempfile::TempDir,
}

fn bad_network(hosts: usize) -> Lab {
    let lab = Lab::new(hosts).unwrap();
    lab.set_all(Link::round_trip_ms(20).with_loss(0.01));
    lab
}

impl<'a> Machine<'a> {
    fn start(lab: &'a Lab, host: usize, name: &str, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-llm"));
        command
            .env_clear()
            .env("HOME", home.path())
            .args([
                "--log-format=json",
                "--no-relay",
                "--no-mdns",
                "--node-name",
                name,
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = lab.host(host).spawn(command).unwrap();
        let lines = follow(process.stdout.take().unwrap());
        Self {
            lab,
            host,
            ready: ready(&lines),
            _process: process,
            _home: home,
        }
    }

    fn ticket(&self) -> &str {
        self.ready["ticket"].as_str().unwrap()
    }

    /// Runs something with an HTTP client inside the host.
    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(
            self.lab
                .host(self.host)
                .run(async move { timeout(WAIT_MAX, work).await.expect("it hangs") }),
        )
    }

    /// Waits until the node knows so many hosts of the starter model.
    fn knows(&self, hosts: usize) {
        self.run(async move {
            loop {
                let status = reqwest::get("http://127.0.0.1:3131/api/status")
                    .await
                    .unwrap();
                let status: Value = status.json().await.unwrap();
                let targets = status["targets"].as_array().unwrap().iter();
                let hosts_of = |target: &Value| target["hosts"].as_array().unwrap().len();
                if targets.map(hosts_of).sum::<usize>() == hosts {
                    return;
                }
                sleep(LOOK).await;
            }
        });
    }
}

fn follow(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn ready(lines: &Receiver<String>) -> Value {
    loop {
        let line = lines
            .recv_timeout(WAIT_MAX)
            .expect("the node is never ready");
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_ne!(event["event"], "error", "{event}");
        if event["event"] == "ready" {
            return event;
        }
    }
}

/// An answer whose words are given, so that it is the same wherever it is cut.
fn question(numbers: u32) -> Value {
    json!({
        "model": "starter",
        "messages": [{ "role": "user", "content": "Count." }],
        "grammar": format!("root ::= \"{}\"", answer(numbers)),
        "max_tokens": 3_000,
        "stream": true,
    })
}

fn answer(numbers: u32) -> String {
    (0..numbers).map(|number| format!("{number}, ")).collect()
}

/// Asks the node of this host; calls `begun` with the name of the machine that answers once the
/// first words are there. Gives all words.
async fn ask(question: Value, begun: impl FnOnce(String) + Send) -> String {
    let client = reqwest::Client::new();
    let url = "http://127.0.0.1:9337/v1/chat/completions";
    let response = client.post(url).json(&question).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let host = response.headers()["x-mesh-llm-host"]
        .to_str()
        .unwrap()
        .to_owned();
    let mut bytes = response.bytes_stream();
    let (mut text, mut begun) = (String::new(), Some(begun));
    while let Some(piece) = bytes.next().await {
        text += &String::from_utf8_lossy(&piece.unwrap());
        if text.contains("\"content\":\"1")
            && let Some(begun) = begun.take()
        {
            begun(host.clone());
        }
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: {"));
    let content = lines.map(|line| {
        let chunk: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
        assert!(chunk["error"].is_null(), "{chunk}");
        chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    content.collect()
}

pub(crate) fn machines_answer_for_each_other_over_bad_links() {
    let lab = bad_network(3);
    let first = Machine::start(&lab, 0, "first", &["--model=starter"]);
    let second = Machine::start(&lab, 1, "second", &["--join", first.ticket(), "--standby"]);
    let client = Machine::start(&lab, 2, "client", &["--join", first.ticket(), "--client"]);
    for machine in [&second, &client] {
        machine.knows(1);
        let words = machine.run(ask(question(60), |host| {
            assert!(host.starts_with("first ("), "{host}");
        }));
        assert_eq!(words, answer(60));
    }
}

pub(crate) fn an_answer_goes_on_when_the_cable_to_its_host_is_cut() {
    let lab = std::sync::Arc::new(bad_network(3));
    let first = Machine::start(&lab, 0, "first", &["--model=starter"]);
    let second = Machine::start(
        &lab,
        1,
        "second",
        &["--join", first.ticket(), "--model=starter"],
    );
    let client = Machine::start(&lab, 2, "client", &["--join", first.ticket(), "--client"]);
    client.knows(2);
    let cables = std::sync::Arc::clone(&lab);
    let words = client.run(ask(question(400), move |host| {
        cables.isolate(usize::from(host.starts_with("second (")));
    }));
    assert_eq!(words, answer(400));
    client.knows(1);
    for host in [0, 1] {
        lab.rejoin(host);
    }
    client.knows(2);
    drop((first, second));
}
