//! The machines that a model is split over: hosts of an emulated network with links between them, or, where this machine
//! forbids that, processes on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
#[cfg(target_os = "linux")]
use testkit::net::{Lab, Link, Process};

/// The machines. The first one is the host's.
pub(super) struct Machines {
    #[cfg(target_os = "linux")]
    lab: Option<Lab>,
}

impl Machines {
    /// So many machines; with the reason when there are no links between them.
    #[cfg(target_os = "linux")]
    pub(super) fn new(count: usize) -> (Self, Option<String>) {
        match testkit::net::supported().and_then(|()| Lab::new(count).map_err(|e| e.to_string())) {
            Ok(lab) => (Self { lab: Some(lab) }, None),
            Err(reason) => (Self { lab: None }, Some(reason)),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(_: usize) -> (Self, Option<String>) {
        (
            Self {},
            Some("networks are emulated on Linux only".to_owned()),
        )
    }

    /// Whether there are links, which can be long, be cut, and count bytes.
    pub(super) fn are_apart(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.lab.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Sets all links.
    pub(super) fn set_round_trip_ms(&self, round_trip_ms: u64) {
        #[cfg(target_os = "linux")]
        if let Some(lab) = &self.lab {
            lab.set_all(Link::round_trip_ms(round_trip_ms));
        }
        #[cfg(not(target_os = "linux"))]
        let _ = round_trip_ms;
    }

    /// Cuts a machine off from all others; false where there are no links.
    pub(super) fn isolate(&self, machine: usize) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(lab) = &self.lab {
            lab.isolate(machine);
            return true;
        }
        let _ = machine;
        false
    }

    /// Puts a machine that was cut off back.
    pub(super) fn rejoin(&self, machine: usize) {
        #[cfg(target_os = "linux")]
        if let Some(lab) = &self.lab {
            lab.rejoin(machine);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = machine;
    }

    /// Where others reach a machine.
    pub(super) fn address(&self, machine: usize) -> IpAddr {
        #[cfg(target_os = "linux")]
        if let Some(lab) = &self.lab {
            return lab.host(machine).ip().into();
        }
        let _ = machine;
        Ipv4Addr::LOCALHOST.into()
    }

    /// Does something on a machine: its loopback is its own.
    pub(super) fn inside<T: Send>(&self, machine: usize, work: impl FnOnce() -> T + Send) -> T {
        #[cfg(target_os = "linux")]
        if let Some(lab) = &self.lab {
            return lab.host(machine).inside(work);
        }
        let _ = machine;
        work()
    }

    /// Starts a program on a machine; it ends with its handle.
    pub(super) fn spawn(&self, machine: usize, mut command: Command) -> Result<Program> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = || format!("{name} cannot be started");
        #[cfg(target_os = "linux")]
        if let Some(lab) = &self.lab {
            let process = lab.host(machine).spawn(command).with_context(failed)?;
            return Ok(Program(Owned::InLab(process)));
        }
        let _ = machine;
        Ok(Program(Owned::Here(command.spawn().with_context(failed)?)))
    }

    /// Bytes that all machines have sent to each other so far; `None` where there are no links.
    pub(super) fn sent_bytes(&self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        if let Some(lab) = &self.lab {
            let sent = |host: &testkit::net::Host| {
                host.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
                    .ok()
                    .and_then(|table| sent_in(&table))
            };
            return lab.hosts().iter().map(sent).sum();
        }
        None
    }
}

/// Bytes sent by all interfaces but loopback: the ninth column of `proc_net(5)`'s `dev`.
fn sent_in(table: &str) -> Option<u64> {
    let rows = table.lines().filter_map(|line| line.split_once(':'));
    let interfaces = rows.filter(|(name, _)| name.trim() != "lo");
    interfaces
        .map(|(_, counts)| counts.split_whitespace().nth(8)?.parse::<u64>().ok())
        .sum()
}

/// A program that runs on one of the machines.
pub(super) struct Program(Owned);

enum Owned {
    #[cfg(target_os = "linux")]
    InLab(Process),
    Here(Child),
}

impl Program {
    /// Sends a signal by its name, such as `KILL`.
    pub(super) fn signal(&self, name: &str) -> Result<()> {
        let pid = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status()?;
        if !sent.success() {
            bail!("no signal {name} can be sent to process {pid}");
        }
        Ok(())
    }
}

impl Deref for Program {
    type Target = Child;

    fn deref(&self) -> &Child {
        match &self.0 {
            #[cfg(target_os = "linux")]
            Owned::InLab(process) => process,
            Owned::Here(child) => child,
        }
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Child {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Owned::InLab(process) => process,
            Owned::Here(child) => child,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.kill();
        let _ = self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_leaves_a_machine() {
        let table = "Inter-|   Receive                  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n\
                     \x20   lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n  lab0: 5 1 0 0 0 0 0 0 4242 7 0 0 0 0 0 0\n";
        assert_eq!(sent_in(table), Some(4242));
        assert_eq!(sent_in("lab0: 5"), None);
    }

    #[test]
    fn programs_end_with_their_handles() {
        let (machines, _) = Machines::new(1);
        let mut command = Command::new("sleep");
        command.arg("100");
        let program = machines.spawn(0, command).unwrap();
        let pid = program.id();
        program.signal("STOP").unwrap();
        drop(program);
        let left = Command::new("kill").args(["-0", &pid.to_string()]).output();
        assert!(!left.unwrap().status.success());
    }
}
