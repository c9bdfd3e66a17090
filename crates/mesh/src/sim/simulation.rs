//! Owns the simulation as a whole: time, nodes and network, and what drives the state machines.
//! How connections come and go is in `connections`, what tests ask in `observation`.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::agenda::Agenda;
use super::happening::Happening;
use super::mixing::{mix, mix_bytes};
use super::network::{Network, Quality};
use super::node::{Kind, Life, Node};
use crate::NodeId;
use crate::proto::{Effect, Event, Message, QueueLengths};

/// What a simulation is made with.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// How messages fare where nothing else is said.
    pub quality: Quality,
    /// How often the load of a serving node changes, in milliseconds; `None` for never.
    pub load_ms: Option<u64>,
    /// One in so many messages is read back from its bytes and compared; all others are handed over
    /// as they are, which is quicker. 1 reads all of them.
    pub decode_every: u64,
    /// Whether to note the length of every queue after every event.
    pub watch_queues: bool,
}

impl Settings {
    /// Default network, all messages read, all queues watched.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            quality: Quality::default(),
            load_ms: None,
            decode_every: 1,
            watch_queues: true,
        }
    }
}

/// Many nodes on one virtual clock. Nodes are named by their index, in the order of
/// [`add`](Self::add).
pub struct Simulation {
    pub(super) settings: Settings,
    pub(super) agenda: Agenda<Happening>,
    pub(super) nodes: Vec<Node>,
    /// For look-ups alone.
    pub(super) index_of: HashMap<NodeId, usize>,
    pub(super) network: Network,
    pub(super) rng: StdRng,
    pub(super) next_serial: u64,
    pub(super) trace: u64,
    pub(super) messages: u64,
    pub(super) peaks: QueueLengths,
    pub(super) faults: Vec<String>,
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("settings", &self.settings)
            .field("now_ms", &self.now_ms())
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl Simulation {
    /// An empty world at time 0.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            agenda: Agenda::new(),
            nodes: Vec::new(),
            index_of: HashMap::new(),
            network: Network::new(settings.quality),
            rng: StdRng::seed_from_u64(mix(settings.seed)),
            next_serial: 0,
            trace: settings.seed,
            messages: 0,
            peaks: QueueLengths::default(),
            faults: Vec::new(),
        }
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.agenda.now_ms()
    }

    /// The network, to change how messages fare.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// A machine with a node that does not run yet and will look for the mesh at `bootstrap`.
    pub fn add(&mut self, kind: Kind, bootstrap: &[usize]) -> usize {
        let index = self.nodes.len();
        let node = Node::new(self.settings.seed, index, kind, bootstrap.to_vec());
        self.index_of.insert(node.id, index);
        self.nodes.push(node);
        index
    }

    /// Adds `count` serving nodes that know the first one, and starts them `apart_ms` from each other.
    pub fn grow(&mut self, count: usize, apart_ms: u64) {
        for _ in 0..count {
            let node = self.add(Kind::Serving, &[0]);
            self.start(node);
            self.run_for(apart_ms);
        }
    }

    /// Sets a machine's wall clock ahead (or, negative, behind) of the others'; counts from its next
    /// start.
    pub fn skew_clock(&mut self, node: usize, skew_ms: i64) {
        self.nodes[node].skew_ms = skew_ms;
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let draw = self.rng.random_range(0..=1_000);
        let node = &mut self.nodes[index];
        if node.life.is_some() {
            return;
        }
        node.be_born(self.settings.seed, now_ms);
        let bootstrap = node.bootstrap.clone();
        let (info, revocations) = (node.info.clone(), node.revocations.clone());
        if let Some(load_ms) = self.settings.load_ms
            && info.state.announces()
        {
            self.agenda.push(
                now_ms + load_ms * draw / 1_000,
                Happening::Load { node: index },
            );
        }
        let bootstrap = bootstrap.into_iter().map(|other| self.nodes[other].id);
        let started = Event::Started {
            bootstrap: bootstrap.collect(),
            revocations,
            info,
        };
        self.drive(index, started);
    }

    /// Runs until the clock has moved by `ms`.
    pub fn run_for(&mut self, ms: u64) {
        self.run_to(self.now_ms() + ms);
    }

    /// Runs until the clock shows `at_ms`.
    pub fn run_to(&mut self, at_ms: u64) {
        while let Some(happening) = self.agenda.pop(at_ms) {
            let node = &mut self.nodes[happening.node()];
            if node.paused_at_ms.is_some() {
                node.held.push(happening);
            } else {
                self.happen(happening);
            }
        }
    }

    /// Runs until `done`, which is asked every 100 ms, and says how long that took; `None` after `ms_max`.
    pub fn run_until(
        &mut self,
        ms_max: u64,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<u64> {
        let start_ms = self.now_ms();
        loop {
            if done(self) {
                return Some(self.now_ms() - start_ms);
            }
            if self.now_ms() >= start_ms + ms_max {
                return None;
            }
            self.run_for(100);
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { node, at_ms } => {
                if self.life(node).is_some_and(|life| life.wake_at_ms == at_ms) {
                    self.drive(node, Event::Tick);
                }
            }
            Happening::Arrival {
                from,
                to,
                connection,
                bytes,
                message,
            } => {
                if self.is_connected(to, from, connection) {
                    self.limit_rate(to, from, bytes);
                    let from = self.nodes[from].id;
                    self.drive(to, Event::Message { from, message });
                }
            }
            Happening::Load { node } => self.change_load(node),
            other => self.connection_happening(other),
        }
    }

    pub(super) fn life(&self, node: usize) -> Option<&Life> {
        self.nodes[node].life.as_ref()
    }

    pub(super) fn life_mut(&mut self, node: usize) -> Option<&mut Life> {
        self.nodes[node].life.as_mut()
    }

    fn change_load(&mut self, index: usize) {
        let draw = self.rng.random();
        let node = &mut self.nodes[index];
        if node.life.is_none() {
            return;
        }
        node.change_load(draw);
        let info = node.info.clone();
        if info.state.announces() {
            self.drive(index, Event::LocalChanged(info));
        }
        if let Some(load_ms) = self.settings.load_ms {
            let at_ms = self.now_ms() + load_ms;
            self.agenda.push(at_ms, Happening::Load { node: index });
        }
    }

    /// Gives an event to a node's state machine and does what follows.
    pub(super) fn drive(&mut self, index: usize, event: Event) {
        let now_ms = self.now_ms();
        let Some(life) = &mut self.nodes[index].life else {
            return;
        };
        let effects = life.state.handle(event, now_ms - life.started_at_ms);
        if self.settings.watch_queues {
            let lengths = life.state.queue_lengths();
            self.peaks = self.peaks.max(lengths);
        }
        for effect in effects {
            self.apply(index, effect);
        }
    }

    fn apply(&mut self, index: usize, effect: Effect) {
        let (kind, subject) = match effect {
            Effect::Send { to, message } => return self.send(index, to, message),
            Effect::Connect { node, .. } => {
                self.dial(index, node);
                (1, Some(node))
            }
            Effect::Release { node } => {
                self.release(index, node);
                (2, Some(node))
            }
            Effect::Disconnect { node, .. } => {
                self.disconnect(index, node);
                (3, Some(node))
            }
            Effect::Changed => (4, None),
            Effect::Revoked(blob) => {
                self.nodes[index].revocations.push(blob.to_vec());
                (5, None)
            }
            Effect::Wake { at_ms } => {
                self.wake(index, at_ms);
                (6, None)
            }
            Effect::Left => {
                self.end_cleanly(index);
                (7, None)
            }
        };
        let subject = subject.map_or(0, |node| mix_bytes(0, node.as_bytes()));
        self.note(index, kind, subject);
    }

    /// Every effect leaves its mark: two runs with one seed must have the same.
    fn note(&mut self, index: usize, kind: u64, content: u64) {
        let place = mix(self.now_ms() ^ (index as u64) << 40 ^ kind << 56);
        self.trace = mix(self.trace ^ place ^ content);
    }

    fn wake(&mut self, index: usize, at_ms: u64) {
        if let Some(life) = self.life_mut(index) {
            let at_ms = at_ms + life.started_at_ms;
            life.wake_at_ms = at_ms;
            self.agenda
                .push(at_ms, Happening::Wake { node: index, at_ms });
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let encoded = message.encode();
        self.note(
            from,
            0,
            mix_bytes(0, &encoded) ^ mix_bytes(1, to.as_bytes()),
        );
        let Some(&to) = self.index_of.get(&to) else {
            return;
        };
        if self.peer(from, to).is_none() {
            return;
        }
        self.nodes[from].traffic.count(&message, encoded.len());
        self.messages += 1;
        let message = if self.messages.is_multiple_of(self.settings.decode_every) {
            self.read_back(&encoded, message)
        } else {
            message
        };
        self.put_on_the_way(from, to, encoded.len(), message);
    }

    /// What the bytes of a message say, which must be what it said.
    fn read_back(&mut self, encoded: &[u8], message: Message) -> Message {
        match Message::decode(encoded) {
            Ok(Some(read)) if read == message => read,
            other => {
                self.fault(format!("{message:?} reads back as {other:?}"));
                message
            }
        }
    }

    fn put_on_the_way(&mut self, from: usize, to: usize, bytes: usize, message: Message) {
        let now_ms = self.now_ms();
        let copies = self.network.copies(from, to, &mut self.rng);
        let Some(peer) = self.nodes[from]
            .life
            .as_mut()
            .and_then(|l| l.peers.get_mut(&to))
        else {
            return;
        };
        let connection = peer.connection;
        for copy in copies.into_iter().flatten() {
            let mut at_ms = (now_ms + copy.delay_ms).max(peer.open_ms);
            if !copy.unordered {
                at_ms = at_ms.max(peer.arrival_ms);
                peer.arrival_ms = at_ms;
            }
            let arrival = Happening::Arrival {
                from,
                to,
                connection,
                bytes,
                message: message.clone(),
            };
            self.agenda.push(at_ms, arrival);
        }
    }

    /// The real node would cut off a peer that sends more than this.
    fn limit_rate(&mut self, node: usize, peer: usize, bytes: usize) {
        let now_ms = self.now_ms();
        let Some(end) = self
            .life_mut(node)
            .and_then(|life| life.peers.get_mut(&peer))
        else {
            return;
        };
        if !end.messages.take(1, now_ms) || !end.bytes.take(bytes as u64, now_ms) {
            self.fault(format!(
                "node {peer} sends more to node {node} than allowed"
            ));
        }
    }

    /// Something that must never happen.
    pub(super) fn fault(&mut self, what: String) {
        const FAULTS_MAX: usize = 16;
        if self.faults.len() < FAULTS_MAX {
            let now_ms = self.now_ms();
            self.faults.push(format!("at {now_ms} ms: {what}"));
        }
    }
}
