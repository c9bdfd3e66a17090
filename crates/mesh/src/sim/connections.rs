//! Owns how connections come and go between simulated nodes, as `net` does it: one for each pair,
//! which of two crossing dials wins, what a silent or unneeded connection comes to.
//!
//! A connection has two ends, and each learns of its loss by itself.

use super::authority::revocation_of;
use super::happening::{DialRef, Happening};
use super::node::{Dial, Kind, Peer};
use super::simulation::Simulation;
use crate::bucket::Bucket;
use crate::proto::{
    CONNECTIONS_MAX, DIAL_MS_MAX, Event, PEER_BYTES_BURST, PEER_BYTES_PER_SECOND,
    PEER_MESSAGES_BURST, PEER_MESSAGES_PER_SECOND,
};
use crate::{NodeId, Role};

/// When a silent connection ends, as in the default settings of `net`.
pub const IDLE_MS: u64 = 5_000;

/// When an unused connection is closed, as in `net`.
const UNUSED_MS: u64 = 20_000;

/// Two dials within this time may be crossing ones, as in `net`.
const CROSSING_MS: u64 = 5_000;

/// How long a dial that lost waits for the one that won, as in `net`.
const THEIRS_MS: u64 = 3_000;

/// When the first packets of a dial are repeated; each later repetition waits twice as long.
const REPEAT_MS: u64 = 1_000;

/// Repetitions that fit into the longest dial.
const ATTEMPTS_MAX: u32 = 3;

/// When `net` first tells a round trip.
const ROUND_TRIP_MS: u64 = 5_000;

/// Clients that one node takes, as in `net`.
const CLIENTS_MAX: usize = 256;

/// What the acceptor says to a hello.
enum Decision {
    Accept,
    Refuse,
    Duplicate,
}

impl Simulation {
    pub(super) fn connection_happening(&mut self, happening: Happening) {
        match happening {
            Happening::Attempt { dial, attempt } => self.attempt(dial, attempt),
            Happening::Shaking(dial) => self.shake(dial),
            Happening::Hello(dial) => self.hello(dial),
            Happening::Welcome(dial) => self.welcome(dial),
            Happening::Refused { dial, duplicate } => self.refused(dial, duplicate),
            Happening::GiveUp(dial) => self.fail_dial(dial),
            Happening::Closed {
                node,
                peer,
                connection,
                clean,
            } => self.close(node, peer, connection, clean),
            Happening::IdleCheck {
                node,
                peer,
                connection,
            } => self.check_idle(node, peer, connection),
            Happening::UnusedCheck {
                node,
                peer,
                connection,
            } => self.check_unused(node, peer, connection),
            Happening::RoundTrip {
                node,
                peer,
                connection,
            } => self.measure(node, peer, connection),
            Happening::Wake { .. } | Happening::Arrival { .. } | Happening::Load { .. } => {}
        }
    }

    pub(super) fn peer(&self, node: usize, peer: usize) -> Option<&Peer> {
        self.life(node)?.peers.get(&peer)
    }

    fn peer_mut(&mut self, node: usize, peer: usize) -> Option<&mut Peer> {
        self.life_mut(node)?.peers.get_mut(&peer)
    }

    pub(super) fn is_connected(&self, node: usize, peer: usize, connection: u64) -> bool {
        self.peer(node, peer)
            .is_some_and(|p| p.connection == connection)
    }

    pub(super) fn dial(&mut self, from: usize, to: NodeId) {
        let Some(&to) = self.index_of.get(&to) else {
            return;
        };
        self.next_serial += 1;
        let serial = self.next_serial;
        let now_ms = self.now_ms();
        let Some(life) = self.life_mut(from) else {
            return;
        };
        if life.peers.contains_key(&to) || life.dials.contains_key(&to) {
            return;
        }
        let shaking = false;
        life.dials.insert(to, Dial { serial, shaking });
        self.nodes[from].traffic.dials += 1;
        let dial = DialRef { from, to, serial };
        self.agenda
            .push(now_ms, Happening::Attempt { dial, attempt: 0 });
        self.agenda
            .push(now_ms + DIAL_MS_MAX, Happening::GiveUp(dial));
    }

    fn is_dialling(&self, dial: DialRef) -> bool {
        let under_way = self.life(dial.from).and_then(|l| l.dials.get(&dial.to));
        under_way.is_some_and(|d| d.serial == dial.serial)
    }

    /// Whether a packet to this node would be answered.
    fn answers(&self, node: usize) -> bool {
        self.nodes[node].life.is_some() && self.nodes[node].paused_at_ms.is_none()
    }

    fn attempt(&mut self, dial: DialRef, attempt: u32) {
        if !self.is_dialling(dial) {
            return;
        }
        let there = self.network.transit(dial.from, dial.to, &mut self.rng);
        let back = self.network.transit(dial.to, dial.from, &mut self.rng);
        let now_ms = self.now_ms();
        if let (Some(there), Some(back), true) = (there, back, self.answers(dial.to)) {
            self.agenda
                .push(now_ms + there + back, Happening::Shaking(dial));
        } else if attempt < ATTEMPTS_MAX {
            let attempt = attempt + 1;
            let at_ms = now_ms + REPEAT_MS * (1 << (attempt - 1));
            self.agenda
                .push(at_ms, Happening::Attempt { dial, attempt });
        }
    }

    /// How long a packet of a standing connection takes that is repeated until it arrives; `None`
    /// if it will not.
    fn repeated_transit(&mut self, from: usize, to: usize) -> Option<u64> {
        const REPETITIONS: u64 = 6;
        let round_trip_ms = 2 * (self.network.quality(from, to).delay_ms + 25);
        (0..REPETITIONS).find_map(|repetition| {
            let transit = self.network.transit(from, to, &mut self.rng)?;
            Some(transit + round_trip_ms * repetition * (repetition + 1))
        })
    }

    fn shake(&mut self, dial: DialRef) {
        if !self.is_dialling(dial) {
            return;
        }
        let under_way = self
            .life_mut(dial.from)
            .and_then(|l| l.dials.get_mut(&dial.to));
        if let Some(under_way) = under_way {
            under_way.shaking = true;
        }
        if let Some(ms) = self.repeated_transit(dial.from, dial.to) {
            let at_ms = self.now_ms() + ms;
            self.agenda.push(at_ms, Happening::Hello(dial));
        }
    }

    fn hello(&mut self, dial: DialRef) {
        let (node, peer) = (dial.to, dial.from);
        // A hello of a program that is gone meanwhile changes nothing that lasts.
        if self.life(node).is_none() || !self.is_dialling(dial) {
            return;
        }
        let Some(ms) = self.repeated_transit(node, peer) else {
            return;
        };
        let at_ms = self.now_ms() + ms;
        let decision = self.decide(node, peer);
        let answer = match decision {
            Decision::Accept => Happening::Welcome(dial),
            Decision::Refuse | Decision::Duplicate => Happening::Refused {
                dial,
                duplicate: matches!(decision, Decision::Duplicate),
            },
        };
        self.agenda.push(at_ms, answer);
        if matches!(decision, Decision::Accept) {
            // Nothing arrives before the welcome does: it goes first on the same stream.
            self.register(node, peer, dial.serial, at_ms);
        }
    }

    /// The rules of `net::actor::connections`.
    fn decide(&self, node: usize, peer: usize) -> Decision {
        let Some(life) = self.life(node) else {
            return Decision::Refuse;
        };
        if self.nodes[node].kind == Kind::Client || self.are_parted(node, peer) {
            return Decision::Refuse;
        }
        let mine_wins = self.nodes[node].id < self.nodes[peer].id;
        if let Some(old) = life.peers.get(&peer) {
            let crossed = old.dialled
                && old.instance == self.nodes[peer].lives
                && old.since_ms + CROSSING_MS > self.now_ms();
            return if crossed && mine_wins {
                Decision::Duplicate
            } else {
                Decision::Accept
            };
        }
        if mine_wins && life.dials.get(&peer).is_some_and(|dial| dial.shaking) {
            return Decision::Duplicate;
        }
        let clients = life.peers.values().filter(|p| p.role == Role::Client);
        let full = self.nodes[peer].kind == Kind::Client && clients.count() >= CLIENTS_MAX;
        if full || life.peers.len() >= CONNECTIONS_MAX {
            Decision::Refuse
        } else {
            Decision::Accept
        }
    }

    /// Whether either holds the other for expelled: certificates would be refused.
    fn are_parted(&self, one: usize, other: usize) -> bool {
        let expelled = |by: usize, node: usize| {
            let blob = revocation_of(self.nodes[node].id);
            self.nodes[by].revocations.contains(&blob)
        };
        expelled(one, other) || expelled(other, one)
    }

    /// Takes a connection into the table of one end, in place of an older one. The other end can use
    /// it from `open_ms` on: at once if it was there first, which means that this end dialled.
    fn register(&mut self, node: usize, peer: usize, connection: u64, open_ms: u64) {
        let now_ms = self.now_ms();
        let dialled = open_ms == now_ms;
        let role = self.nodes[peer].kind.role();
        let end = Peer {
            connection,
            role,
            instance: self.nodes[peer].lives,
            dialled,
            since_ms: now_ms,
            open_ms,
            arrival_ms: open_ms,
            silent_since_ms: None,
            unused_since_ms: None,
            messages: Bucket::new(PEER_MESSAGES_PER_SECOND, PEER_MESSAGES_BURST, now_ms),
            bytes: Bucket::new(PEER_BYTES_PER_SECOND, PEER_BYTES_BURST, now_ms),
        };
        let Some(life) = self.life_mut(node) else {
            return;
        };
        life.dials.remove(&peer);
        if let Some(old) = life.peers.insert(peer, end) {
            self.tell_closed(node, peer, old.connection, old.arrival_ms, true);
        }
        self.agenda.push(
            now_ms + ROUND_TRIP_MS,
            Happening::RoundTrip {
                node,
                peer,
                connection,
            },
        );
        let node_id = self.nodes[peer].id;
        let connected = Event::PeerConnected {
            node: node_id,
            role,
        };
        self.drive(node, connected);
        self.look_for_silence(node, peer);
        self.look_for_silence(peer, node);
    }

    fn welcome(&mut self, dial: DialRef) {
        if self.is_dialling(dial) {
            let now_ms = self.now_ms();
            self.register(dial.from, dial.to, dial.serial, now_ms);
        } else {
            let now_ms = self.now_ms();
            self.tell_closed(dial.from, dial.to, dial.serial, now_ms, true);
        }
    }

    fn refused(&mut self, dial: DialRef, duplicate: bool) {
        if duplicate {
            let at_ms = self.now_ms() + THEIRS_MS;
            self.agenda.push(at_ms, Happening::GiveUp(dial));
        } else {
            self.fail_dial(dial);
        }
    }

    fn fail_dial(&mut self, dial: DialRef) {
        if !self.is_dialling(dial) {
            return;
        }
        if let Some(life) = self.life_mut(dial.from) {
            life.dials.remove(&dial.to);
        }
        let node = self.nodes[dial.to].id;
        self.drive(dial.from, Event::DialFailed { node });
    }

    /// The other end hears that this one closed, after everything that was sent before.
    pub(super) fn tell_closed(
        &mut self,
        node: usize,
        peer: usize,
        connection: u64,
        after_ms: u64,
        clean: bool,
    ) {
        if let Some(ms) = self.network.transit(node, peer, &mut self.rng) {
            let at_ms = (self.now_ms() + ms).max(after_ms);
            let closed = Happening::Closed {
                node: peer,
                peer: node,
                connection,
                clean,
            };
            self.agenda.push(at_ms, closed);
        }
        // Whether or not that arrives, nothing else comes any more.
        self.look_for_silence(peer, node);
    }

    /// Takes a connection out of the table of one end and tells its state machine.
    fn close(&mut self, node: usize, peer: usize, connection: u64, clean: bool) {
        if !self.is_connected(node, peer, connection) {
            return;
        }
        if let Some(life) = self.life_mut(node) {
            life.peers.remove(&peer);
        }
        let id = self.nodes[peer].id;
        self.drive(node, Event::PeerClosed { node: id, clean });
        self.look_for_silence(peer, node);
    }

    /// A connection is found dead.
    pub(super) fn lose(&mut self, node: usize, peer: usize) {
        if let Some(end) = self.peer(node, peer) {
            self.close(node, peer, end.connection, false);
        }
    }

    pub(super) fn release(&mut self, node: usize, peer: NodeId) {
        let now_ms = self.now_ms();
        let Some(&peer) = self.index_of.get(&peer) else {
            return;
        };
        let Some(end) = self.peer_mut(node, peer) else {
            return;
        };
        end.unused_since_ms = Some(now_ms);
        let connection = end.connection;
        let check = Happening::UnusedCheck {
            node,
            peer,
            connection,
        };
        self.agenda.push(now_ms + UNUSED_MS, check);
    }

    fn check_unused(&mut self, node: usize, peer: usize, connection: u64) {
        let now_ms = self.now_ms();
        let needed = self
            .life(node)
            .is_some_and(|life| life.state.needs(self.nodes[peer].id));
        let end = self
            .peer_mut(node, peer)
            .filter(|p| p.connection == connection);
        let Some(end) = end else {
            return;
        };
        if needed {
            end.unused_since_ms = None;
            return;
        }
        if end
            .unused_since_ms
            .is_some_and(|since| since + UNUSED_MS <= now_ms)
        {
            let after_ms = end.arrival_ms;
            self.close(node, peer, connection, true);
            self.tell_closed(node, peer, connection, after_ms, true);
        }
    }

    /// Cuts a peer off: its own state machine hears of it, this one's knows.
    pub(super) fn disconnect(&mut self, node: usize, peer: NodeId) {
        let Some(&peer) = self.index_of.get(&peer) else {
            return;
        };
        let removed = self
            .life_mut(node)
            .and_then(|life| life.peers.remove(&peer));
        if let Some(end) = removed {
            self.tell_closed(node, peer, end.connection, end.arrival_ms, false);
        }
    }

    /// Notes whether anything still comes from `peer` to `node`, and if not, when that will count.
    pub(super) fn look_for_silence(&mut self, node: usize, peer: usize) {
        let now_ms = self.now_ms();
        let Some(end) = self.peer(node, peer) else {
            return;
        };
        let connection = end.connection;
        let hears = self.is_connected(peer, node, connection)
            && self.answers(peer)
            && self.network.is_open(peer, node);
        let silent_since_ms = (!hears).then_some(end.silent_since_ms.unwrap_or(now_ms));
        let begins = silent_since_ms == Some(now_ms) && end.silent_since_ms.is_none();
        if let Some(end) = self.peer_mut(node, peer) {
            end.silent_since_ms = silent_since_ms;
        }
        if begins {
            let check = Happening::IdleCheck {
                node,
                peer,
                connection,
            };
            self.agenda.push(now_ms + IDLE_MS, check);
        }
    }

    fn check_idle(&mut self, node: usize, peer: usize, connection: u64) {
        let now_ms = self.now_ms();
        let Some(end) = self.peer(node, peer).filter(|p| p.connection == connection) else {
            return;
        };
        if end
            .silent_since_ms
            .is_some_and(|since| since + IDLE_MS <= now_ms)
        {
            self.close(node, peer, connection, false);
        }
    }

    fn measure(&mut self, node: usize, peer: usize, connection: u64) {
        if !self.is_connected(node, peer, connection) || self.nodes[peer].kind == Kind::Client {
            return;
        }
        let there = self.network.quality(node, peer).delay_ms;
        let back = self.network.quality(peer, node).delay_ms;
        let us = u32::try_from((there + back) * 1_000).unwrap_or(u32::MAX);
        let node_id = self.nodes[peer].id;
        self.drive(node, Event::RoundTrip { node: node_id, us });
    }
}
