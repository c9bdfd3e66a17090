//! Owns network namespaces: making, entering, finding and ending what runs in them. They have no
//! names: one lives as long as its threads, processes, sockets and open files, so that a killed test
//! leaves none behind, and any number of tests run side by side.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The right to make namespaces, as its number among Linux's capabilities.
const CAP_SYS_ADMIN: u32 = 21;

/// How long killed processes may take to be gone. They only stay while the kernel is busy for them.
const KILLED_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often is looked whether they are.
const KILLED_LOOK_EVERY: Duration = Duration::from_millis(2);

/// An open network namespace.
#[derive(Debug, Clone)]
pub(super) struct Namespace {
    file: Arc<File>,
    inode: u64,
}

impl Namespace {
    /// Moves the calling thread into a fresh one, for good.
    pub(super) fn unshare() -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let file = File::open("/proc/thread-self/ns/net")?;
        let inode = file.metadata()?.ino();
        Ok(Self {
            file: Arc::new(file),
            inode,
        })
    }

    /// Moves the calling thread into it.
    ///
    /// # Panics
    /// If the kernel refuses, which it does not to whoever was allowed to make it.
    pub(super) fn enter(&self) {
        if let Err(error) = setns(&self.file, CloneFlags::CLONE_NEWNET) {
            panic!("cannot enter a network namespace of this process: {error}");
        }
    }

    /// Processes, other than this one, whose main thread is in it.
    pub(super) fn processes(&self) -> Vec<i32> {
        let own = i32::try_from(std::process::id()).ok();
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| Some(*pid) != own)
            // Those that end meanwhile, and other people's, have no readable entry.
            .filter(|pid| {
                let link = Path::new("/proc").join(pid.to_string()).join("ns/net");
                fs::metadata(link).is_ok_and(|entry| entry.ino() == self.inode)
            })
            .collect()
    }

    /// Kills everything in it, also what was started by what was started. Returns when it is gone.
    pub(super) fn kill_processes(&self) {
        let end = Instant::now() + KILLED_WAIT_MAX;
        loop {
            let pids = self.processes();
            if pids.is_empty() || Instant::now() > end {
                return;
            }
            for pid in pids {
                // Fails for one that has ended by itself.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(KILLED_LOOK_EVERY);
        }
    }
}

/// Lets a user who is not root make network namespaces, by moving this process into a user
/// namespace of its own. Does nothing where the right is there already. Must be called before
/// there are other threads, so at the start of `main`. Where it does not work,
/// [`supported`](super::supported) says so.
pub fn gain_rights() {
    if is_allowed() {
        return;
    }
    if let Err(error) = enter_user_namespace() {
        eprintln!("cannot make a user namespace: {error}");
    }
}

fn is_allowed() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return false;
    };
    let mut lines = status.lines();
    let effective = lines
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|rights| rights >> CAP_SYS_ADMIN & 1 == 1)
}

fn enter_user_namespace() -> io::Result<()> {
    let own = fs::metadata("/proc/self")?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // Without this the kernel lets no ordinary user map a group.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", own.uid()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", own.gid()))
}
