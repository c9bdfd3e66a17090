//! Owns a lab: its hosts and the switch between them.

use std::io;
use std::net::Ipv4Addr;
use std::sync::OnceLock;

use super::host::Host;
use super::interface::PREFIX_BITS;
use super::link::{Counters, Link};
use super::switch::Switch;

/// Most hosts of one lab: each direction between two is looked at for each packet.
const HOSTS_MAX: usize = 32;

/// Why there is no lab. The usual reason is a machine that forbids it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// No network namespace.
    #[error(
        "cannot make a network namespace: {0}; hint: it takes root, or a system that allows user namespaces"
    )]
    Namespace(#[source] io::Error),
    /// No TUN device.
    #[error(
        "cannot make a TUN device: {0}; hint: is /dev/net/tun there, and may this user open it?"
    )]
    Device(#[source] io::Error),
    /// The kernel refuses addresses or routes.
    #[error("cannot configure a network namespace: {0}")]
    Configure(#[source] io::Error),
    /// The switch does not start.
    #[error("cannot pass packets between network namespaces: {0}")]
    Switch(#[source] io::Error),
    /// The system is out of threads.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Hosts on one emulated network. Everything in it ends when it is dropped, also by a panic, and
/// when this process ends, also by being killed.
pub struct Lab {
    /// Dropped before the switch, so that processes end first.
    hosts: Vec<Host>,
    switch: Switch,
}

impl Lab {
    /// Starts hosts that are joined without delay or loss.
    ///
    /// # Errors
    /// If the machine does not allow it; [`supported`] tells in advance.
    ///
    /// # Panics
    /// On more than 32 hosts.
    pub fn new(hosts: usize) -> Result<Self, LabError> {
        assert!(hosts <= HOSTS_MAX, "a lab has at most {HOSTS_MAX} hosts");
        let mut started = Vec::with_capacity(hosts);
        let mut ports = Vec::with_capacity(hosts);
        for ip in addresses().take(hosts) {
            let (host, port) = Host::start(ip)?;
            started.push(host);
            ports.push(port);
        }
        Ok(Self {
            hosts: started,
            switch: Switch::start(ports).map_err(LabError::Switch)?,
        })
    }

    /// One host, counted from 0.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// All hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Sets both directions between two hosts.
    pub fn set(&self, one: usize, other: usize, link: Link) {
        self.set_direction(one, other, link);
        // The same dice would lose the same packets in both directions.
        self.set_direction(other, one, link.with_seed(!link.seed));
    }

    /// Sets one direction.
    ///
    /// # Panics
    /// If there are no such hosts.
    pub fn set_direction(&self, from: usize, to: usize, link: Link) {
        self.check(from, to);
        if let Err(error) = self.switch.set(from, to, link) {
            panic!("cannot set a link: {error}");
        }
    }

    /// Sets all directions, each with dice of its own.
    pub fn set_all(&self, link: Link) {
        let pairs = self.pairs().enumerate();
        for (index, (one, other)) in pairs {
            let seed = link.seed.wrapping_add(index as u64);
            self.set(one, other, link.with_seed(seed));
        }
    }

    /// How one direction is set.
    #[must_use]
    pub fn link(&self, from: usize, to: usize) -> Link {
        self.check(from, to);
        self.switch.link(from, to)
    }

    /// Lets nothing through between two hosts, as if a cable were pulled. When this returns, also
    /// what was on its way is gone.
    pub fn cut(&self, one: usize, other: usize) {
        self.set_cut(one, other, true);
    }

    /// Joins two hosts again after [`cut`](Self::cut).
    pub fn restore(&self, one: usize, other: usize) {
        self.set_cut(one, other, false);
    }

    /// Cuts a host off from all others.
    pub fn isolate(&self, host: usize) {
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        others.for_each(|other| self.cut(host, other));
    }

    /// Joins a host with all others again.
    pub fn rejoin(&self, host: usize) {
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        others.for_each(|other| self.restore(host, other));
    }

    /// What was counted from one host to another.
    #[must_use]
    pub fn counters(&self, from: usize, to: usize) -> Counters {
        self.check(from, to);
        self.switch.counters(from, to)
    }

    fn set_cut(&self, one: usize, other: usize, cut: bool) {
        self.check(one, other);
        self.switch.set_cut(one, other, cut);
        self.switch.set_cut(other, one, cut);
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = self.hosts.len();
        (0..count).flat_map(move |one| (one + 1..count).map(move |other| (one, other)))
    }

    fn check(&self, one: usize, other: usize) {
        let count = self.hosts.len();
        assert!(one < count && other < count, "the lab has {count} hosts");
        assert!(one != other, "a host has no link to itself");
    }
}

/// 10.77.0.1 and so on, the same in every lab: labs cannot reach each other.
fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    const { assert!(HOSTS_MAX < 1 << (32 - PREFIX_BITS)) };
    (1..=u8::MAX).map(|number| Ipv4Addr::new(10, 77, 0, number))
}

/// Whether this machine allows a [`Lab`], and if not, why.
///
/// # Errors
/// The reason, for whoever reads that tests were skipped.
pub fn supported() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    let ask = || Lab::new(1).map(drop).map_err(|error| error.to_string());
    ANSWER.get_or_init(ask).clone()
}
