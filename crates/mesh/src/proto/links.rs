//! Owns connections and neighbours: who is one, at whose wish, and what waits to be sent to it.

use std::collections::BTreeMap;

use super::choice::choose;
use super::event::Effect;
use super::message::Message;
use super::state::{Mode, State};
use super::table::{Standing, Subject};
use super::{
    BOOTSTRAP_MS, BRIDGE_MS, CHOOSE_MS, FLUSH_MS, HASHES_MAX, HAVE_MS, HAVE_URGENT_MS, LINKS_MAX,
    PENDING_MAX, REFUSED_MS,
};
use crate::announcement::ModelRate;
use crate::{NodeId, Role};

/// Shortest time between two statements to one peer about being neighbours.
const LINK_REPEAT_MS: u64 = 2_000;

/// Most nodes that are remembered as not to be chosen.
const REFUSED_MAX: usize = 256;

/// An open connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) role: Role,
    /// When something last came from it.
    pub(super) heard_at_ms: u64,
    /// The question under way: its number, when it was asked, how many went unanswered.
    pub(super) ping: Option<(u64, u64, u8)>,
    pub(super) round_trip_us: Option<u32>,
    /// When something was last said to it about being neighbours.
    link_said_at_ms: Option<u64>,
    /// Last pull, its demand, and pulls that it may make at once.
    pub(super) pulled_at_ms: Option<u64>,
    pub(super) rates: Vec<ModelRate>,
    pub(super) pulls_allowed: u32,
}

/// A neighbour.
#[derive(Debug)]
pub(super) struct Link {
    /// This node chose the other.
    mine: bool,
    /// The other chose this one.
    theirs: bool,
    /// The other has said something about it.
    confirmed: bool,
    since_ms: u64,
    /// News goes in full; otherwise its hash.
    pub(super) eager: bool,
    /// Duplicates in a row.
    pub(super) duplicates: u32,
    /// News to send, with its urgency.
    pending: Vec<(Subject, bool)>,
    haves: Vec<u64>,
    flush_at_ms: Option<u64>,
    have_at_ms: Option<u64>,
    /// News was dropped: the tables must be compared.
    pub(super) overflowed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Links {
    map: BTreeMap<NodeId, Link>,
    /// Not to be chosen until then.
    refused: BTreeMap<NodeId, u64>,
    choose_at_ms: u64,
    bootstrap_at_ms: u64,
    pub(super) compare_at_ms: u64,
}

impl Peer {
    pub(super) fn new(role: Role, now_ms: u64) -> Self {
        Self {
            role,
            heard_at_ms: now_ms,
            ping: None,
            round_trip_us: None,
            link_said_at_ms: None,
            pulled_at_ms: None,
            rates: Vec::new(),
            pulls_allowed: 0,
        }
    }
}

impl Link {
    fn new(mine: bool, now_ms: u64) -> Self {
        Self {
            mine,
            theirs: false,
            confirmed: false,
            since_ms: now_ms,
            eager: true,
            duplicates: 0,
            pending: Vec::new(),
            haves: Vec::new(),
            flush_at_ms: None,
            have_at_ms: None,
            overflowed: false,
        }
    }

    /// Queues news in full.
    pub(super) fn push(&mut self, subject: Subject, urgent: bool, now_ms: u64) {
        if self.pending.len() >= PENDING_MAX {
            self.pending.clear();
            self.overflowed = true;
        }
        self.pending.push((subject, urgent));
        let at = if urgent { now_ms } else { now_ms + FLUSH_MS };
        self.flush_at_ms = Some(self.flush_at_ms.map_or(at, |old| old.min(at)));
    }

    /// Queues the hash of news.
    pub(super) fn push_hash(&mut self, hash: u64, urgent: bool, now_ms: u64) {
        if self.haves.len() >= HASHES_MAX {
            self.haves.clear();
            self.overflowed = true;
        }
        self.haves.push(hash);
        let at = now_ms + if urgent { HAVE_URGENT_MS } else { HAVE_MS };
        self.have_at_ms = Some(self.have_at_ms.map_or(at, |old| old.min(at)));
    }

    /// The other has this: it need not be sent.
    pub(super) fn spare(&mut self, subject: Subject, hash: u64) {
        if !self.pending.is_empty() {
            self.pending.retain(|(queued, _)| *queued != subject);
        }
        if !self.haves.is_empty() {
            self.haves.retain(|queued| *queued != hash);
        }
    }

    /// The news that is due, each subject once, in order.
    pub(super) fn take_pending(&mut self, now_ms: u64) -> Vec<(Subject, bool)> {
        if self.flush_at_ms.is_none_or(|at| at > now_ms) {
            return Vec::new();
        }
        self.flush_at_ms = None;
        let mut pending = std::mem::take(&mut self.pending);
        // Urgent before routine, then only the first of each subject.
        pending.sort_by_key(|(subject, urgent)| (*subject, !*urgent));
        pending.dedup_by_key(|(subject, _)| *subject);
        pending.sort_by_key(|(_, urgent)| !*urgent);
        pending
    }

    /// Gives back what did not fit.
    pub(super) fn postpone(&mut self, rest: &[(Subject, bool)], at_ms: u64) {
        self.pending.extend_from_slice(rest);
        self.flush_at_ms = Some(at_ms);
    }

    pub(super) fn take_haves(&mut self, now_ms: u64) -> Vec<u64> {
        if self.have_at_ms.is_none_or(|at| at > now_ms) {
            return Vec::new();
        }
        self.have_at_ms = None;
        std::mem::take(&mut self.haves)
    }
}

impl Links {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Link> {
        self.map.get_mut(&node)
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.map.contains_key(&node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.map.keys().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Link)> {
        self.map.iter().map(|(node, link)| (*node, link))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Link)> {
        self.map.iter_mut().map(|(node, link)| (*node, link))
    }

    /// Ends being neighbours. Where the news travelled along this link, another one takes over at once.
    pub(super) fn remove(&mut self, node: NodeId) -> bool {
        let Some(link) = self.map.remove(&node) else {
            return false;
        };
        if link.eager {
            self.map.values_mut().for_each(|other| other.eager = true);
        }
        true
    }

    /// Does not choose `node` for a while.
    pub(super) fn refuse(&mut self, node: NodeId, now_ms: u64) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_first();
        }
        self.refused.insert(node, now_ms + REFUSED_MS);
        self.choose_soon(now_ms);
    }

    pub(super) fn choose_soon(&mut self, now_ms: u64) {
        self.choose_at_ms = self.choose_at_ms.min(now_ms);
    }

    pub(super) fn flush_at_ms(&self) -> Option<u64> {
        let times = self
            .map
            .values()
            .flat_map(|l| [l.flush_at_ms, l.have_at_ms]);
        times.flatten().min()
    }

    pub(super) fn queue_lengths(&self) -> (usize, usize) {
        let pending = self.map.values().map(|link| link.pending.len()).max();
        let haves = self.map.values().map(|link| link.haves.len()).max();
        (pending.unwrap_or(0), haves.unwrap_or(0))
    }

    /// This node slept: the silence was its own.
    pub(super) fn forgive(&mut self, asleep_ms: u64, peers: &mut BTreeMap<NodeId, Peer>) {
        for peer in peers.values_mut() {
            peer.heard_at_ms += asleep_ms;
            peer.ping = None;
        }
    }
}

impl State {
    /// A serving member is connected: tells it of its own death, and makes it a neighbour where
    /// this node wants one.
    pub(super) fn greet(&mut self, node: NodeId) {
        let gone = self.table.get(node).is_some_and(|r| !r.is_alive());
        if gone && let Some(item) = self.table.item(Subject::Node(node), self.now_ms()) {
            let items = vec![item];
            self.send(node, Message::News { items });
        }
        let alone = self.links.len() == 0;
        if alone || self.seeker.seeks(node) || self.chosen_links().contains(&node) {
            self.link_to(node);
        }
    }

    fn link_to(&mut self, node: NodeId) {
        let now_ms = self.now_ms();
        let link = self.links.map.entry(node);
        link.or_insert_with(|| Link::new(true, now_ms)).mine = true;
        self.say_link(node, true);
        self.push_self(node);
    }

    /// The neighbour learns this node's own last word even if no table is compared.
    fn push_self(&mut self, node: NodeId) {
        let (me, now_ms) = (Subject::Node(self.config.me), self.now_ms());
        if let Some(link) = self.links.get_mut(node) {
            link.push(me, true, now_ms);
        }
    }

    fn say_link(&mut self, node: NodeId, wanted: bool) {
        let now_ms = self.now_ms();
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.link_said_at_ms = Some(now_ms);
            let root = self.table.root();
            self.send(node, Message::Link { wanted, root });
        }
    }

    /// Whether something was said lately, so that two nodes never answer each other for ever.
    fn said_link_lately(&self, node: NodeId) -> bool {
        let said = self.peers.get(&node).and_then(|peer| peer.link_said_at_ms);
        said.is_some_and(|at| at + LINK_REPEAT_MS > self.now_ms())
    }

    pub(super) fn on_link(&mut self, from: NodeId, wanted: bool, root: u64) {
        let now_ms = self.now_ms();
        if !wanted {
            self.on_unlink(from);
            return;
        }
        let known = self.links.contains(from);
        if !known && self.links.len() >= LINKS_MAX {
            self.send(from, Message::Refuse);
            return;
        }
        let link = self.links.map.entry(from);
        let link = link.or_insert_with(|| Link::new(false, now_ms));
        (link.theirs, link.confirmed) = (true, true);
        let mine = link.mine;
        if !self.said_link_lately(from) {
            self.say_link(from, mine);
        }
        if !known {
            self.mark_changed();
            self.push_self(from);
            if root != self.table.root() {
                self.send_parts(from);
            }
        }
    }

    fn on_unlink(&mut self, from: NodeId) {
        let Some(link) = self.links.get_mut(from) else {
            return;
        };
        (link.theirs, link.confirmed) = (false, true);
        if !link.mine {
            self.unlink(from);
        } else if !self.said_link_lately(from) {
            self.say_link(from, true);
        }
    }

    fn unlink(&mut self, node: NodeId) {
        self.links.remove(node);
        self.mark_changed();
        self.effect(Effect::Release { node });
    }

    pub(super) fn on_refuse(&mut self, from: NodeId) {
        let now_ms = self.now_ms();
        self.links.refuse(from, now_ms);
        if self.links.contains(from) {
            self.unlink(from);
        }
        if self.table.alive_len() <= 1 {
            self.pull_once(from);
        }
    }

    /// Something for neighbours came from one who is none here: it missed the end.
    pub(super) fn expect_link(&mut self, from: NodeId) -> bool {
        let linked = self.links.contains(from);
        if !linked && !self.said_link_lately(from) {
            self.say_link(from, false);
        }
        linked
    }

    fn chosen_links(&self) -> std::collections::BTreeSet<NodeId> {
        let (me, now_ms) = (self.config.me, self.now_ms());
        let refused = |node: &NodeId| self.links.refused.get(node).is_some_and(|at| *at > now_ms);
        let alive = self.table.members().filter(|(_, r)| r.is_alive());
        choose(
            me,
            alive.map(|(n, _)| n).filter(|n| *n != me && !refused(n)),
        )
    }

    /// Looks the choice of neighbours over.
    pub(super) fn choose_links(&mut self) {
        let now_ms = self.now_ms();
        if self.links.choose_at_ms > now_ms {
            return;
        }
        self.links.choose_at_ms = now_ms + CHOOSE_MS;
        self.links.refused.retain(|_, until| *until > now_ms);
        let chosen = self.chosen_links();
        for &node in &chosen {
            let link = self.links.map.get(&node).map(|l| (l.mine, l.confirmed));
            if !self.peers.contains_key(&node) {
                self.dial(node);
            } else if link != Some((true, true)) {
                self.link_to(node);
            }
        }
        self.end_unchosen(&chosen);
        self.dial_bootstrap();
    }

    fn end_unchosen(&mut self, chosen: &std::collections::BTreeSet<NodeId>) {
        let now_ms = self.now_ms();
        let steady = chosen
            .iter()
            .filter(|n| self.links.map.get(n).is_some_and(|l| l.confirmed));
        if steady.count() == 0 {
            return;
        }
        let mut ended = Vec::new();
        for (node, link) in self.links.iter_mut() {
            if link.mine && !chosen.contains(&node) && link.since_ms + BRIDGE_MS <= now_ms {
                link.mine = false;
                ended.push((node, link.theirs));
            }
        }
        for (node, theirs) in ended {
            self.say_link(node, false);
            if !theirs {
                self.unlink(node);
            }
        }
    }

    fn dial_bootstrap(&mut self) {
        let now_ms = self.now_ms();
        if self.links.len() > 0 || self.links.bootstrap_at_ms > now_ms {
            return;
        }
        self.links.bootstrap_at_ms = now_ms + BOOTSTRAP_MS;
        for node in self.bootstrap.clone() {
            if self.peers.get(&node).is_some_and(|p| p.role == Role::Serve) {
                self.link_to(node);
            } else if self
                .table
                .get(node)
                .is_none_or(|r| r.standing != Standing::Left)
            {
                self.dial(node);
            }
        }
    }

    /// Ends all neighbourhoods: this node stops announcing.
    pub(super) fn unlink_all(&mut self) {
        for node in self.links.nodes().collect::<Vec<_>>() {
            self.say_link(node, false);
            self.unlink(node);
        }
    }

    /// Puts news on every link but the one it came from.
    pub(super) fn spread(
        &mut self,
        subject: Subject,
        hash: u64,
        urgent: bool,
        except: Option<NodeId>,
    ) {
        debug_assert!(self.mode != Mode::Off);
        let now_ms = self.now_ms();
        for (node, link) in self.links.iter_mut() {
            if Some(node) == except {
                continue;
            }
            if link.eager {
                link.push(subject, urgent, now_ms);
            } else {
                link.push_hash(hash, urgent, now_ms);
            }
        }
    }
}
