//! Owns the search for the dead: pings of neighbours, checks of silent ones through others, and
//! suspicions that the accused may object to.
//!
//! The first strike makes a node suspect and nothing else: its news is taken as before, and any
//! word of it, by whatever way, ends the check.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom as _;

use super::message::{Fact, Item, Message};
use super::state::{Mode, State};
use super::table::{Judgement, Subject};
use super::{
    CHECK_REPEAT_MS, CHECKS_MAX, DEAD_AFTER_MS, HELPERS, ISOLATED_MS, PING_AFTER_MS, PING_MS_MAX,
    PINGS_MAX, PROBE_MS_MAX, PROBES_MAX, SUSPECT_AFTER_MS, SUSPICION_MS, SUSPICIONS_MAX,
};
use crate::{NodeId, Role};

/// This node has made the first strike against a silent one.
#[derive(Debug)]
struct Check {
    incarnation: u64,
    started_at_ms: u64,
    repeat_at_ms: u64,
    suspected: bool,
}

/// Somebody in the mesh accuses a node.
#[derive(Debug)]
struct Suspicion {
    incarnation: u64,
    sequence: u64,
    until_ms: u64,
    hash: u64,
}

#[derive(Debug, Default)]
pub(super) struct Detector {
    checks: BTreeMap<NodeId, Check>,
    suspicions: BTreeMap<NodeId, Suspicion>,
    /// Whom this node shall reach, for whom, and until when.
    probes: BTreeMap<(NodeId, NodeId), u64>,
    /// When anything last came from a serving member.
    heard_at_ms: u64,
}

impl Detector {
    pub(super) fn checks_len(&self) -> usize {
        self.checks.len()
    }

    pub(super) fn suspicions_len(&self) -> usize {
        self.suspicions.len()
    }

    pub(super) fn probes_len(&self) -> usize {
        self.probes.len()
    }

    pub(super) fn suspects(&self, node: NodeId) -> bool {
        self.checks.contains_key(&node) || self.suspicions.contains_key(&node)
    }

    /// There is a later word of it.
    pub(super) fn clear(&mut self, node: NodeId) {
        self.checks.remove(&node);
        self.suspicions.remove(&node);
    }

    /// The accused of the suspicion with this hash.
    pub(super) fn suspicion(&self, hash: u64) -> Option<NodeId> {
        let mut found = self.suspicions.iter().filter(|(_, s)| s.hash == hash);
        found.next().map(|(node, _)| *node)
    }

    pub(super) fn item(&self, node: NodeId) -> Option<Item> {
        let suspicion = self.suspicions.get(&node)?;
        Some(Item {
            fact: Fact::Suspected {
                node,
                incarnation: suspicion.incarnation,
                sequence: suspicion.sequence,
            },
            age_ms: 0,
            urgent: true,
        })
    }

    /// This node slept: what it did not hear meanwhile proves nothing.
    pub(super) fn forgive(&mut self, asleep_ms: u64) {
        for check in self.checks.values_mut() {
            check.started_at_ms += asleep_ms;
        }
        self.heard_at_ms += asleep_ms;
    }

    /// The isolation is over: what was not heard during it proves nothing.
    fn begin_anew(&mut self, now_ms: u64) {
        for check in self.checks.values_mut() {
            (check.started_at_ms, check.suspected) = (now_ms, false);
        }
    }

    pub(super) fn forget(&mut self, now_ms: u64) {
        self.suspicions.retain(|_, s| s.until_ms > now_ms);
        self.probes.retain(|_, until| *until > now_ms);
    }
}

impl State {
    /// Something came from this peer.
    pub(super) fn heard(&mut self, node: NodeId) {
        let now_ms = self.now_ms();
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.heard_at_ms = now_ms;
        if peer.role == Role::Serve {
            if self.is_isolated() {
                self.detector.begin_anew(now_ms);
            }
            self.detector.heard_at_ms = now_ms;
        }
        if self.detector.checks.remove(&node).is_some() {
            self.mark_changed();
        }
        let who = (node, NodeId::from_bytes([0; 32]));
        let asked: Vec<NodeId> = (self.detector.probes.range(who..))
            .take_while(|((target, _), _)| *target == node)
            .map(|((_, asker), _)| *asker)
            .collect();
        for asker in asked {
            self.detector.probes.remove(&(node, asker));
            if self.peers.contains_key(&asker) {
                self.send(asker, Message::Reached { target: node });
            }
        }
    }

    pub(super) fn on_ping(&mut self, from: NodeId, nonce: u64, round_trip_us: Option<u32>) {
        if let (Some(peer), Some(us)) = (self.peers.get_mut(&from), round_trip_us) {
            peer.round_trip_us.get_or_insert(us);
        }
        self.send(from, Message::Pong { nonce });
    }

    pub(super) fn on_pong(&mut self, from: NodeId, nonce: u64) {
        let now_ms = self.now_ms();
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if let Some((asked, at_ms, _)) = peer.ping
            && asked == nonce
        {
            let us = (now_ms - at_ms).saturating_mul(1000);
            peer.round_trip_us = Some(u32::try_from(us).unwrap_or(u32::MAX));
            peer.ping = None;
        }
    }

    /// Asks silent neighbours whether they live; two unanswered questions are the first strike.
    pub(super) fn ping_silent(&mut self) {
        let now_ms = self.now_ms();
        let mut silent = Vec::new();
        let mut ask = Vec::new();
        for node in self.links.nodes() {
            let Some(peer) = self.peers.get_mut(&node) else {
                continue;
            };
            match peer.ping {
                // Its answer is lost, but it spoke since.
                Some((_, at_ms, _)) if peer.heard_at_ms > at_ms + PING_MS_MAX => peer.ping = None,
                Some((_, at_ms, tries)) if at_ms + PING_MS_MAX <= now_ms => {
                    if tries >= PINGS_MAX {
                        silent.push(node);
                    }
                    ask.push((node, tries.saturating_add(1).min(PINGS_MAX)));
                }
                None if peer.heard_at_ms + PING_AFTER_MS <= now_ms => ask.push((node, 1)),
                _ => {}
            }
        }
        for (node, tries) in ask {
            self.ping(node, tries);
        }
        for node in silent {
            self.start_check(node);
        }
    }

    fn ping(&mut self, node: NodeId, tries: u8) {
        let now_ms = self.now_ms();
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        // The time makes questions differ; an answer to an old one measures nothing.
        peer.ping = Some((now_ms, now_ms, tries));
        let round_trip_us = peer.round_trip_us;
        let ping = Message::Ping {
            nonce: now_ms,
            round_trip_us,
        };
        self.send(node, ping);
    }

    /// The first strike: looks for a silent member at once, by a new dial and through others.
    pub(super) fn start_check(&mut self, node: NodeId) {
        let now_ms = self.now_ms();
        let Some(record) = self.table.alive(node) else {
            return;
        };
        let full = self.detector.checks.len() >= CHECKS_MAX;
        if node == self.config.me || full || self.detector.checks.contains_key(&node) {
            return;
        }
        let check = Check {
            incarnation: record.incarnation,
            started_at_ms: now_ms,
            repeat_at_ms: now_ms,
            suspected: false,
        };
        self.detector.checks.insert(node, check);
        self.mark_changed();
        self.run_checks();
    }

    pub(super) fn run_checks(&mut self) {
        let now_ms = self.now_ms();
        let isolated = self.is_isolated();
        let dead_after_ms = if isolated {
            DEAD_AFTER_MS + ISOLATED_MS
        } else {
            DEAD_AFTER_MS
        };
        let (mut look, mut accuse, mut bury) = (Vec::new(), Vec::new(), Vec::new());
        for (&node, check) in &mut self.detector.checks {
            let since_ms = now_ms.saturating_sub(check.started_at_ms);
            if since_ms >= dead_after_ms {
                bury.push((node, check.incarnation));
            } else if check.repeat_at_ms <= now_ms {
                check.repeat_at_ms = now_ms + CHECK_REPEAT_MS;
                look.push(node);
            }
            if since_ms >= SUSPECT_AFTER_MS && !check.suspected {
                check.suspected = true;
                accuse.push(node);
            }
        }
        for node in look {
            self.look_for(node);
        }
        for node in accuse {
            self.accuse(node);
        }
        for (node, incarnation) in bury {
            self.detector.checks.remove(&node);
            if isolated {
                // More likely this node is the one that is cut off. When it is back, its neighbours
                // shall not have to object to what it thought.
                self.lose_sight(node);
            } else {
                self.take_death(None, node, incarnation, 0);
            }
        }
    }

    /// Everybody is silent, although this node knows several: it is probably the one cut off.
    fn is_isolated(&self) -> bool {
        let silent = self.detector.heard_at_ms + PING_AFTER_MS + PING_MS_MAX < self.now_ms();
        silent && self.table.alive_len() > 2
    }

    fn look_for(&mut self, node: NodeId) {
        if self.peers.contains_key(&node) {
            self.ping(node, PINGS_MAX);
        } else {
            self.dial(node);
        }
        let others: Vec<NodeId> = self.links.nodes().filter(|n| *n != node).collect();
        let helpers: Vec<NodeId> = others.sample(&mut self.rng, HELPERS).copied().collect();
        for helper in helpers {
            self.send(helper, Message::Probe { target: node });
        }
    }

    /// Names a silent node to the mesh, so that it objects if this reaches it by any way.
    fn accuse(&mut self, node: NodeId) {
        let Some(record) = self.table.alive(node) else {
            return;
        };
        let (incarnation, sequence) = (record.incarnation, record.sequence);
        self.suspect(node, incarnation, sequence, None);
    }

    pub(super) fn take_suspicion(
        &mut self,
        from: NodeId,
        node: NodeId,
        incarnation: u64,
        sequence: u64,
    ) -> Judgement {
        if node == self.config.me {
            self.object(incarnation, sequence);
            return Judgement::New;
        }
        let Some(record) = self.table.get(node) else {
            return Judgement::Refused;
        };
        let known = (record.incarnation, !record.is_alive(), record.sequence);
        if known > (incarnation, false, sequence) {
            // There is a later word of it: tell the accuser.
            let now_ms = self.now_ms();
            if let Some(link) = self.links.get_mut(from) {
                link.push(Subject::Node(node), true, now_ms);
            }
            return Judgement::Refused;
        }
        if self.mode != Mode::Gossip || known.0 != incarnation {
            return Judgement::Refused;
        }
        let before = self.detector.suspicions.get(&node);
        if before.is_some_and(|s| (s.incarnation, s.sequence) >= (incarnation, sequence)) {
            return Judgement::Known;
        }
        self.suspect(node, incarnation, sequence, Some(from));
        Judgement::New
    }

    fn suspect(&mut self, node: NodeId, incarnation: u64, sequence: u64, from: Option<NodeId>) {
        if self.detector.suspicions.len() >= SUSPICIONS_MAX {
            return;
        }
        let fact = Fact::Suspected {
            node,
            incarnation,
            sequence,
        };
        let suspicion = Suspicion {
            incarnation,
            sequence,
            until_ms: self.now_ms() + SUSPICION_MS,
            hash: fact.hash(),
        };
        self.detector.suspicions.insert(node, suspicion);
        self.mark_changed();
        self.pass_on(Subject::Suspicion(node), fact.hash(), true, from);
        // The accused may be connected here without being a neighbour, or along a quiet link.
        if self.peers.contains_key(&node)
            && let Some(item) = self.detector.item(node)
        {
            let items = vec![item];
            self.send(node, Message::News { items });
        }
    }

    pub(super) fn on_probe(&mut self, from: NodeId, target: NodeId) {
        let until_ms = self.now_ms() + PROBE_MS_MAX;
        if target == self.config.me || self.detector.probes.len() >= PROBES_MAX {
            return;
        }
        if self.table.alive(target).is_none() {
            return;
        }
        self.detector.probes.insert((target, from), until_ms);
        if self.peers.contains_key(&target) {
            self.ping(target, 1);
        } else {
            self.dial(target);
        }
    }

    /// Another member reached the silent one: it lives, and only the way to it is broken.
    pub(super) fn on_reached(&mut self, target: NodeId) {
        let now_ms = self.now_ms();
        if self.detector.checks.remove(&target).is_some() {
            self.links.refuse(target, now_ms);
            self.mark_changed();
        }
    }
}
