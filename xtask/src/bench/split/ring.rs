//! Our side: nodes that run one model together, each on a machine of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::client::{self, Endpoint};
use super::super::server::wait_for_event;
use super::machines::{Machines, Program};

/// Layers are cut from a file in the page cache and loaded; a cold disk may need longer.
const RUN_WAIT_MAX: Duration = Duration::from_secs(60);

/// Pause between two looks at a status. Small beside what is measured, and no work for a node.
const LOOK: Duration = Duration::from_millis(20);

/// What is started.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) binary: &'a Path,
    pub(super) model: &'a Path,
    /// Files of the nodes, and their logs.
    pub(super) folder: &'a Path,
    /// Nodes beside the host, whether they get layers or not.
    pub(super) workers: usize,
    /// Most memory of a node, gigabytes: decides how many of them it takes.
    pub(super) gigabytes: Option<f64>,
    pub(super) speculation: bool,
    pub(super) threads: usize,
    pub(super) slots: usize,
    pub(super) context: usize,
}

/// One machine's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) name: String,
    pub(super) layers: usize,
}

/// A node that says that it is ready.
pub(super) struct Node {
    pub(super) machine: usize,
    pub(super) name: String,
    pub(super) program: Program,
    api: SocketAddr,
    console: SocketAddr,
    ticket: Option<String>,
    /// Reads what the node says, so that it never waits for a reader.
    drain: Option<JoinHandle<()>>,
}

/// A split model that runs.
pub(super) struct Ring<'m> {
    machines: &'m Machines,
    pub(super) host: Node,
    pub(super) workers: Vec<Node>,
    pub(super) model: String,
    /// From the start of the host's process, when all workers are there, until the model answers.
    pub(super) load_s: f64,
    /// Bytes between the machines meanwhile, where they are counted.
    pub(super) load_bytes: Option<u64>,
    /// In the order of the layers; the host's is the last.
    pub(super) shares: Vec<Share>,
    pub(super) predicted_tps: f64,
    /// Lengths of prompts, tokens, and the milliseconds that the plan expects until the first token of the answer.
    predicted_first_token_ms: Vec<(usize, f64)>,
}

impl Node {
    fn start(
        machines: &Machines,
        machine: usize,
        wish: &Wish<'_>,
        arguments: &[&str],
    ) -> Result<Self> {
        let name = if machine == 0 {
            "host".to_owned()
        } else {
            format!("worker{machine}")
        };
        let home = wish.folder.join(&name);
        clear(&home)?;
        let log = wish.folder.join(format!("{name}.log"));
        let mut command = Command::new(wish.binary);
        // The user's own settings have no place in a comparison.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("MESH_LLM_") {
                command.env_remove(variable);
            }
        }
        command
            .env("HOME", &home)
            .env_remove("XDG_CACHE_HOME")
            .args(["--port=0", "--console=0", "--log-format=json"])
            .args(["--no-relay", "--no-mdns"])
            .arg(format!("--node-name={name}"))
            .arg(format!("--threads={}", wish.threads))
            .arg(format!("--ctx-size={}", wish.context))
            .arg(format!("--parallel={}", wish.slots))
            .args(wish.gigabytes.map(|most| format!("--max-vram={most}")))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        if !machines.are_apart() {
            command.arg("--bind-ip=127.0.0.1");
        }
        let mut program = machines.spawn(machine, command)?;
        let output = program.stdout.take().context("its output is not piped")?;
        let failed = || format!("{name} failed; its log: {}", log.display());
        let (api, ready, drain) = wait_for_event(output).with_context(failed)?;
        let console = ready.get("console_url").and_then(Value::as_str);
        let console = console.and_then(|url| url.strip_prefix("http://"));
        let console = console.and_then(|url| url.trim_end_matches('/').parse().ok());
        let ticket = ready.get("ticket").and_then(Value::as_str);
        Ok(Self {
            machine,
            name,
            program,
            api,
            console: console.context("a node without a management API")?,
            ticket: ticket.map(str::to_owned),
            drain,
        })
    }

    fn status(&self, machines: &Machines) -> Result<Value> {
        machines.inside(self.machine, || client::get(self.console, "/api/status"))
    }

    fn end(mut self) {
        drop(self.program);
        if let Some(drain) = self.drain.take() {
            // It ends with the node's output; a panic in it has no bearing on the numbers.
            let _ = drain.join();
        }
    }
}

/// A folder without the files of an earlier start.
fn clear(home: &Path) -> Result<()> {
    if home.exists() {
        fs::remove_dir_all(home)?;
    }
    Ok(fs::create_dir_all(home)?)
}

impl<'m> Ring<'m> {
    /// Starts the workers, then the host, and waits until the model answers.
    pub(super) fn start(machines: &'m Machines, wish: &Wish<'_>) -> Result<Self> {
        let shelf = wish.model.parent().context("the model has no folder")?;
        let shelf = format!("--models-dir={}", shelf.display());
        let opens = ["--name=bench", "--standby", &shelf];
        let first = Node::start(machines, 1, wish, &opens)?;
        let ticket = first.ticket.clone().context("a worker without a ticket")?;
        let mut workers = vec![first];
        for machine in 2..=wish.workers {
            let joins = ["--join", &ticket, "--standby", &shelf];
            workers.push(Node::start(machines, machine, wish, &joins)?);
        }
        let model = format!("--model={}", wish.model.display());
        let mut hosts = vec!["--join", &ticket, "--split", &model, &shelf];
        if !wish.speculation {
            hosts.push("--no-draft");
        }
        let bytes_before = machines.sent_bytes();
        let began = Instant::now();
        let host = Node::start(machines, 0, wish, &hosts)?;
        let runs = wait_until_it_runs(machines, &host)?;
        let load_s = began.elapsed().as_secs_f64();
        let load_bytes = bytes_before.and_then(|before| Some(machines.sent_bytes()? - before));
        let split = &runs["split"];
        let model = runs["name"].as_str().context("a model without a name")?;
        Ok(Self {
            machines,
            model: model.to_owned(),
            host,
            workers,
            load_s,
            load_bytes,
            shares: shares(split).context("a split model without stages")?,
            predicted_tps: split["predicted_tokens_per_second"]
                .as_f64()
                .unwrap_or(f64::NAN),
            predicted_first_token_ms: first_tokens(split).unwrap_or_default(),
        })
    }

    /// Milliseconds that the plan expected from a prompt of so many tokens to the first token; `None`: it does not say.
    pub(super) fn predicted_first_token_ms(&self, prompt_tokens: usize) -> Option<f64> {
        let mut told = self.predicted_first_token_ms.iter();
        let told = told.find(|(tokens, _)| *tokens == prompt_tokens);
        told.map(|(_, ms)| *ms)
    }

    /// Where to ask on the host's machine.
    pub(super) fn endpoint(&self) -> Endpoint {
        self.endpoint_at(&self.host)
    }

    /// Where to ask on the machine of `node`.
    pub(super) fn endpoint_at(&self, node: &Node) -> Endpoint {
        Endpoint {
            address: node.api,
            model: self.model.clone(),
        }
    }

    /// The worker with the first layers.
    pub(super) fn first_worker(&self) -> Result<&Node> {
        let name = self.shares.first().map(|share| share.name.as_str());
        let mut workers = self.workers.iter();
        let found = workers.find(|node| Some(node.name.as_str()) == name);
        found.context("the first layers are on no worker")
    }

    /// Waits until a node knows a host of the model.
    pub(super) fn is_known_to(&self, node: &Node) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < RUN_WAIT_MAX {
            let status = node.status(self.machines)?;
            let targets = status["targets"].as_array();
            if targets.is_some_and(|all| all.iter().any(|target| target["model"] == *self.model)) {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        bail!("{} does not know the model", node.name)
    }

    /// Ends all nodes.
    pub(super) fn end(self) {
        self.host.end();
        self.workers.into_iter().for_each(Node::end);
    }
}

fn wait_until_it_runs(machines: &Machines, host: &Node) -> Result<Value> {
    let began = Instant::now();
    let mut model = Value::Null;
    while began.elapsed() < RUN_WAIT_MAX {
        model = host.status(machines)?["models"][0].take();
        if model["state"] == "ready" && model["split"]["waiting"].is_null() {
            return Ok(model);
        }
        if model["state"] == "failed" {
            break;
        }
        thread::sleep(LOOK);
    }
    let reason = model["reason"].as_str().unwrap_or("it does not say why");
    bail!("the split model does not run: {reason}")
}

fn shares(split: &Value) -> Option<Vec<Share>> {
    let share = |stage: &Value| {
        let (first, last) = (
            stage["first_layer"].as_u64()?,
            stage["last_layer"].as_u64()?,
        );
        Some(Share {
            name: stage["name"].as_str()?.to_owned(),
            layers: usize::try_from(last + 1 - first).ok()?,
        })
    };
    split["stages"].as_array()?.iter().map(share).collect()
}

/// Lengths of prompts, and milliseconds to the first token.
fn first_tokens(split: &Value) -> Option<Vec<(usize, f64)>> {
    let one = |told: &Value| {
        let tokens = usize::try_from(told["prompt_tokens"].as_u64()?).ok()?;
        Some((tokens, told["ms"].as_f64()?))
    };
    split["predicted_first_token"]
        .as_array()?
        .iter()
        .map(one)
        .collect()
}

/// As people write it: `8 + 8 + 8`.
pub(super) fn text(shares: &[Share]) -> String {
    let layers: Vec<String> = shares.iter().map(|s| s.layers.to_string()).collect();
    layers.join(" + ")
}

/// The folder of a ring's files.
pub(super) fn folder(logs: &Path) -> Result<PathBuf> {
    let folder = logs.join("split");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_who_has_how_many_layers() {
        let split = serde_json::json!({ "stages": [
            { "name": "worker2", "first_layer": 0, "last_layer": 7 },
            { "name": "host", "first_layer": 8, "last_layer": 23 },
        ]});
        let shares = shares(&split).unwrap();
        assert_eq!(text(&shares), "8 + 16");
        assert_eq!(shares[0].name, "worker2");
        assert_eq!(super::shares(&serde_json::json!({})), None);
    }

    #[test]
    fn reads_what_is_expected_of_prompts() {
        let split = serde_json::json!({ "predicted_first_token": [
            { "prompt_tokens": 512, "ms": 1500.5 },
            { "prompt_tokens": 4096, "ms": 12000.0 },
        ]});
        let expected = vec![(512, 1500.5), (4096, 12_000.0)];
        assert_eq!(first_tokens(&split), Some(expected));
        // An older one does not say.
        assert_eq!(first_tokens(&serde_json::json!({})), None);
    }
}
