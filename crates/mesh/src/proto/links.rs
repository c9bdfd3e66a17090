//! Owns connections and neighbours: who is one, at whose wish, and what waits to be sent to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::choice::choose;
use super::link::Link;
use super::message::Message;
use super::state::{Mode, State};
use super::table::{Standing, Subject};
use super::{
    BOOTSTRAP_MS, BOOTSTRAP_MS_MAX, BRIDGE_MS, CHOOSE_MS, CHOOSE_MS_MIN, LINKS_MAX, LINKS_OPEN,
    REFUSED_MS, timing,
};
use crate::announcement::ModelRate;
use crate::{NodeId, Role};

/// Shortest time between two statements to one peer about being neighbours.
const LINK_REPEAT_MS: u64 = 2_000;

/// How long a new neighbour takes to tell what it knows: a few round trips.
const SETTLE_MS: u64 = 1_000;

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
    /// `net` was told that it may close it.
    pub(super) released: bool,
}

/// Chosen neighbours, and what they were chosen from.
type Chosen = ((u64, u64), Arc<BTreeSet<NodeId>>);

#[derive(Debug, Default)]
pub(super) struct Links {
    map: BTreeMap<NodeId, Link>,
    /// Not to be chosen until then.
    refused: BTreeMap<NodeId, u64>,
    refused_changes: u64,
    /// The last choice, and what it was made of.
    chosen: Option<Chosen>,
    choose_at_ms: u64,
    chosen_at_ms: Option<u64>,
    bootstrap_at_ms: u64,
    /// Until the next but one time.
    bootstrap_pause_ms: u64,
    pub(super) compare_at_ms: u64,
    /// No link leaves the tree before.
    pub(super) prune_at_ms: u64,
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
            released: false,
        }
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
        self.refused_changes += 1;
        self.choose_soon(now_ms);
    }

    /// Looks the choice of neighbours over at `at_ms`, or as soon after as is decent.
    pub(super) fn choose_soon(&mut self, at_ms: u64) {
        let decent_ms = self.chosen_at_ms.map_or(0, |at| at + CHOOSE_MS_MIN);
        self.choose_at_ms = self.choose_at_ms.min(at_ms.max(decent_ms));
    }

    pub(super) fn choose_at_ms(&self) -> u64 {
        self.choose_at_ms
    }

    /// Whether a neighbour has had the time to tell what it knows.
    pub(super) fn are_settled(&self, now_ms: u64) -> bool {
        let settled = |link: &Link| link.confirmed && link.since_ms + SETTLE_MS <= now_ms;
        self.map.values().any(settled)
    }

    /// When something is due on any link.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.map.values().filter_map(Link::due_ms).min()
    }

    /// The most news and the most hashes that wait for one link.
    pub(super) fn queue_lengths(&self) -> (usize, usize) {
        let lengths = self.map.values().map(Link::queue_lengths);
        lengths.fold((0, 0), |most, one| (most.0.max(one.0), most.1.max(one.1)))
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
    /// this node wants one, or has not heard of it: then their tables are of two meshes that should
    /// be one.
    pub(super) fn greet(&mut self, node: NodeId) {
        let record = self.table.get(node);
        let gone = record.is_some_and(|r| !r.is_alive());
        if gone && let Some(item) = self.table.item(Subject::Node(node), self.now_ms()) {
            let items = vec![item];
            self.send(node, Message::News { items });
        }
        let stranger = self.table.alive(node).is_none() && self.links.len() < LINKS_OPEN;
        let alone = self.links.len() == 0;
        let sought = self.seeker.seeks(node);
        if alone || stranger || sought || self.chosen_links().contains(&node) {
            self.link_to(node);
        }
    }

    fn link_to(&mut self, node: NodeId) {
        let now_ms = self.now_ms();
        if self.links.len() >= LINKS_MAX && !self.links.contains(node) {
            return;
        }
        let link = self.links.map.entry(node);
        link.or_insert_with(|| Link::new(true, now_ms)).mine = true;
        self.mark_changed();
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
        if !known && self.links.len() >= LINKS_OPEN {
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

    /// The connection is released with the next tick, unless it is needed otherwise.
    fn unlink(&mut self, node: NodeId) {
        self.links.remove(node);
        self.mark_changed();
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

    /// Whom this node wants as neighbours now. Looked for anew when somebody has come, gone or refused.
    fn chosen_links(&mut self) -> Arc<BTreeSet<NodeId>> {
        let (me, now_ms) = (self.config.me, self.now_ms());
        let of = (self.table.alive_changes(), self.links.refused_changes);
        if let Some((chosen_of, chosen)) = &self.links.chosen
            && *chosen_of == of
        {
            return chosen.clone();
        }
        let refused = |node: &NodeId| self.links.refused.get(node).is_some_and(|at| *at > now_ms);
        let alive = self.table.members().filter(|(_, r)| r.is_alive());
        let candidates = alive.map(|(n, _)| n).filter(|n| *n != me && !refused(n));
        let chosen = Arc::new(choose(me, candidates));
        self.links.chosen = Some((of, chosen.clone()));
        chosen
    }

    /// Looks the choice of neighbours over.
    pub(super) fn choose_links(&mut self) {
        let now_ms = self.now_ms();
        if self.links.choose_at_ms > now_ms {
            return;
        }
        self.links.choose_at_ms = now_ms + CHOOSE_MS;
        self.links.chosen_at_ms = Some(now_ms);
        let refused = self.links.refused.len();
        self.links.refused.retain(|_, until| *until > now_ms);
        self.links.refused_changes += u64::from(self.links.refused.len() != refused);
        let chosen = self.chosen_links();
        for &node in chosen.iter() {
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

    fn end_unchosen(&mut self, chosen: &BTreeSet<NodeId>) {
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
        if self.links.len() > 0 {
            self.links.bootstrap_pause_ms = 0;
            return;
        }
        if self.links.bootstrap_at_ms > now_ms {
            return;
        }
        let pause_ms = self.links.bootstrap_pause_ms.max(BOOTSTRAP_MS);
        self.links.bootstrap_at_ms = now_ms + pause_ms;
        self.links.bootstrap_pause_ms = (pause_ms * 2).min(BOOTSTRAP_MS_MAX);
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

    /// Puts news on every link but the one it came from: urgent news in full along the tree; all else
    /// as hashes, so that everybody gets it once and when it asks.
    pub(super) fn spread(
        &mut self,
        subject: Subject,
        hash: u64,
        urgent: bool,
        except: Option<NodeId>,
    ) {
        debug_assert!(self.mode != Mode::Off);
        let now_ms = self.now_ms();
        let offer_ms = now_ms + timing::offer_ms(self.table.alive_len());
        for (node, link) in self.links.iter_mut() {
            if Some(node) == except {
                continue;
            }
            match (urgent, link.eager) {
                (true, true) => link.push(subject, true, now_ms),
                (true, false) => link.have(hash, now_ms),
                (false, _) => link.offer(hash, offer_ms),
            }
        }
    }
}
