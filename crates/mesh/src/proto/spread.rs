//! Owns the way of news through the mesh: in full along the eager links, which make up a tree;
//! as hashes along the others, which repair it.

use super::event::Offence;
use super::message::{Fact, Item, Message};
use super::missing::Lacking;
use super::state::{Mode, State};
use super::table::{Judgement, Subject};
use super::{DUPLICATES_MAX, INCARNATION_AHEAD_MS, ITEMS_BYTES_SOFT, PRUNE_MS, WANT_LEN_MAX};
use crate::announcement::Signed;
use crate::{NodeId, Role};
use std::sync::Arc;

/// What an item takes on the wire besides its bytes, at most.
const ITEM_OVERHEAD_BYTES: usize = 64;

/// Time until the rest of a queue follows a full message: 800 kB/s on one link.
const REST_MS: u64 = 50;

impl State {
    pub(super) fn on_news(&mut self, from: NodeId, items: Vec<Item>) {
        for item in items {
            if !self.peers.contains_key(&from) {
                // It was cut off for what came before.
                return;
            }
            self.take_item(from, item);
        }
    }

    /// Takes news from a peer, passes on what is new, and answers what is outdated.
    pub(super) fn take_item(&mut self, from: NodeId, item: Item) {
        let hash = item.fact.hash();
        let (subject, judgement) = match item.fact {
            Fact::Announced(signed) => {
                let subject = Subject::Node(signed.announcement().node);
                let judgement = self.take_announcement(from, signed, item.age_ms, item.urgent);
                (subject, judgement)
            }
            Fact::Died { node, incarnation } => {
                let judgement = self.take_death(Some(from), node, incarnation, item.age_ms);
                (Subject::Node(node), judgement)
            }
            Fact::Suspected {
                node,
                incarnation,
                sequence,
            } => {
                let judgement = self.take_suspicion(from, node, incarnation, sequence);
                (Subject::Suspicion(node), judgement)
            }
            Fact::Revoked(blob) => {
                self.take_revocation(blob, Some(from));
                return;
            }
        };
        self.missing.found(hash);
        self.after_judgement(from, subject, hash, item.urgent, judgement);
    }

    fn after_judgement(
        &mut self,
        from: NodeId,
        subject: Subject,
        hash: u64,
        urgent: bool,
        judgement: Judgement,
    ) {
        let now_ms = self.now_ms();
        let may_prune = urgent && self.links.prune_at_ms <= now_ms;
        let eager_links = self.links.iter().filter(|(_, link)| link.eager).count();
        let Some(link) = self.links.get_mut(from) else {
            return;
        };
        match judgement {
            Judgement::New => link.duplicates = 0,
            Judgement::Known => {
                link.spare(subject, hash);
                link.duplicates += u32::from(urgent);
                if may_prune && link.eager && link.duplicates >= DUPLICATES_MAX && eager_links > 1 {
                    link.eager = false;
                    link.duplicates = 0;
                    self.links.prune_at_ms = now_ms + PRUNE_MS;
                    self.send(from, Message::Prune);
                }
            }
            Judgement::Stale => link.push(subject, false, now_ms),
            Judgement::Refused => {}
        }
    }

    fn take_announcement(
        &mut self,
        from: NodeId,
        signed: Arc<Signed>,
        age_ms: u64,
        urgent: bool,
    ) -> Judgement {
        let now_ms = self.now_ms();
        let node = signed.announcement().node;
        if node == self.config.me {
            return self.hear_of_self(from, &signed);
        }
        let judgement = self.table.judge(&signed, age_ms, now_ms);
        if judgement != Judgement::New {
            return judgement;
        }
        if !signed.is_genuine(self.config.mesh, self.authority.as_ref()) {
            self.disconnect(from, Offence::Forgery);
            return Judgement::Refused;
        }
        if self.authority.is_expelled(node) || signed.announcement().role != Role::Serve {
            return Judgement::Refused;
        }
        let leaving = signed.announcement().leaving;
        let was_alive = self.table.alive(node).map(|record| record.incarnation);
        let came = was_alive != Some(signed.announcement().incarnation) || leaving;
        let hash = signed.hash();
        let moved = self.table.announce(signed, age_ms, now_ms);
        self.detector.clear(node);
        self.seeker.forget(node);
        if leaving {
            self.departed(node);
        }
        if came {
            self.links.choose_soon(now_ms + super::FLUSH_MS);
        }
        self.mark_changed();
        self.pass_on(
            Subject::Node(node),
            hash,
            urgent || came || moved,
            Some(from),
        );
        Judgement::New
    }

    /// Takes a death from a peer, or (`from` is `None`) one that this node found out.
    pub(super) fn take_death(
        &mut self,
        from: Option<NodeId>,
        node: NodeId,
        incarnation: u64,
        age_ms: u64,
    ) -> Judgement {
        let now_ms = self.now_ms();
        if node == self.config.me {
            self.reincarnate(incarnation);
            return Judgement::New;
        }
        let judgement = self.table.judge_death(node, incarnation, age_ms);
        if judgement != Judgement::New {
            return judgement;
        }
        // Nobody may end lives that were never announced, except just ahead of the clock.
        let known = self
            .table
            .get(node)
            .is_some_and(|r| r.incarnation == incarnation);
        if !known && incarnation > self.unix_ms() + INCARNATION_AHEAD_MS {
            return Judgement::Refused;
        }
        let alive = self.table.alive(node).is_some();
        self.table.bury(node, incarnation, age_ms, now_ms);
        if alive {
            self.departed(node);
            self.seeker.add(node, now_ms);
            self.mark_changed();
        }
        let hash = crate::announcement::departure_hash(node, incarnation);
        self.pass_on(Subject::Node(node), hash, alive, from);
        // It may be connected without being a neighbour, and should object at once.
        if self.mode == Mode::Gossip && self.peers.contains_key(&node) {
            self.greet(node);
        }
        Judgement::New
    }

    /// What every departure brings with it, however it was learnt.
    pub(super) fn departed(&mut self, node: NodeId) {
        let now_ms = self.now_ms();
        self.detector.clear(node);
        self.links.choose_soon(now_ms);
    }

    pub(super) fn pass_on(
        &mut self,
        subject: Subject,
        hash: u64,
        urgent: bool,
        from: Option<NodeId>,
    ) {
        if self.mode == Mode::Gossip {
            self.spread(subject, hash, urgent, from);
        }
    }

    pub(super) fn on_have(&mut self, from: NodeId, hashes: &[u64], offered: bool) {
        if !self.expect_link(from) {
            return;
        }
        let now_ms = self.now_ms();
        let lacking = if offered {
            Lacking::Offered
        } else {
            Lacking::Strayed
        };
        for &hash in hashes {
            if !self.knows(hash) {
                self.missing.note(hash, from, lacking, now_ms);
            } else if let Some(subject) = self.table.subject(hash)
                && let Some(link) = self.links.get_mut(from)
            {
                link.spare(subject, hash);
            }
        }
    }

    pub(super) fn knows(&self, hash: u64) -> bool {
        self.table.knows(hash) || self.detector.suspicion(hash).is_some()
    }

    /// Asks for missing news whose time has come.
    pub(super) fn ask_for_missing(&mut self) {
        let now_ms = self.now_ms();
        let links = &self.links;
        let asks = self.missing.due(now_ms, |node| links.contains(node));
        for (node, ask) in asks {
            let (mut hashes, graft) = (ask.hashes, ask.graft);
            hashes.retain(|&hash| {
                let known = self.knows(hash);
                if known {
                    self.missing.found(hash);
                }
                !known
            });
            if hashes.is_empty() {
                continue;
            }
            if graft && let Some(link) = self.links.get_mut(node) {
                link.eager = true;
                link.duplicates = 0;
            }
            self.send(node, Message::Want { hashes, graft });
        }
    }

    pub(super) fn on_want(&mut self, from: NodeId, mut hashes: Vec<u64>, graft: bool) {
        if !self.expect_link(from) {
            return;
        }
        hashes.truncate(WANT_LEN_MAX);
        let now_ms = self.now_ms();
        let subjects: Vec<Subject> = (hashes.into_iter())
            .filter_map(|hash| {
                let suspicion = self.detector.suspicion(hash).map(Subject::Suspicion);
                self.table.subject(hash).or(suspicion)
            })
            .collect();
        if let Some(link) = self.links.get_mut(from) {
            if graft {
                link.eager = true;
                link.duplicates = 0;
            }
            for subject in subjects {
                link.answer(subject, now_ms);
            }
        }
    }

    pub(super) fn on_prune(&mut self, from: NodeId) {
        if let Some(link) = self.links.get_mut(from) {
            link.eager = false;
            link.duplicates = 0;
        }
    }

    /// Sends what is due on all links, one message of each kind per link.
    pub(super) fn flush_links(&mut self) {
        let now_ms = self.now_ms();
        if self.links.due_ms().is_none_or(|at| at > now_ms) {
            return;
        }
        for node in self.links.nodes().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(node) else {
                continue;
            };
            let hashes = [
                (link.take_offers(now_ms), true),
                (link.take_haves(now_ms), false),
            ];
            let pending = link.take_pending(now_ms);
            for (hashes, offered) in hashes {
                if !hashes.is_empty() {
                    self.send(node, Message::Have { hashes, offered });
                }
            }
            let (items, sent) = self.bundle(&pending);
            if let Some(link) = self.links.get_mut(node)
                && sent < pending.len()
            {
                link.postpone(&pending[sent..], now_ms + REST_MS);
            }
            if !items.is_empty() {
                self.send(node, Message::News { items });
            }
        }
    }

    /// The first items of `pending` that fit into one message, and how many subjects they cover.
    fn bundle(&self, pending: &[(Subject, bool)]) -> (Vec<Item>, usize) {
        let mut items = Vec::with_capacity(pending.len().min(64));
        let mut bytes = 0;
        for (index, (subject, urgent)) in pending.iter().enumerate() {
            if bytes >= ITEMS_BYTES_SOFT {
                return (items, index);
            }
            let item = match subject {
                Subject::Suspicion(node) => self.detector.item(*node),
                _ => self.table.item(*subject, self.now_ms()),
            };
            if let Some(mut item) = item {
                item.urgent = *urgent;
                bytes += item_bytes(&item);
                items.push(item);
            }
        }
        (items, pending.len())
    }
}

/// An upper bound of what an item takes on the wire.
pub(super) fn item_bytes(item: &Item) -> usize {
    ITEM_OVERHEAD_BYTES
        + match &item.fact {
            Fact::Announced(signed) => signed.bytes().len(),
            Fact::Revoked(blob) => blob.len(),
            Fact::Died { .. } | Fact::Suspected { .. } => 0,
        }
}
