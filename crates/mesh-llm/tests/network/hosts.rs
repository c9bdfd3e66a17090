//! Machines that are network namespaces; each runs the real binary.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use futures::StreamExt;
use mesh::identity::StateDir;
use mesh::ticket::Ticket;
use mesh::{Addresses, NodeId};
use serde_json::{Value, json};
use testkit::net::{Lab, Link, Process};
use tokio::time::{sleep, timeout};

use crate::alphabet::{assert_alphabet, write_alphabet};

/// Longest wait for anything; the machine may be busy.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Pause between two looks at a status.
const LOOK: Duration = Duration::from_millis(100);

/// Keeps a node to what its ticket says: no relay is looked for, and no multicast heard.
const DIRECT_ONLY: &[&str] = &["--no-relay", "--no-mdns"];

/// Letters of an answer that something happens to: without drafting about a second's work.
const LETTERS: u32 = 2_000;

/// Pieces of an answer that are there before something happens to it.
const BEGUN_PIECES: usize = 2;

/// A machine of the lab with a node that is ready.
pub(crate) struct Machine<'a> {
    lab: &'a Lab,
    pub(crate) host: usize,
    ready: Value,
    /// What the node says, a line each. Machines are shared between threads.
    lines: Mutex<Receiver<String>>,
    pub(crate) process: Process,
    pub(crate) home: tempfile::TempDir,
}

fn bad_network(hosts: usize) -> Lab {
    let lab = Lab::new(hosts).unwrap();
    lab.set_all(Link::round_trip_ms(20).with_loss(0.01));
    lab
}

impl<'a> Machine<'a> {
    pub(crate) fn start(lab: &'a Lab, host: usize, name: &str, arguments: &[&str]) -> Self {
        Self::start_at(lab, host, name, arguments, tempfile::tempdir().unwrap())
    }

    /// A machine whose node looks for relays and listens to multicast, as everybody's does.
    pub(crate) fn start_as_it_comes(
        lab: &'a Lab,
        host: usize,
        name: &str,
        arguments: &[&str],
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self::start_with(lab, host, name, (&[], arguments), home)
    }

    /// A machine with these files: one that was switched off comes back.
    fn start_at(
        lab: &'a Lab,
        host: usize,
        name: &str,
        arguments: &[&str],
        home: tempfile::TempDir,
    ) -> Self {
        Self::start_with(lab, host, name, (DIRECT_ONLY, arguments), home)
    }

    fn start_with(
        lab: &'a Lab,
        host: usize,
        name: &str,
        (network, arguments): (&[&str], &[&str]),
        home: tempfile::TempDir,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-llm"));
        command
            .env_clear()
            .env("HOME", home.path())
            // Several machines on the cores of one: their threads would wait for each other at every operator.
            .env("MESH_LLM_THREADS", "1")
            .args(["--log-format=json", "--node-name", name])
            .args(network)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = lab.host(host).spawn(command).unwrap();
        let lines = follow(process.stdout.take().unwrap());
        let ready = hear(&lines, WAIT_MAX, |event| event["event"] == "ready");
        Self {
            lab,
            host,
            ready,
            lines: Mutex::new(lines),
            process,
            home,
        }
    }

    /// Waits for an event that is as wished, so long at most.
    pub(crate) fn hears(&self, wait_max: Duration, is_wished: impl Fn(&Value) -> bool) -> Value {
        hear(&self.lines.lock().unwrap(), wait_max, is_wished)
    }

    /// Ends without a word, as when the power fails; gives the files that are left.
    fn kill(mut self) -> tempfile::TempDir {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.home
    }

    /// Waits until its files say where another machine is: that is what it comes back to after a power cut. Of a machine
    /// that has printed a ticket, the address in it counts: one that has started anew is at another port.
    fn has_written_down(&self, other: &Machine<'_>) {
        let mesh = self.text("mesh_id").parse().unwrap();
        let files = StateDir::new(self.home.path().join(".mesh-llm")).mesh(mesh);
        let node: NodeId = other.text("node_id").parse().unwrap();
        let ticket = other.ready["ticket"].as_str().map(|ticket| {
            let ticket: Ticket = ticket.parse().unwrap();
            ticket.terms().bootstrap.clone()
        });
        let is_there = move |known: &Addresses| {
            let mut told = ticket.iter().flatten().filter(|(told, _)| *told == node);
            let direct = known.direct();
            ticket.is_none()
                || told.any(|(_, told)| told.direct().iter().any(|at| direct.contains(at)))
        };
        self.run(async move {
            let is_written = || {
                let mut known = files.bootstrap().unwrap().into_iter();
                known.any(|(known, addresses)| known == node && is_there(&addresses))
            };
            while !is_written() {
                sleep(LOOK).await;
            }
        });
    }

    pub(crate) fn ticket(&self) -> &str {
        self.ready["ticket"].as_str().unwrap()
    }

    /// Runs something with an HTTP client inside the host.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(
            self.lab
                .host(self.host)
                .run(async move { timeout(WAIT_MAX, work).await.expect("it hangs") }),
        )
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.ready[key].as_str().unwrap().to_owned()
    }

    /// Waits until the node knows so many hosts of all models together.
    pub(crate) fn knows(&self, hosts: usize) {
        self.until(move |status| {
            let targets = status["targets"].as_array().unwrap().iter();
            let hosts_of = |target: &Value| target["hosts"].as_array().unwrap().len();
            targets.map(hosts_of).sum::<usize>() == hosts
        });
    }

    /// Waits until the node's state is as wished.
    pub(crate) fn until(&self, is_wished: impl Fn(&Value) -> bool + Send + 'static) {
        let url = format!("{}/api/status", self.text("console_url"));
        self.run(async move {
            loop {
                let status: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
                if is_wished(&status) {
                    return;
                }
                sleep(LOOK).await;
            }
        });
    }

    /// Asks this node; see [`ask`].
    pub(crate) fn ask(
        &self,
        question: Value,
        begun: impl FnOnce(&str, &str) + Send + 'static,
    ) -> String {
        self.run(ask(self.text("api_url"), question, begun))
    }

    /// Has the `first` or the `second` machine say the alphabet; in the middle of it `harm` gets 0 or 1 for
    /// the one that does.
    fn ask_despite(&self, harm: impl FnOnce(usize) + Send + 'static) -> String {
        self.ask(letters(), |host, text| {
            assert!(!text.contains("[DONE]"), "it was over before the harm");
            let index = usize::from(host.starts_with("second ("));
            assert!(index == 1 || host.starts_with("first ("), "{host}");
            harm(index);
        })
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

/// Waits for an event that is as wished, so long at most.
fn hear(lines: &Receiver<String>, wait_max: Duration, is_wished: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + wait_max;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(rest);
        let line = line.unwrap_or_else(|_| panic!("the node did not say it within {wait_max:?}"));
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_ne!(event["event"], "error", "{event}");
        if is_wished(&event) {
            return event;
        }
    }
}

/// A question to the model that is sure of what it says. Nothing but the model gives its words, so that a
/// machine that goes on at a wrong place, or from wrong tokens, says something else.
fn letters() -> Value {
    json!({
        "model": "alphabet",
        "messages": [{ "role": "user", "content": "Say the alphabet." }],
        "temperature": 0,
        "ignore_eos": true,
        "max_tokens": LETTERS,
        "stream": true,
    })
}

/// An answer whose words are given, for where it matters who answers and not what.
pub(crate) fn question(numbers: u32) -> Value {
    json!({
        "model": "starter",
        "messages": [{ "role": "user", "content": "Count." }],
        "grammar": format!("root ::= \"{}\"", answer(numbers)),
        "max_tokens": 3_000,
        "stream": true,
    })
}

pub(crate) fn answer(numbers: u32) -> String {
    (0..numbers).map(|number| format!("{number}, ")).collect()
}

/// Asks the node with this address. Once the first words are there, calls `begun` with the name of the
/// machine that answers, empty if it is that node itself, and with what has come so far. Gives all words.
async fn ask(api_url: String, question: Value, begun: impl FnOnce(&str, &str) + Send) -> String {
    let client = reqwest::Client::new();
    let url = format!("{api_url}/chat/completions");
    let response = client.post(url).json(&question).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let host = response.headers().get("x-mesh-llm-host");
    let host = host.map_or(String::new(), |host| host.to_str().unwrap().to_owned());
    let mut bytes = response.bytes_stream();
    let (mut text, mut begun) = (String::new(), Some(begun));
    while let Some(piece) = bytes.next().await {
        text += &String::from_utf8_lossy(&piece.unwrap());
        if begun.is_some()
            && pieces(&text) >= BEGUN_PIECES
            && let Some(begun) = begun.take()
        {
            begun(&host, &text);
        }
    }
    assert!(begun.is_none(), "no words came: {text}");
    content_of(&text)
}

/// Pieces of a stream that have words; the first one opens the answer and has none.
pub(crate) fn pieces(text: &str) -> usize {
    text.matches("\"content\":\"").count() - text.matches("\"content\":\"\"").count()
}

/// What a stream says that has come to its end without an error.
pub(crate) fn content_of(text: &str) -> String {
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
        let words = machine.ask(question(60), |host, _| {
            assert!(host.starts_with("first ("), "{host}");
        });
        assert_eq!(words, answer(60));
    }
}

pub(crate) fn an_answer_goes_on_when_the_cable_to_its_host_is_cut() {
    let lab = std::sync::Arc::new(bad_network(3));
    let folder = tempfile::tempdir().unwrap();
    let [first, second, client] = two_that_say_the_alphabet(&lab, folder.path());
    let whole = undisturbed(&first);
    let cables = std::sync::Arc::clone(&lab);
    let words = client.ask_despite(move |index| cables.isolate(index));
    assert_eq!(words, whole);
    client.knows(1);
    for host in [0, 1] {
        lab.rejoin(host);
    }
    client.knows(2);
    drop((first, second));
}

/// Two machines that serve a model, with these arguments, and a client of both.
fn two_hosts_and_a_client<'a>(lab: &'a Lab, serving: &[&str]) -> [Machine<'a>; 3] {
    let first = Machine::start(lab, 0, "first", serving);
    let ticket = first.ticket().to_owned();
    let joining = ["--join", &ticket];
    let second = Machine::start(lab, 1, "second", &[&joining[..], serving].concat());
    let client = Machine::start(lab, 2, "client", &[&joining[..], &["--client"]].concat());
    client.knows(2);
    [first, second, client]
}

/// The same with a model that is sure of what it says, which they take from `folder`.
fn two_that_say_the_alphabet<'a>(lab: &'a Lab, folder: &Path) -> [Machine<'a>; 3] {
    let model = format!("--model={}", write_alphabet(folder).display());
    two_hosts_and_a_client(lab, &[&model, "--ctx-size=4096", "--no-draft"])
}

/// What a machine says when nothing happens to it.
fn undisturbed(host: &Machine<'_>) -> String {
    let whole = host.ask(letters(), |_, _| {});
    assert_alphabet(&whole, LETTERS as usize);
    whole
}

pub(crate) fn two_models_on_two_machines_are_reached_from_everywhere() {
    let lab = bad_network(3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.gguf");
    let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");
    std::fs::copy(starter, &path).unwrap();
    let model = format!("--model={}", path.display());
    let first = Machine::start(&lab, 0, "first", &["--model=starter"]);
    let ticket = first.ticket().to_owned();
    let second = Machine::start(&lab, 1, "second", &["--join", &ticket, &model]);
    let client = Machine::start(&lab, 2, "client", &["--join", &ticket, "--client"]);
    for machine in [&first, &second, &client] {
        machine.knows(2);
        for (model, host) in [("starter", "first"), ("other", "second")] {
            let mut question = question(40);
            question["model"] = model.into();
            let own = machine.host == usize::from(host == "second");
            let words = machine.ask(question, move |by, _| {
                let expected = if own {
                    String::new()
                } else {
                    format!("{host} (")
                };
                assert!(by.starts_with(&expected) && by.is_empty() == own, "{by}");
            });
            assert_eq!(words, answer(40));
        }
    }
}

pub(crate) fn an_answer_goes_on_when_its_host_is_killed() {
    let lab = bad_network(3);
    let folder = tempfile::tempdir().unwrap();
    let [first, second, client] = two_that_say_the_alphabet(&lab, folder.path());
    let whole = undisturbed(&first);
    let harms = [
        first.process.harm().unwrap(),
        second.process.harm().unwrap(),
    ];
    let words = client.ask_despite(move |index| harms[index].kill().unwrap());
    assert_eq!(words, whole);
    client.knows(1);
}

pub(crate) fn a_machine_that_pauses_loses_its_answers_and_comes_back() {
    let lab = bad_network(3);
    let folder = tempfile::tempdir().unwrap();
    let [first, second, client] = two_that_say_the_alphabet(&lab, folder.path());
    let whole = undisturbed(&first);
    let harms = [
        first.process.harm().unwrap(),
        second.process.harm().unwrap(),
    ];
    let (paused, which) = channel();
    let words = client.ask_despite(move |index| {
        harms[index].pause().unwrap();
        paused.send(index).unwrap();
    });
    assert_eq!(words, whole);
    client.knows(1);
    [&first, &second][which.recv().unwrap()]
        .process
        .resume()
        .unwrap();
    client.knows(2);
}

pub(crate) fn machines_come_back_after_the_power_failed() {
    let lab = bad_network(3);
    let [first, second, client] = two_hosts_and_a_client(&lab, &["--model=starter"]);
    // The first one, on which nobody depends: it knows the others from its files.
    first.has_written_down(&second);
    let (id, mesh) = (first.text("node_id"), first.text("mesh_id"));
    let home = first.kill();
    client.knows(1);
    assert_eq!(client.ask(question(20), |_, _| {}), answer(20));
    let first = Machine::start_at(&lab, 0, "first", &["--model=starter"], home);
    assert_eq!((first.text("node_id"), first.text("mesh_id")), (id, mesh));
    client.knows(2);
    first.knows(2);
    // And one that was admitted: the same key, no ticket. It can only ask at the port that the first one has now.
    second.has_written_down(&first);
    let id = second.text("node_id");
    let home = second.kill();
    client.knows(1);
    let second = Machine::start_at(&lab, 1, "second", &["--rejoin", "--model=starter"], home);
    assert_eq!(second.text("node_id"), id);
    client.knows(2);
    second.knows(2);
}

pub(crate) fn a_member_whose_ticket_is_revoked_is_out_at_once() {
    let lab = bad_network(2);
    let first = Machine::start(&lab, 0, "first", &["--model=starter"]);
    let url = format!("{}/api/invites", first.text("console_url"));
    let invites = url.clone();
    let invited: Value = first.run(async move {
        let invite = reqwest::Client::new()
            .post(invites)
            .json(&json!({ "role": "client" }));
        invite.send().await.unwrap().json().await.unwrap()
    });
    let ticket = invited["ticket"].as_str().unwrap().to_owned();
    let client = Machine::start(&lab, 1, "client", &["--join", &ticket, "--client"]);
    client.knows(1);
    let revoked = format!("{url}/{}", invited["id"].as_str().unwrap());
    first.run(async move {
        let gone = reqwest::Client::new().delete(revoked).send().await.unwrap();
        assert!(gone.status().is_success(), "{}", gone.status());
    });
    // It was shown the revocation, and believes that only.
    client.until(|status| status["mesh"].is_null());
    first.until(|status| status["mesh"]["clients"] == 0);
}

pub(crate) fn fifty_clients_ask_at_once() {
    const CLIENTS: usize = 50;
    let lab = bad_network(3);
    let first = Machine::start(&lab, 0, "first", &["--model=starter", "--queue=200"]);
    let ticket = first.ticket().to_owned();
    let arguments = ["--join", &ticket, "--client", "--port=0", "--console=0"];
    let clients: Vec<Machine<'_>> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (lab, arguments) = (&lab, &arguments);
                let name = format!("client-{number}");
                scope.spawn(move || Machine::start(lab, 1 + number % 2, &name, arguments))
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                client.knows(1);
                assert_eq!(client.ask(question(40), |_, _| {}), answer(40));
            });
        }
    });
    first.until(|status| status["mesh"]["clients"] == CLIENTS);
}
