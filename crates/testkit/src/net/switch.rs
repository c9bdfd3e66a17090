//! Owns the thread that all packets between hosts go through: it reads them from each host's
//! device, asks the [`Path`] of their direction for their fate, and writes them to the other
//! device when their time has come. It sleeps in between.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;
use nix::sys::time::TimeSpec;

use super::link::{Counters, Link};
use super::path::Path;
use super::system;

/// `struct virtio_net_hdr` in front of each packet: what a packet of many segments is made of, and
/// which checksum is still to be made. Passed on as it came.
const HEADER_BYTES: usize = 10;

/// The longest packet of IPv4, behind its header.
const FRAME_BYTES_MAX: usize = HEADER_BYTES + 65_535;

/// Packets read from one host before the others have their turn and due ones are delivered.
const READ_BATCH: usize = 64;

/// Shortest sleep. With a stream of delayed packets each would otherwise be woken up for; so those
/// that are due shortly after each other are delivered at once, none early and none later than this.
const SLEEP_MIN: Duration = Duration::from_micros(30);

/// Something that is done between two packets.
type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// The running thread. Ends when dropped, and takes the hosts' devices with it.
pub(super) struct Switch {
    jobs: Sender<Job>,
    /// Wakes the thread up for a job.
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

/// One host, seen from the switch.
pub(super) struct Port {
    /// The address that leads to it.
    pub(super) ip: Ipv4Addr,
    /// Its device.
    pub(super) tun: File,
}

/// What the thread owns.
pub(super) struct Core {
    ports: Vec<Port>,
    /// From each host to each, in rows of the sender.
    paths: Vec<Path<Box<[u8]>>>,
    stopping: bool,
}

impl Switch {
    /// Starts to pass packets between `ports`, at first without delay or loss.
    pub(super) fn start(ports: Vec<Port>) -> io::Result<Self> {
        let bell = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
        )?);
        let (jobs, received) = channel();
        let count = ports.len();
        let link = Link::default();
        let core = Core {
            paths: (0..count * count).map(|_| Path::new(link)).collect(),
            ports,
            stopping: false,
        };
        for index in 0..count {
            core.set_offload(index)?;
        }
        let heard = bell.clone();
        let thread = Builder::new()
            .name("lab-switch".into())
            .spawn(move || core.run(&received, &heard))?;
        Ok(Self {
            jobs,
            bell,
            thread: Some(thread),
        })
    }

    /// Sets one direction.
    pub(super) fn set(&self, from: usize, to: usize, link: Link) -> io::Result<()> {
        self.with(move |core| {
            core.path(from, to).set(link);
            core.set_offload(from)
        })
    }

    /// Cuts or restores one direction.
    pub(super) fn set_cut(&self, from: usize, to: usize, cut: bool) {
        self.with(move |core| core.path(from, to).set_cut(cut));
    }

    /// How one direction is set.
    pub(super) fn link(&self, from: usize, to: usize) -> Link {
        self.with(move |core| core.path(from, to).link())
    }

    /// What was counted in one direction.
    pub(super) fn counters(&self, from: usize, to: usize) -> Counters {
        self.with(move |core| core.path(from, to).counters())
    }

    /// Has the thread do something, and waits for it.
    fn with<T: Send + 'static>(&self, job: impl FnOnce(&mut Core) -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let job = Box::new(move |core: &mut Core| {
            // Nobody waits only if the lab's user panicked.
            let _ = answer.send(job(core));
        });
        let sent = self.jobs.send(job).is_ok() && self.bell.write(1).is_ok();
        match answered.recv() {
            Ok(answer) if sent => answer,
            _ => panic!("the lab's switch has ended; its panic is above"),
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let stop: Job = Box::new(|core| core.stopping = true);
        if self.jobs.send(stop).is_ok() {
            // The counter cannot be full.
            let _ = self.bell.write(1);
        }
        if let Some(thread) = self.thread.take() {
            // A panic of it was reported to whoever used it.
            let _ = thread.join();
        }
    }
}

impl Core {
    fn path(&mut self, from: usize, to: usize) -> &mut Path<Box<[u8]>> {
        &mut self.paths[from * self.ports.len() + to]
    }

    /// Packets of many segments only from hosts all of whose directions treat them alike.
    fn set_offload(&self, from: usize) -> io::Result<()> {
        let count = self.ports.len();
        let mut row = self.paths[from * count..][..count].iter();
        let on = !row.any(|path| path.link().needs_single_packets());
        system::set_offload(&self.ports[from].tun, on)
    }

    fn run(mut self, jobs: &Receiver<Job>, bell: &EventFd) {
        // Without these rights a busy machine delays packets a little more.
        if system::run_first().is_err() {
            let _ = prctl::set_timerslack(1);
        }
        let mut frame = vec![0; FRAME_BYTES_MAX].into_boxed_slice();
        while !self.stopping {
            let (rung, ready) = self.wait(bell);
            if rung {
                // Fails when it was not rung after all.
                let _ = bell.read();
                jobs.try_iter().for_each(|job| job(&mut self));
            }
            for from in ready {
                self.receive(from, &mut frame);
            }
            self.deliver(Instant::now());
        }
    }

    /// Sleeps until the bell rings, packets come or one is due; says if it rang, and whose packets.
    fn wait(&self, bell: &EventFd) -> (bool, Vec<usize>) {
        let next_at = self.paths.iter().filter_map(Path::next_at).min();
        let sleep = next_at.map(|at| at.saturating_duration_since(Instant::now()).max(SLEEP_MIN));
        let descriptors = self.ports.iter().map(|port| port.tun.as_fd());
        let mut descriptors: Vec<PollFd> = std::iter::once(bell.as_fd())
            .chain(descriptors)
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        match ppoll(&mut descriptors, sleep.map(TimeSpec::from), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("cannot wait for packets: {error}"),
        }
        let mut ready = descriptors.iter().map(|descriptor| {
            let events = descriptor.revents().unwrap_or(PollFlags::empty());
            events.contains(PollFlags::POLLIN)
        });
        let rung = ready.next().unwrap_or(false);
        let ready = ready
            .enumerate()
            .filter_map(|(index, ready)| ready.then_some(index));
        (rung, ready.collect())
    }

    /// Reads what a host sends.
    fn receive(&mut self, from: usize, frame: &mut [u8]) {
        for _ in 0..READ_BATCH {
            match (&self.ports[from].tun).read(frame) {
                Ok(bytes) => self.pass(from, &frame[..bytes]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("cannot read a host's packets: {error}"),
            }
        }
    }

    /// Sends a packet on its way to whomever it is for. What is for nobody here ends here.
    fn pass(&mut self, from: usize, frame: &[u8]) {
        let Some(destination) = destination(frame) else {
            return;
        };
        let for_all = destination.is_multicast() || destination.is_broadcast();
        for to in (0..self.ports.len()).filter(|to| *to != from) {
            if for_all || self.ports[to].ip == destination {
                self.pass_to(from, to, frame);
            }
        }
    }

    fn pass_to(&mut self, from: usize, to: usize, frame: &[u8]) {
        let now = Instant::now();
        let bytes = frame.len() - HEADER_BYTES;
        let path = self.path(from, to);
        match path.admit(now, bytes) {
            Some(at) if at <= now && path.next_at().is_none() => write(&self.ports[to], frame),
            Some(at) => path.keep(at, bytes, frame.into()),
            None => {}
        }
    }

    /// Hands over what is due.
    fn deliver(&mut self, now: Instant) {
        let count = self.ports.len();
        for (index, path) in self.paths.iter_mut().enumerate() {
            while let Some(frame) = path.take(now) {
                write(&self.ports[index % count], &frame);
            }
        }
    }
}

/// A packet that the host does not take (its interface is down, its memory full) is lost, as on a
/// real network.
fn write(port: &Port, frame: &[u8]) {
    let _ = (&port.tun).write(frame);
}

/// Where a packet of IPv4 goes.
fn destination(frame: &[u8]) -> Option<Ipv4Addr> {
    const VERSION_AT: usize = HEADER_BYTES;
    const DESTINATION_AT: usize = HEADER_BYTES + 16;
    if frame.get(VERSION_AT)? >> 4 != 4 {
        return None;
    }
    let bytes: [u8; 4] = frame.get(DESTINATION_AT..)?.first_chunk().copied()?;
    Some(Ipv4Addr::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_destinations_of_ipv4_only() {
        let mut frame = vec![0; HEADER_BYTES + 20];
        assert_eq!(destination(&frame), None);
        frame[HEADER_BYTES] = 0x45;
        frame[HEADER_BYTES + 16..].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(destination(&frame), Some(Ipv4Addr::new(10, 1, 2, 3)));
        for bytes in 0..frame.len() {
            assert_eq!(destination(&frame[..bytes]), None);
        }
        frame[HEADER_BYTES] = 0x60;
        assert_eq!(destination(&frame), None);
    }
}
