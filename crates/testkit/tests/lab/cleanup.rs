//! What is left of a lab: nothing, however it ends.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use testkit::net::{Host, Lab, Process};

use crate::hosts::interfaces;
use crate::wire::HANG;

/// Makes this binary a test that is going to be killed.
pub(crate) const VICTIM_ARGUMENT: &str = "--victim";

fn namespace(host: &Host) -> File {
    host.inside(|| File::open("/proc/thread-self/ns/net").unwrap())
}

/// Threads of all processes that are in a namespace.
fn threads_in(namespace: &File) -> Vec<String> {
    let inode = namespace.metadata().unwrap().ino();
    let numbered = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.parse::<u32>().is_ok()).collect()
    };
    let mut found = Vec::new();
    for process in numbered(Path::new("/proc")) {
        let tasks = Path::new("/proc").join(&process).join("task");
        for task in numbered(&tasks) {
            let entry = std::fs::metadata(tasks.join(&task).join("ns/net"));
            if entry.is_ok_and(|entry| entry.ino() == inode) {
                found.push(task);
            }
        }
    }
    found
}

/// Only this file keeps the namespace: no thread is in it, and its interface is gone.
fn is_empty(namespace: File) {
    // A thread that was joined may be seen for another moment.
    let end = Instant::now() + HANG;
    loop {
        let threads = threads_in(&namespace);
        if threads.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "threads stay: {threads:?}");
        std::thread::yield_now();
    }
    let look = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        interfaces()
    };
    assert_eq!(std::thread::spawn(look).join().unwrap(), ["lo"]);
}

fn gone(pid: i32) {
    let end = Instant::now() + HANG;
    while Path::new("/proc").join(pid.to_string()).exists() {
        assert!(Instant::now() < end, "process {pid} stays");
        std::thread::yield_now();
    }
}

/// A process that has a child.
const TWO_PROCESSES: &str = "sleep 1000 & echo started; wait";

/// A lab in use: both hosts run tasks, and one a shell with this script.
fn busy(script: &str) -> (Lab, Vec<i32>, Process) {
    let lab = Lab::new(2).unwrap();
    for host in lab.hosts() {
        host.runtime().spawn(async {
            let _socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
            std::future::pending::<()>().await;
        });
    }
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command.stdout(Stdio::piped());
    let mut process = lab.host(1).spawn(command).unwrap();
    let mut line = String::new();
    let stdout = process.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    let pids = lab.host(1).processes();
    (lab, pids, process)
}

pub(crate) fn a_lab_takes_everything_with_it() {
    let before = interfaces();
    let (lab, pids, process) = busy(TWO_PROCESSES);
    assert_eq!(pids.len(), 2);
    let namespaces = [namespace(lab.host(0)), namespace(lab.host(1))];
    assert!(!threads_in(&namespaces[0]).is_empty());
    // The lab first: nobody has to end the processes before.
    drop(lab);
    drop(process);
    pids.into_iter().for_each(gone);
    namespaces.into_iter().for_each(is_empty);
    assert_eq!(interfaces(), before);
}

pub(crate) fn a_panic_leaves_nothing() {
    let (lab, pids, process) = busy(TWO_PROCESSES);
    assert_eq!(pids.len(), 2);
    let namespaces = [namespace(lab.host(0)), namespace(lab.host(1))];
    let owned = AssertUnwindSafe((lab, process));
    let outcome = catch_unwind(move || {
        let _owned = owned;
        std::panic::panic_any("a test fails");
    });
    assert!(outcome.is_err());
    pids.into_iter().for_each(gone);
    namespaces.into_iter().for_each(is_empty);
}

/// Tells the processes of its lab, then waits to be killed.
pub(crate) fn victim() -> ! {
    let (lab, pids, _process) = busy("echo started; exec sleep 1000");
    let mut told: Vec<_> = pids.iter().map(ToString::to_string).collect();
    told.push(std::process::id().to_string());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", told.join(" ")).unwrap();
    let _lab = lab;
    loop {
        std::thread::park();
    }
}

pub(crate) fn a_killed_test_leaves_nothing() {
    let mut victim = Command::new(std::env::current_exe().unwrap());
    let mut victim = victim
        .arg(VICTIM_ARGUMENT)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = victim.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let pids: Vec<i32> = line
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 2, "{line}");
    let namespace = Path::new("/proc").join(pids[0].to_string()).join("ns/net");
    let namespace = File::open(namespace).unwrap();
    end(victim);
    pids.into_iter().for_each(gone);
    is_empty(namespace);
}

fn end(mut victim: Child) {
    victim.kill().unwrap();
    victim.wait().unwrap();
}
