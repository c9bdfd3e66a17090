//! Owns one host of a lab: its namespace, the threads and processes in it, and what runs there.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::{self, Runtime};

use super::namespace::Namespace;
use super::switch::Port;
use super::{LabError, interface, system};

/// The interface of every host towards the others.
const INTERFACE: &str = "lab0";

/// Threads of a host's runtime, beside those for blocking work: a test is seldom busy.
const RUNTIME_THREADS: usize = 2;

/// How long tasks may take to end with their host.
const RUNTIME_END_MAX: Duration = Duration::from_secs(5);

/// A machine of a [`Lab`](super::Lab), as far as the network is concerned: loopback, one interface
/// towards the other hosts, and no other way out. It shares files and processes with the real one.
pub struct Host {
    ip: Ipv4Addr,
    namespace: Namespace,
    runtime: OnceLock<Runtime>,
    /// `None` once the host ends.
    spawns: Option<Sender<Spawn>>,
    /// Made the namespace, and starts processes in it, which end with this thread.
    keeper: Option<JoinHandle<()>>,
}

/// A process to start.
struct Spawn {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

impl Host {
    pub(super) fn start(ip: Ipv4Addr) -> Result<(Self, Port), LabError> {
        let (spawns, received) = channel();
        let (made, making) = channel();
        let keeper = Builder::new()
            .name("lab-host".into())
            .spawn(move || {
                let built = build(ip);
                let works = built.is_ok();
                if made.send(built).is_ok() && works {
                    keep(&received);
                }
            })
            .map_err(LabError::Thread)?;
        let (namespace, tun) = making
            .recv()
            .unwrap_or_else(|_| panic!("the thread of a host panicked; see above"))?;
        let host = Self {
            ip,
            namespace,
            runtime: OnceLock::new(),
            spawns: Some(spawns),
            keeper: Some(keeper),
        };
        Ok((host, Port { ip, tun }))
    }

    /// Its address in the lab.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Does something on a thread inside the host, and waits for it. Sockets opened there stay in the
    /// host, whichever thread uses them; so do processes and threads started there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            self.namespace.enter();
            work()
        };
        let outcome = std::thread::scope(|scope| scope.spawn(entered).join());
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs a future on the host's own runtime, all of whose threads are inside the host, and gives
    /// its result. May be awaited from any runtime, or without one.
    ///
    /// # Panics
    /// If the future does.
    pub async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.runtime().spawn(future).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(error) => panic!("the host has ended: {error}"),
            },
        }
    }

    /// The host's own runtime, for tasks that outlive a call. They end with the lab.
    ///
    /// # Panics
    /// If no threads can be started.
    pub fn runtime(&self) -> &Runtime {
        self.runtime.get_or_init(|| {
            let namespace = self.namespace.clone();
            let built = runtime::Builder::new_multi_thread()
                .worker_threads(RUNTIME_THREADS)
                .thread_name("lab-runtime")
                .on_thread_start(move || namespace.enter())
                .enable_all()
                .build();
            built.unwrap_or_else(|error| panic!("cannot start a runtime: {error}"))
        })
    }

    /// Starts a process inside the host. It is killed when the [`Process`] or the lab is dropped, or
    /// when this process ends, even by being killed. What it starts in turn ends with the lab.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(&self, mut command: Command) -> io::Result<Process> {
        system::end_with_spawning_thread(&mut command);
        let (answer, answered) = channel();
        let spawn = Spawn { command, answer };
        let gone = || io::Error::other("the host has ended");
        let spawns = self.spawns.as_ref().ok_or_else(gone)?;
        spawns.send(spawn).map_err(|_| gone())?;
        let child = answered.recv().map_err(|_| gone())??;
        Ok(Process { child })
    }

    /// Process ids of everything that runs inside the host, this process excepted.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        self.namespace.processes()
    }
}

/// Makes the calling thread a host.
fn build(ip: Ipv4Addr) -> Result<(Namespace, File), LabError> {
    let namespace = Namespace::unshare().map_err(LabError::Namespace)?;
    let tun = system::open_tun(INTERFACE).map_err(LabError::Device)?;
    interface::configure(INTERFACE, ip).map_err(LabError::Configure)?;
    Ok((namespace, tun))
}

/// Starts processes until the host ends.
fn keep(spawns: &Receiver<Spawn>) {
    while let Ok(Spawn {
        mut command,
        answer,
    }) = spawns.recv()
    {
        // Nobody waits only if the lab's user panicked; the process ends with this thread.
        let _ = answer.send(command.spawn());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A thread of its own, because a runtime may not wait inside another one.
            let end = move || runtime.shutdown_timeout(RUNTIME_END_MAX);
            // An error is a panic of a task, which its own caller saw.
            let _ = std::thread::spawn(end).join();
        }
        self.namespace.kill_processes();
        self.spawns = None;
        if let Some(keeper) = self.keeper.take() {
            // It cannot panic.
            let _ = keeper.join();
        }
    }
}

/// A process inside a [`Host`]. Gives access to its [`Child`]; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Freezes the process; connections stay open, and nothing answers.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// If it has ended.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks it to end, as Ctrl-C does.
    ///
    /// # Errors
    /// If it has ended.
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::SIGINT)
    }

    /// Harms the process from another thread, while this one waits for what comes of it. Good for as
    /// long as the [`Process`] is there.
    ///
    /// # Errors
    /// Never on Linux.
    pub fn harm(&self) -> io::Result<Harm> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(Harm(Pid::from_raw(pid)))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.harm()?.signal(signal)
    }
}

/// What can be done to a [`Process`] from elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Harm(Pid);

impl Harm {
    /// Ends it without a word, as when the power fails.
    ///
    /// # Errors
    /// If it was waited for.
    pub fn kill(self) -> io::Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// As [`Process::pause`].
    ///
    /// # Errors
    /// If it was waited for.
    pub fn pause(self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    fn signal(self, signal: Signal) -> io::Result<()> {
        kill(self.0, signal).map_err(io::Error::from)
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails for one that was waited for. Waiting takes it out of the list of processes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
