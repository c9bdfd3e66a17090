//! Owns the state machine as a whole: takes an event to the part it concerns, and keeps the time.
//! What each part decides is in its own module.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::detector::Detector;
use super::event::{Config, Effect, Event, Offence};
use super::links::{Links, Peer};
use super::message::Message;
use super::missing::Missing;
use super::publish::Publisher;
use super::pull::Puller;
use super::seek::Seeker;
use super::table::Table;
use super::view::View;
use super::{
    ASLEEP_MS, BOOTSTRAP_MAX, CHECKS_MAX, CONNECTIONS_MAX, DIAL_MS_MAX, DIALS_MAX, FORMER_MAX,
    HASHES_MAX, LINKS_MAX, MEMBERS_MAX, MISSING_MAX, PENDING_MAX, PROBES_MAX, SUSPICIONS_MAX,
};
use crate::announcement::{Authority, item_hash};
use crate::{NodeId, Role};

/// How often everything that has no closer deadline is looked over.
const TICK_MS: u64 = 1_000;

/// What this node does in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing yet, or no more.
    Off,
    /// It announces itself and passes news on.
    Gossip,
    /// It pulls the table.
    Pull,
}

/// The membership of one node. See the module's documentation.
pub struct State {
    pub(super) config: Config,
    pub(super) authority: Box<dyn Authority>,
    pub(super) rng: StdRng,
    pub(super) mode: Mode,
    pub(super) table: Table,
    /// Open connections.
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Dials under way, with the time at which they count as failed.
    pub(super) dials: BTreeMap<NodeId, u64>,
    pub(super) bootstrap: Vec<NodeId>,
    pub(super) links: Links,
    pub(super) missing: Missing,
    pub(super) detector: Detector,
    pub(super) publisher: Publisher,
    pub(super) seeker: Seeker,
    pub(super) puller: Puller,
    pub(super) view: Option<Arc<View>>,
    pub(super) view_version: u64,
    effects: Vec<Effect>,
    changed: bool,
    now_ms: u64,
    pub(super) started_at_ms: u64,
    next_tick_ms: u64,
    armed_ms: u64,
}

/// Lengths of everything that grows with what others do. Each stays within its limit in `limits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueLengths {
    /// Members, the departed included.
    pub members: usize,
    /// Open connections.
    pub connections: usize,
    /// Neighbours.
    pub links: usize,
    /// News waiting for the link with most.
    pub pending: usize,
    /// Hashes waiting for the link with most.
    pub haves: usize,
    /// News that others have and this node lacks.
    pub missing: usize,
    /// Checks of silent nodes.
    pub checks: usize,
    /// Suspicions that others told of.
    pub suspicions: usize,
    /// Questions on behalf of others.
    pub probes: usize,
    /// Dials under way.
    pub dials: usize,
    /// The dead that are looked for.
    pub former: usize,
}

impl QueueLengths {
    /// What no length ever exceeds.
    pub const LIMITS: Self = Self {
        members: MEMBERS_MAX,
        connections: CONNECTIONS_MAX,
        links: LINKS_MAX,
        pending: PENDING_MAX,
        haves: HASHES_MAX,
        missing: MISSING_MAX,
        checks: CHECKS_MAX,
        suspicions: SUSPICIONS_MAX,
        probes: PROBES_MAX,
        dials: DIALS_MAX,
        former: FORMER_MAX,
    };

    /// The greater of each two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            members: self.members.max(other.members),
            connections: self.connections.max(other.connections),
            links: self.links.max(other.links),
            pending: self.pending.max(other.pending),
            haves: self.haves.max(other.haves),
            missing: self.missing.max(other.missing),
            checks: self.checks.max(other.checks),
            suspicions: self.suspicions.max(other.suspicions),
            probes: self.probes.max(other.probes),
            dials: self.dials.max(other.dials),
            former: self.former.max(other.former),
        }
    }

    /// Whether every length is within its limit.
    #[must_use]
    pub fn are_bounded(self) -> bool {
        self.max(Self::LIMITS) == Self::LIMITS
    }
}

impl State {
    /// A node that is in no mesh until [`Event::Started`].
    #[must_use]
    pub fn new(config: Config, authority: Box<dyn Authority>) -> Self {
        let source = item_hash(b'V', config.me.as_bytes(), config.unix_ms, config.seed);
        Self {
            rng: StdRng::seed_from_u64(config.seed),
            table: Table::new(source),
            publisher: Publisher::new(config.unix_ms),
            config,
            authority,
            mode: Mode::Off,
            peers: BTreeMap::new(),
            dials: BTreeMap::new(),
            bootstrap: Vec::new(),
            links: Links::default(),
            missing: Missing::default(),
            detector: Detector::default(),
            seeker: Seeker::default(),
            puller: Puller::default(),
            view: None,
            view_version: 0,
            effects: Vec::new(),
            changed: false,
            now_ms: 0,
            started_at_ms: 0,
            next_tick_ms: 0,
            armed_ms: u64::MAX,
        }
    }

    /// Takes one event at `now_ms`, which never goes back, and says what is to be done.
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let asleep_ms = now_ms.saturating_sub(self.now_ms);
        self.now_ms = self.now_ms.max(now_ms);
        if self.mode != Mode::Off && asleep_ms >= ASLEEP_MS {
            self.table.be_patient(self.now_ms);
            self.detector.forgive(asleep_ms);
            self.links.forgive(asleep_ms, &mut self.peers);
        }
        match event {
            Event::Started {
                bootstrap,
                revocations,
                info,
            } => self.start(bootstrap, revocations, info),
            _ if self.mode == Mode::Off => {}
            Event::PeerConnected { node, role } => self.on_connected(node, role),
            Event::PeerClosed { node, clean } => self.on_closed(node, clean),
            Event::DialFailed { node } => self.on_dial_failed(node),
            Event::Message { from, message } => self.on_message(from, message),
            Event::RoundTrip { node, us } => self.on_round_trip(node, us),
            Event::Tick => {}
            Event::LocalChanged(info) => self.set_info(info),
            Event::Revoke(blob) => self.take_revocation(blob.into(), None),
            Event::PullNow => self.pull_soon(),
            Event::Leave => self.leave(),
        }
        if self.mode != Mode::Off {
            self.run_timers();
        }
        self.finish()
    }

    /// Lengths of the queues, for tests and metrics.
    #[must_use]
    pub fn queue_lengths(&self) -> QueueLengths {
        let (pending, haves) = self.links.queue_lengths();
        QueueLengths {
            members: self.table.len(),
            connections: self.peers.len(),
            links: self.links.len(),
            pending,
            haves,
            missing: self.missing.len(),
            checks: self.detector.checks_len(),
            suspicions: self.detector.suspicions_len(),
            probes: self.detector.probes_len(),
            dials: self.dials.len(),
            former: self.seeker.len(),
        }
    }

    /// Digest of what this node knows: equal at two nodes that know the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.table.root()
    }

    fn start(
        &mut self,
        mut bootstrap: Vec<NodeId>,
        revocations: Vec<Vec<u8>>,
        info: crate::announcement::NodeInfo,
    ) {
        if self.mode != Mode::Off {
            return;
        }
        bootstrap.retain(|node| *node != self.config.me);
        bootstrap.truncate(BOOTSTRAP_MAX);
        self.bootstrap = bootstrap;
        self.started_at_ms = self.now_ms;
        self.next_tick_ms = self.now_ms;
        self.mode = Mode::Pull;
        self.table.set_trusting(true);
        for blob in revocations {
            self.take_revocation(blob.into(), None);
        }
        self.set_info(info);
    }

    fn on_connected(&mut self, node: NodeId, role: Role) {
        self.dials.remove(&node);
        if node == self.config.me {
            return;
        }
        if self.peers.len() >= CONNECTIONS_MAX && !self.peers.contains_key(&node) {
            self.effect(Effect::Release { node });
            return;
        }
        // A new connection starts anew: what the old one agreed on is gone with it.
        self.links.remove(node);
        self.peers.insert(node, Peer::new(role, self.now_ms));
        self.heard(node);
        self.mark_changed();
        match self.mode {
            Mode::Gossip if role == Role::Serve => self.greet(node),
            Mode::Pull => self.puller_connected(node),
            _ => {}
        }
    }

    fn on_closed(&mut self, node: NodeId, clean: bool) {
        if self.peers.remove(&node).is_none() {
            return;
        }
        self.mark_changed();
        if self.links.remove(node) {
            self.links.choose_soon(self.now_ms);
        }
        self.puller_closed(node);
        // Whatever the connection was for: its loss is the first sign of a death.
        if self.mode == Mode::Gossip && !clean {
            self.start_check(node);
        }
    }

    fn on_dial_failed(&mut self, node: NodeId) {
        self.dials.remove(&node);
        if self.peers.contains_key(&node) {
            return;
        }
        self.links.refuse(node, self.now_ms);
        if self.mode == Mode::Gossip && !self.seeker.seeks(node) {
            self.start_check(node);
        }
        self.puller_dial_failed(node);
    }

    fn on_round_trip(&mut self, node: NodeId, us: u32) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let before = peer.round_trip_us.replace(us);
        // Others are told with the next load.
        if differ(before, us) {
            self.mark_changed();
        }
    }

    fn on_message(&mut self, from: NodeId, message: Message) {
        let Some(role) = self.peers.get(&from).map(|peer| peer.role) else {
            return;
        };
        self.heard(from);
        match message {
            Message::Ping {
                nonce,
                round_trip_us,
            } => self.on_ping(from, nonce, round_trip_us),
            Message::Pong { nonce } => self.on_pong(from, nonce),
            Message::Pull {
                have,
                root,
                whole,
                rates,
            } => self.on_pull(from, have, root, whole, rates),
            // Clients ask; they have nothing to tell.
            _ if role == Role::Client => {}
            Message::Table(page) => self.on_table(from, page),
            Message::Unchanged { version, next_ms } => self.on_unchanged(from, version, next_ms),
            Message::News { items } => self.on_news(from, items),
            Message::Link { .. } if self.mode != Mode::Gossip => self.send(from, Message::Refuse),
            _ if self.mode != Mode::Gossip => {}
            Message::Link { wanted, root } => self.on_link(from, wanted, root),
            Message::Refuse => self.on_refuse(from),
            Message::Have { hashes, offered } => self.on_have(from, &hashes, offered),
            Message::Want { hashes, graft } => self.on_want(from, hashes, graft),
            Message::Prune => self.on_prune(from),
            Message::Compare { root } => self.on_compare(from, root),
            Message::Parts { digests } => self.on_parts(from, &digests),
            Message::Entries {
                parts,
                differing,
                hashes,
            } => self.on_entries(from, parts, &differing, hashes),
            Message::Probe { target } => self.on_probe(from, target),
            Message::Reached { target } => self.on_reached(target),
        }
    }

    fn run_timers(&mut self) {
        if self.next_tick_ms <= self.now_ms {
            self.next_tick_ms = self.now_ms + TICK_MS;
            self.expire_dials();
            match self.mode {
                Mode::Gossip => {
                    self.ping_silent();
                    self.run_checks();
                    self.sweep();
                    self.compare_with_one();
                    self.seek();
                    self.publish_if_due();
                }
                Mode::Pull => self.run_pull(),
                Mode::Off => {}
            }
            self.release_unneeded();
            self.detector.forget(self.now_ms);
        }
        match self.mode {
            Mode::Gossip => {
                self.choose_links();
                self.publish_if_urgent();
            }
            Mode::Pull => self.pull_if_due(),
            Mode::Off => {}
        }
        self.ask_for_missing();
        self.flush_links();
    }

    fn expire_dials(&mut self) {
        let now_ms = self.now_ms;
        let late = self.dials.iter().filter(|(_, at)| **at <= now_ms);
        for node in late.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.on_dial_failed(node);
        }
    }

    /// Whether the protocol needs an open connection at the moment. One that was
    /// [released](Effect::Release) may be needed again by the time at which it would be closed.
    #[must_use]
    pub fn needs(&self, node: NodeId) -> bool {
        let Some(peer) = self.peers.get(&node) else {
            return false;
        };
        match self.mode {
            Mode::Off => false,
            Mode::Gossip => {
                peer.role == Role::Client || self.links.contains(node) || self.pulls(peer)
            }
            Mode::Pull => self.pulls_from(node),
        }
    }

    /// Lets go of connections that were made for a question, by the other side, or for the application.
    fn release_unneeded(&mut self) {
        let open: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in open {
            let needed = self.needs(node);
            if let Some(peer) = self.peers.get_mut(&node)
                && peer.released == needed
            {
                peer.released = !needed;
                if !needed {
                    self.effect(Effect::Release { node });
                }
            }
        }
    }

    /// Asks `net` to dial, unless it is connected, being dialled, or too much is.
    pub(super) fn dial(&mut self, node: NodeId) {
        let known = self.peers.contains_key(&node) || self.dials.contains_key(&node);
        if known || self.dials.len() >= DIALS_MAX || node == self.config.me {
            return;
        }
        self.dials.insert(node, self.now_ms + DIAL_MS_MAX);
        let signed = self
            .table
            .get(node)
            .and_then(|record| record.signed.as_ref());
        let addresses = signed.map(|s| s.announcement().info.addresses.clone());
        self.effect(Effect::Connect {
            node,
            addresses: addresses.unwrap_or_default(),
        });
    }

    pub(super) fn disconnect(&mut self, node: NodeId, offence: Offence) {
        self.links.remove(node);
        self.peers.remove(&node);
        self.dials.remove(&node);
        self.puller_closed(node);
        self.mark_changed();
        self.effect(Effect::Disconnect { node, offence });
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        self.effect(Effect::Send { to, message });
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// The view is outdated.
    pub(super) fn mark_changed(&mut self) {
        self.changed = true;
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// This node's wall clock, as far as it can tell without asking.
    pub(super) fn unix_ms(&self) -> u64 {
        self.config.unix_ms + (self.now_ms - self.started_at_ms)
    }

    fn finish(&mut self) -> Vec<Effect> {
        if std::mem::take(&mut self.changed) {
            self.view = None;
            self.view_version += 1;
            self.effect(Effect::Changed);
        }
        if self.mode != Mode::Off {
            let choose_at_ms = (self.mode == Mode::Gossip).then_some(self.links.choose_at_ms());
            let own_at_ms = match self.mode {
                Mode::Gossip => self.publisher.urgent_at_ms(),
                Mode::Pull => self.puller.due_ms(),
                Mode::Off => None,
            };
            let closer = [
                self.links.due_ms(),
                self.missing.next_at_ms(),
                choose_at_ms,
                own_at_ms,
            ];
            let next = closer.into_iter().flatten().min().unwrap_or(u64::MAX);
            // At least a millisecond ahead: a timer for now would never let the clock move.
            let at_ms = next.min(self.next_tick_ms).max(self.now_ms + 1);
            if at_ms != self.armed_ms {
                self.armed_ms = at_ms;
                self.effect(Effect::Wake { at_ms });
            }
        }
        std::mem::take(&mut self.effects)
    }
}

/// Round trips that differ by less, microseconds or in proportion, are the same: they are never quite.
const SAME_US: u32 = 500;
const SAME_PART: u32 = 64;

/// Whether a round trip is another one than before, or the first.
fn differ(before: Option<u32>, now: u32) -> bool {
    before.is_none_or(|before| before.abs_diff(now) > SAME_US.max(before / SAME_PART))
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("me", &self.config.me)
            .field("mode", &self.mode)
            .field("queues", &self.queue_lengths())
            .finish_non_exhaustive()
    }
}
