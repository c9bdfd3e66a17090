//! Runs the program with nothing of this machine's settings, and waits for it with a bound.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for anything. The starter model is ready in a second; a busy machine is slower.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(90);

/// A run that is being prepared.
pub(crate) struct Program {
    command: Command,
    input: Option<String>,
    home: tempfile::TempDir,
}

/// A run whose end is awaited.
pub(crate) struct Running {
    pid: u32,
    lines: Receiver<String>,
    errors: Receiver<String>,
    ended: Receiver<ExitStatus>,
    is_over: bool,
    pub(crate) home: tempfile::TempDir,
}

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn new(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-llm"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", home.path())
            .env("COLUMNS", "100")
            // Nothing leaves this machine, and no other node on it is met.
            .env("MESH_LLM_CONSOLE", "0")
            .env("MESH_LLM_NO_RELAY", "true")
            .env("MESH_LLM_NO_MDNS", "true")
            .env("MESH_LLM_BIND_IP", "127.0.0.1")
            // Several machines on the cores of one: their threads would wait for each other at every operator.
            .env("MESH_LLM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            command,
            input: None,
            home,
        }
    }

    /// A node on free ports that speaks JSON, with these further arguments.
    pub(crate) fn node(arguments: &[&str]) -> Self {
        let base = ["--port=0", "--log-format=json"];
        Self::new(base.iter().chain(arguments))
    }

    /// One that serves the starter model.
    pub(crate) fn serving(arguments: &[&str]) -> Self {
        let base = ["--model=starter", "--parallel=8"];
        Self::node(&[&base, arguments].concat())
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self.command.stdin(Stdio::piped());
        self
    }

    /// Writes `~/.mesh-llm/config.toml`.
    pub(crate) fn config(self, text: &str) -> Self {
        let folder = self.home.path().join(".mesh-llm");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), text).unwrap();
        self
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// For who gives it other ends than pipes; its home lives as long as the folder is held.
    pub(crate) fn into_parts(self) -> (Command, tempfile::TempDir) {
        (self.command, self.home)
    }

    pub(crate) fn start(mut self) -> Running {
        let mut child = self.command.spawn().unwrap();
        if let Some(input) = self.input {
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
        }
        let lines = follow(child.stdout.take().unwrap());
        let errors = follow(child.stderr.take().unwrap());
        let pid = child.id();
        let (end, ended) = channel();
        std::thread::spawn(move || {
            // Fails only when the test is over.
            let _ = end.send(child.wait().unwrap());
        });
        Running {
            pid,
            lines,
            errors,
            ended,
            is_over: false,
            home: self.home,
        }
    }

    pub(crate) fn run(self) -> Finished {
        self.start().finish()
    }
}

fn follow(stream: impl Read + Send + 'static) -> Receiver<String> {
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

impl Running {
    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for an event. Every line before it must be an object with an `event`.
    pub(crate) fn event(&self, name: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(WAIT_MAX).unwrap_or_else(|_| {
                let talk: Vec<String> = self.errors.try_iter().collect();
                panic!("no event `{name}`; stderr: {talk:?}");
            });
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"].as_str().unwrap() == name {
                return event;
            }
        }
    }

    /// What was logged since the last call, as messages with their fields; other events are dropped.
    pub(crate) fn log(&self) -> Vec<(String, Value)> {
        let event = |line: String| {
            let mut event: Value = serde_json::from_str(&line).unwrap();
            let message = event["message"].as_str()?.to_owned();
            (event["event"] == "log").then(|| (message, event["fields"].take()))
        };
        self.lines.try_iter().filter_map(event).collect()
    }

    /// Waits until the API is there; gives its URL, which ends in `/v1`.
    pub(crate) fn ready(&self) -> String {
        self.event("ready")["api_url"].as_str().unwrap().to_owned()
    }

    /// Waits for a line on stderr that begins with `start`; gives the rest of it.
    pub(crate) fn line_on_stderr(&self, start: &str) -> String {
        loop {
            let line = self.errors.recv_timeout(WAIT_MAX);
            let line = line.unwrap_or_else(|_| panic!("no line `{start}`"));
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill")
            .args([format!("-{name}"), self.pid.to_string()])
            .status();
        assert!(kill.unwrap().success());
    }

    pub(crate) fn finish(mut self) -> Finished {
        let status = self
            .ended
            .recv_timeout(WAIT_MAX)
            .expect("the program must end");
        self.is_over = true;
        let text = |lines: &Receiver<String>| {
            let mut text = String::new();
            // Ends when the pipe is closed.
            while let Ok(line) = lines.recv_timeout(WAIT_MAX) {
                text.push_str(&line);
                text.push('\n');
            }
            text
        };
        Finished {
            code: status.code(),
            stdout: text(&self.lines),
            stderr: text(&self.errors),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            // Fails where a test has killed it already.
            let _ = Command::new("kill")
                .args(["-KILL", &self.pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Finished {
    /// What was printed, each line parsed.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}
