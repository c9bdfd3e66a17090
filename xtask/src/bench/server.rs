//! Starts, watches and stops the servers that are measured.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::client::{self, Endpoint};
use super::machine;

/// A model of half a gigabyte is ready within a second; a cold disk may need longer.
const START_WAIT_MAX: Duration = Duration::from_secs(120);

/// How often a server that cannot tell is asked whether it is ready. Well under what is measured.
const POLL: Duration = Duration::from_millis(5);

/// Settings that are the same for every server.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) model: PathBuf,
    pub(super) threads: usize,
    pub(super) slots: usize,
    /// Tokens, over all slots.
    pub(super) ctx_size: usize,
    pub(super) log_folder: PathBuf,
}

/// A server that takes part.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    /// Also the name of its log file and its key in the JSON.
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    kind: Kind,
    extra: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Picks its own port and says when it is ready.
    Ours,
    /// One of our nodes in a mesh on loopback; what it serves, if anything, is left to it.
    Node,
    /// Is told a port and polled.
    LlamaServer,
}

impl Contender {
    pub(super) fn ours(program: PathBuf, extra: Vec<String>) -> Self {
        Self {
            name: "mesh-llm",
            program,
            kind: Kind::Ours,
            extra,
        }
    }

    /// A node whose state folder is fresh at each start.
    pub(super) fn node(name: &'static str, program: PathBuf, extra: Vec<String>) -> Self {
        Self {
            name,
            program,
            kind: Kind::Node,
            extra,
        }
    }

    pub(super) fn llama_server(program: PathBuf, unified: bool) -> Self {
        let (name, extra) = if unified {
            ("llama-server --kv-unified", vec!["--kv-unified".to_owned()])
        } else {
            ("llama-server", Vec::new())
        };
        Self {
            name,
            program,
            kind: Kind::LlamaServer,
            extra,
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.kind != Kind::LlamaServer
    }

    /// Its command line; `port` 0 lets it choose one.
    pub(super) fn arguments(&self, settings: &Settings, port: u16) -> Vec<String> {
        let model = settings.model.display().to_string();
        let mut arguments: Vec<String> = match self.kind {
            // Without speculation: random weights repeat themselves as no real model does.
            Kind::Ours => vec![
                format!("--model={model}"),
                format!("--port={port}"),
                "--log-format=json".into(),
                // A pool for all requests together, as llama-server's.
                format!("--ctx-size={}", settings.ctx_size),
                format!("--parallel={}", settings.slots),
                format!("--threads={}", settings.threads),
                "--no-draft".into(),
                // One machine is compared with one machine.
                "--no-mesh".into(),
            ],
            Kind::Node => vec![
                format!("--port={port}"),
                "--console=0".into(),
                "--log-format=json".into(),
                "--bind-ip=127.0.0.1".into(),
                "--no-relay".into(),
                "--no-mdns".into(),
            ],
            Kind::LlamaServer => vec![
                "--model".into(),
                model,
                "--host".into(),
                "127.0.0.1".into(),
                "--port".into(),
                port.to_string(),
                "--threads".into(),
                settings.threads.to_string(),
                "--parallel".into(),
                settings.slots.to_string(),
                "--ctx-size".into(),
                settings.ctx_size.to_string(),
            ],
        };
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// Starts it and waits until it is ready.
    pub(super) fn start(&self, settings: &Settings) -> Result<Server> {
        fs::create_dir_all(&settings.log_folder)?;
        let log = settings
            .log_folder
            .join(format!("{}.log", self.name.replace(' ', "")));
        let log_file =
            File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let port = if self.is_ours() { 0 } else { free_port()? };
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments(settings, port))
            .stdin(Stdio::null())
            .stderr(log_file.try_clone()?);
        if self.is_ours() {
            // The user's own settings have no place in a comparison.
            for (name, _) in std::env::vars_os() {
                if name.to_string_lossy().starts_with("MESH_LLM_") {
                    command.env_remove(name);
                }
            }
            let home = settings.log_folder.join(format!("{}-home", self.name));
            if self.kind == Kind::Node && home.exists() {
                fs::remove_dir_all(&home)?;
            }
            command.env("MESH_LLM_HOME", home).stdout(Stdio::piped());
        } else {
            command.stdout(log_file);
        }
        let start = Instant::now();
        let mut child = Running(
            command
                .spawn()
                .with_context(|| format!("{} cannot be started", self.program.display()))?,
        );
        let started = if self.is_ours() {
            let output = child
                .0
                .stdout
                .take()
                .context("the server's output is not piped")?;
            wait_for_event(output)
        } else {
            wait_for_health(&mut child, port)
                .map(|address| (address, serde_json::Value::Null, None))
        };
        let ready_ms = start.elapsed().as_secs_f64() * 1000.0;
        let (address, ready, drain) = started
            .with_context(|| format!("{} did not start; its log: {}", self.name, log.display()))?;
        let model = if self.kind == Kind::Node {
            // A node may answer for several models, or for none yet.
            String::new()
        } else {
            model_name(address)?
        };
        Ok(Server {
            endpoint: Endpoint { address, model },
            start,
            ready_ms,
            ready,
            log,
            child,
            drain,
        })
    }
}

/// A server that runs; dropping it ends it.
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    /// When its process was started.
    pub(super) start: Instant,
    /// From the start of the process until it said, or showed, that it is ready.
    pub(super) ready_ms: f64,
    /// What ours said when it was ready.
    pub(super) ready: serde_json::Value,
    pub(super) log: PathBuf,
    child: Running,
    /// Reads what the server says, so that it never waits for a reader.
    drain: Option<JoinHandle<()>>,
}

/// What ours says first: its address, the whole event, and who reads on.
pub(super) type Ready = (SocketAddr, serde_json::Value, Option<JoinHandle<()>>);

impl Server {
    /// Where requests for one of its models go.
    pub(super) fn endpoint_of(&self, model: &str) -> Endpoint {
        Endpoint {
            address: self.endpoint.address,
            model: model.to_owned(),
        }
    }

    /// Highest resident memory so far in megabytes; `None` where the system does not tell.
    pub(super) fn peak_mb(&self) -> Option<f64> {
        machine::peak_resident_bytes(self.child.0.id()).map(|bytes| bytes as f64 / 1e6)
    }

    /// Processor time so far; `None` where the system does not tell.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        machine::process_cpu_seconds(&self.child.0.id().to_string())
    }

    /// Ends the server and waits until it is gone.
    pub(super) fn stop(mut self) {
        self.child.end();
        if let Some(drain) = self.drain.take() {
            // It ends with the server's output; a panic in it has no bearing on the numbers.
            let _ = drain.join();
        }
    }
}

/// A child process that does not outlive its handle.
struct Running(Child);

impl Running {
    fn end(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for the event that carries `api_url`; one JSON object stands on each line.
pub(super) fn wait_for_event(output: ChildStdout) -> Result<Ready> {
    let (sender, receiver) = mpsc::channel();
    let drain = thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            if let Some(ready) = ready_event(&line) {
                // Only the first is waited for.
                let _ = sender.send(ready);
            }
        }
    });
    match receiver.recv_timeout(START_WAIT_MAX) {
        Ok((address, event)) => Ok((address, event, Some(drain))),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            bail!("no event with api_url within {START_WAIT_MAX:?}")
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            bail!("it ended without an event that carries api_url")
        }
    }
}

/// An event such as `{"event":"ready","api_url":"http://127.0.0.1:9337/v1"}` and its address.
fn ready_event(line: &str) -> Option<(SocketAddr, serde_json::Value)> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let url = event
        .get("api_url")
        .or_else(|| event.get("fields")?.get("api_url"))?
        .as_str()?;
    let address = url.strip_prefix("http://")?.split('/').next()?;
    Some((address.parse().ok()?, event))
}

fn wait_for_health(child: &mut Running, port: u16) -> Result<SocketAddr> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let start = Instant::now();
    while start.elapsed() < START_WAIT_MAX {
        if let Some(status) = child.0.try_wait()? {
            bail!("it ended early: {status}");
        }
        if client::get(address, "/health").is_ok() {
            return Ok(address);
        }
        thread::sleep(POLL);
    }
    Err(anyhow!("it is not healthy after {START_WAIT_MAX:?}"))
}

fn model_name(address: SocketAddr) -> Result<String> {
    let models = client::get(address, "/v1/models").context("/v1/models does not answer")?;
    let name = models.pointer("/data/0/id").and_then(|id| id.as_str());
    name.map(str::to_owned).context("/v1/models lists no model")
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// First line of what `program --version` prints, for the record.
pub(super) fn version(program: &Path) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    String::from_utf8_lossy(&text)
        .lines()
        .find(|line| line.contains("version") || line.contains('.'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_address_in_the_ready_event() {
        let address = Some("127.0.0.1:4242".parse().unwrap());
        for (line, expected) in [
            (
                r#"{"event":"ready","api_url":"http://127.0.0.1:4242/v1","models":["a"]}"#,
                address,
            ),
            (
                r#"{"event":"ready","api_url":"http://127.0.0.1:4242"}"#,
                address,
            ),
            (r#"{"event":"loading","progress":0.5}"#, None),
            ("not JSON", None),
        ] {
            let found = ready_event(line).map(|(address, _)| address);
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn gives_every_server_the_same_settings() {
        let settings = Settings {
            model: "m.gguf".into(),
            threads: 2,
            slots: 8,
            ctx_size: 8192,
            log_folder: PathBuf::new(),
        };
        let ours = Contender::ours("a".into(), vec!["--x".into()])
            .arguments(&settings, 0)
            .join(" ");
        assert_eq!(
            ours,
            "--model=m.gguf --port=0 --log-format=json --ctx-size=8192 --parallel=8 --threads=2 --no-draft --no-mesh --x"
        );
        let theirs = Contender::llama_server("a".into(), true)
            .arguments(&settings, 7)
            .join(" ");
        assert_eq!(
            theirs,
            "--model m.gguf --host 127.0.0.1 --port 7 --threads 2 --parallel 8 --ctx-size 8192 --kv-unified"
        );
    }
}
