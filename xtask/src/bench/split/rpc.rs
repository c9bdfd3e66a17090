//! Their side: llama.cpp's RPC back end, compiled once for this machine's processor from the source that the crate
//! `llama-cpp-sys-2` ships, and run on the same machines.
//!
//! The crate ships llama.cpp's libraries without its programs, so that server and client are two small programs here,
//! in `rpc/`. The client has nothing but the loop that evaluates and picks the best token: it is faster than any server
//! that could be built on it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::super::machine;
use super::super::server::free_port;
use super::machines::{Machines, Program};
use super::ring::Share;

/// The crate whose source is compiled.
const CRATE: &str = "llama-cpp-sys-2";

/// What is compiled with it.
const SOURCES: [(&str, &str); 3] = [
    ("CMakeLists.txt", include_str!("rpc/CMakeLists.txt")),
    ("rpc_server.cpp", include_str!("rpc/rpc_server.cpp")),
    ("rpc_client.cpp", include_str!("rpc/rpc_client.cpp")),
];

/// A server listens at once.
const LISTEN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Pause between two looks whether it does.
const LOOK: Duration = Duration::from_millis(10);

/// Loading takes seconds at 80 ms, and so does any one answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(120);

/// Answers that wait to be read; there is one for each question.
const ANSWERS_MAX: usize = 4;

/// Both programs.
pub(super) struct Programs {
    server: PathBuf,
    client: PathBuf,
}

impl Programs {
    /// Compiles them where they are not there yet.
    pub(super) fn ensure() -> Result<Self> {
        let (version, llama_cpp) = source()?;
        let build = machine::cache_folder()?.join(format!("rpc-{version}"));
        let programs = Self {
            server: build.join("rpc_server"),
            client: build.join("rpc_client"),
        };
        let own = build.join("source");
        if is_written(&own) && programs.are_there() {
            return Ok(programs);
        }
        eprintln!(
            "bench: compiling llama.cpp with its RPC back end once, for about ten minutes on two cores, in {}",
            build.display()
        );
        fs::create_dir_all(&own)?;
        for (name, text) in SOURCES {
            fs::write(own.join(name), text)?;
        }
        let mut configure = machine::cmake();
        configure
            .arg("-S")
            .arg(&own)
            .arg("-B")
            .arg(&build)
            .arg("-DCMAKE_BUILD_TYPE=Release")
            .arg(format!("-DLLAMA_CPP_DIR={}", llama_cpp.display()));
        run(&mut configure)?;
        let jobs = machine::core_count().to_string();
        run(machine::cmake().arg("--build").arg(&build).args([
            "--target",
            "rpc_server",
            "rpc_client",
            "--parallel",
            &jobs,
        ]))?;
        ensure!(
            programs.are_there(),
            "the build ended without {}",
            programs.client.display()
        );
        Ok(programs)
    }

    fn are_there(&self) -> bool {
        self.server.is_file() && self.client.is_file()
    }
}

/// Whether these very sources were compiled.
fn is_written(folder: &Path) -> bool {
    let same = |(name, text): &(&str, &str)| {
        fs::read_to_string(folder.join(name)).is_ok_and(|written| written == *text)
    };
    SOURCES.iter().all(same)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// The crate's version, and llama.cpp in it, wherever cargo keeps that.
fn source() -> Result<(String, PathBuf)> {
    // Packages of other platforms may not be on this machine.
    let rustc = text_of("rustc", &["-vV"])?;
    let mut lines = rustc.lines();
    let platform = lines.find_map(|line| line.strip_prefix("host: "));
    let platform = platform.context("rustc does not say for which platform it is")?;
    let metadata = text_of(
        "cargo",
        &[
            "metadata",
            "--format-version=1",
            "--offline",
            "--filter-platform",
            platform,
        ],
    )?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    let mut packages = metadata.packages.into_iter();
    let package = packages.find(|package| package.name == CRATE);
    let package = package.with_context(|| format!("{CRATE} is no dependency here"))?;
    let folder = package.manifest_path.parent().map(|p| p.join("llama.cpp"));
    let folder = folder.filter(|folder| folder.join("ggml/src/ggml-rpc").is_dir());
    let folder = folder.with_context(|| format!("{CRATE} does not ship the RPC back end"))?;
    Ok((package.version, folder))
}

/// What a program says on its standard output.
fn text_of(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{program} cannot be started"))?;
    ensure!(output.status.success(), "{program} {arguments:?} failed");
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command to its end; stdout is for the table alone.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{program} cannot be started; hint: install it"))?;
    if !status.success() {
        bail!("{program} failed ({status}); hint: --without-rpc measures only ours");
    }
    Ok(())
}

/// Servers on the machines from 1 on.
pub(super) struct Servers<'m> {
    machines: &'m Machines,
    addresses: Vec<SocketAddr>,
    _running: Vec<Program>,
}

impl<'m> Servers<'m> {
    /// Starts so many and waits until they listen.
    pub(super) fn start(
        machines: &'m Machines,
        programs: &Programs,
        count: usize,
        threads: usize,
        folder: &Path,
    ) -> Result<Self> {
        let mut servers = Self {
            machines,
            addresses: Vec::new(),
            _running: Vec::new(),
        };
        for number in 1..=count {
            let address = SocketAddr::new(machines.address(number), free_port()?);
            let log = File::create(folder.join(format!("rpc-server{number}.log")))?;
            let mut command = Command::new(&programs.server);
            command
                .args([address.to_string(), threads.to_string()])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            servers._running.push(machines.spawn(number, command)?);
            wait_until_listening(machines, number, address)?;
            servers.addresses.push(address);
        }
        Ok(servers)
    }
}

fn wait_until_listening(machines: &Machines, machine: usize, address: SocketAddr) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < LISTEN_WAIT_MAX {
        let listens = || TcpStream::connect_timeout(&address, LISTEN_WAIT_MAX).is_ok();
        if machines.inside(machine, listens) {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    bail!("an RPC server does not listen at {address}")
}

/// What the client says once the model is loaded.
#[derive(Deserialize)]
struct Loaded {
    head_is_here: bool,
    /// The device of each layer.
    layers: Vec<String>,
}

/// What came of one question.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Timed {
    pub(super) prefill_s: f64,
    pub(super) decode_s: f64,
}

/// The client, with the model loaded.
pub(super) struct Host {
    input: ChildStdin,
    answers: Receiver<String>,
    /// From the start of its process until the model is loaded everywhere.
    pub(super) load_s: f64,
    /// Bytes between the machines meanwhile, where they are counted.
    pub(super) load_bytes: Option<u64>,
    _running: Program,
}

impl Host {
    /// Loads a model with the same shares as ours: the host's layers stay here, with the head.
    pub(super) fn start(
        servers: &Servers<'_>,
        programs: &Programs,
        wish: &super::ring::Wish<'_>,
        shares: &[Share],
    ) -> Result<Self> {
        let (own, away) = shares.split_last().context("there are no shares")?;
        ensure!(
            away.len() == servers.addresses.len(),
            "{} shares for {} servers",
            away.len(),
            servers.addresses.len()
        );
        let mut command = Command::new(&programs.client);
        command
            .arg(wish.model)
            .args([wish.threads, wish.context, wish.slots, own.layers].map(|n| n.to_string()));
        for (address, share) in servers.addresses.iter().zip(away) {
            command.args([address.to_string(), share.layers.to_string()]);
        }
        let log = wish.folder.join("rpc-client.log");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let machines = servers.machines;
        let bytes_before = machines.sent_bytes();
        let began = Instant::now();
        let mut running = machines.spawn(0, command)?;
        let input = running.stdin.take().context("its input is not piped")?;
        let output = running.stdout.take().context("its output is not piped")?;
        let answers = follow(output);
        let first = answers
            .recv_timeout(ANSWER_WAIT_MAX)
            .with_context(|| format!("the RPC client failed; its log: {}", log.display()))?;
        let load_s = began.elapsed().as_secs_f64();
        let load_bytes = bytes_before.and_then(|before| Some(machines.sent_bytes()? - before));
        check(&serde_json::from_str(&first)?, own.layers, away)?;
        Ok(Self {
            input,
            answers,
            load_s,
            load_bytes,
            _running: running,
        })
    }

    /// Evaluates prompts and decodes; waits for what it took.
    pub(super) fn run(
        &mut self,
        streams: usize,
        prompt: usize,
        tokens: usize,
        seed: usize,
    ) -> Result<Timed> {
        writeln!(self.input, "{streams} {prompt} {tokens} {seed}")?;
        self.input.flush()?;
        let answer = self.answers.recv_timeout(ANSWER_WAIT_MAX);
        let answer = answer.context("the RPC client has ended or hangs")?;
        Ok(serde_json::from_str(&answer)?)
    }
}

fn follow(output: ChildStdout) -> Receiver<String> {
    let (sender, answers) = sync_channel(ANSWERS_MAX);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    answers
}

/// Compares what llama.cpp says of its layers with what was meant.
fn check(loaded: &Loaded, own: usize, away: &[Share]) -> Result<()> {
    let devices = &loaded.layers;
    ensure!(loaded.head_is_here, "the head is not on the RPC client");
    let is_remote = |device: &String| device.starts_with("RPC");
    let here = devices.iter().take_while(|device| !is_remote(device));
    ensure!(
        here.count() == own,
        "the RPC client has other layers: {devices:?}"
    );
    let mut rest = &devices[own..];
    for share in away {
        let mine = rest.iter().take_while(|device| **device == rest[0]).count();
        ensure!(
            mine == share.layers && is_remote(&rest[0]),
            "a server has {mine} layers, not {}: {devices:?}",
            share.layers
        );
        rest = &rest[mine..];
    }
    ensure!(rest.is_empty(), "too many layers: {devices:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(layers: usize) -> Share {
        Share {
            name: String::new(),
            layers,
        }
    }

    #[test]
    fn believes_only_the_shares_that_were_meant() {
        let loaded = |devices: &[&str], head_is_here| Loaded {
            head_is_here,
            layers: devices.iter().map(|device| (*device).to_owned()).collect(),
        };
        let right = loaded(&["CPU", "RPC0", "RPC0", "RPC1"], true);
        assert!(check(&right, 1, &[share(2), share(1)]).is_ok());
        assert!(check(&right, 1, &[share(1), share(2)]).is_err());
        assert!(check(&right, 2, &[share(1), share(1)]).is_err());
        assert!(check(&right, 1, &[share(2)]).is_err());
        let elsewhere = loaded(&["CPU", "RPC0", "RPC0", "RPC1"], false);
        assert!(check(&elsewhere, 1, &[share(2), share(1)]).is_err());
        let never_left = loaded(&["CPU", "CPU"], true);
        assert!(check(&never_left, 1, &[share(1)]).is_err());
    }

    #[test]
    fn the_source_is_where_cargo_says() {
        let (version, folder) = source().unwrap();
        assert!(version.starts_with("0.") && folder.join("include/llama.h").is_file());
    }
}
