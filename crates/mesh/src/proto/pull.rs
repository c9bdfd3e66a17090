//! Owns the table pulls of a node that announces nothing: from whom, when, and what the pages
//! make of its table.

use std::collections::BTreeSet;

use rand::RngExt as _;

use super::message::{Message, Page, TableVersion};
use super::state::{Mode, State};
use super::table::Standing;
use super::{
    BOOTSTRAP_MS, MEMBERS_MAX, PULL_AGAIN_MS_MIN, PULL_ANSWER_MS_MAX, PULL_MS_MAX, PULL_MS_MIN,
    PULL_SERVERS,
};
use crate::{NodeId, Role};

#[derive(Debug, Default)]
pub(super) struct Puller {
    /// Who was asked last, and when, while the answer is out.
    asked: Option<(NodeId, u64)>,
    /// Whom to ask first.
    server: Option<NodeId>,
    version: Option<TableVersion>,
    /// Within the whole table: the members that its pages named so far.
    whole: Option<BTreeSet<NodeId>>,
    next_at_ms: u64,
    /// Tables that came so far. The first ones are asked for quickly: a member that has started just
    /// now may not have told what it serves when this node joins.
    tables: u32,
    dial_at_ms: u64,
    /// A node that gossips asks once, because a neighbour refused it.
    once: bool,
}

impl Puller {
    /// When to ask next, if that is known.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (self.asked.is_none() && self.server.is_some()).then_some(self.next_at_ms)
    }
}

impl State {
    /// As soon as it is decent.
    pub(super) fn pull_soon(&mut self) {
        let now_ms = self.now_ms();
        self.puller.next_at_ms = self.puller.next_at_ms.min(now_ms + PULL_MS_MIN);
    }

    /// A node that gossips but knows nobody asks for a table.
    pub(super) fn pull_once(&mut self, from: NodeId) {
        self.puller = Puller::default();
        self.puller.once = true;
        self.send_pull(from);
    }

    pub(super) fn puller_stop(&mut self) {
        self.puller = Puller::default();
    }

    pub(super) fn puller_connected(&mut self, node: NodeId) {
        let serves = self.peers.get(&node).is_some_and(|p| p.role == Role::Serve);
        if serves && self.puller.server.is_none() {
            self.puller.server = Some(node);
            if self.puller.asked.is_none() {
                self.send_pull(node);
            }
        }
    }

    pub(super) fn puller_closed(&mut self, node: NodeId) {
        if self.puller.server == Some(node) {
            self.puller.server = None;
            self.puller.next_at_ms = self.now_ms();
        }
        if self.puller.asked.is_some_and(|(asked, _)| asked == node) {
            self.puller.asked = None;
        }
    }

    pub(super) fn puller_dial_failed(&mut self, _node: NodeId) {
        self.puller.dial_at_ms = self.puller.dial_at_ms.min(self.now_ms() + 500);
    }

    pub(super) fn run_pull(&mut self) {
        let now_ms = self.now_ms();
        if let Some((node, at_ms)) = self.puller.asked
            && at_ms + PULL_ANSWER_MS_MAX <= now_ms
        {
            self.puller.asked = None;
            self.puller.next_at_ms = now_ms;
            if self.puller.server == Some(node) {
                self.puller.server = self.other_server(node);
            }
        }
        self.dial_servers();
        self.pull_if_due();
    }

    pub(super) fn pull_if_due(&mut self) {
        if self.puller.asked.is_none() && self.puller.next_at_ms <= self.now_ms() {
            let server = self
                .puller
                .server
                .or_else(|| self.other_server(self.config.me));
            self.puller.server = server;
            if let Some(server) = server {
                self.send_pull(server);
            }
        }
    }

    fn other_server(&mut self, not: NodeId) -> Option<NodeId> {
        let serving = self.peers.iter().filter(|(_, p)| p.role == Role::Serve);
        let others: Vec<NodeId> = serving.map(|(n, _)| *n).filter(|n| *n != not).collect();
        if others.is_empty() {
            return self.peers.contains_key(&not).then_some(not);
        }
        Some(others[self.rng.random_range(0..others.len())])
    }

    /// Whether this node keeps the connection to `node` in order to pull.
    pub(super) fn pulls_from(&self, node: NodeId) -> bool {
        let server = self.puller.server;
        let serving = self.peers.iter().filter(|(_, p)| p.role == Role::Serve);
        let spare = serving.map(|(n, _)| *n).filter(|n| Some(*n) != server);
        let spares = PULL_SERVERS - usize::from(server.is_some());
        server == Some(node) || spare.take(spares).any(|n| n == node)
    }

    /// Keeps connections to a few members, spread by chance over all.
    fn dial_servers(&mut self) {
        let now_ms = self.now_ms();
        let open = self
            .peers
            .values()
            .filter(|p| p.role == Role::Serve)
            .count();
        if open + self.dials.len() >= PULL_SERVERS || self.puller.dial_at_ms > now_ms {
            return;
        }
        self.puller.dial_at_ms = now_ms + BOOTSTRAP_MS;
        let mut known: Vec<NodeId> = (self.table.members())
            .filter(|(_, record)| record.is_alive())
            .map(|(node, _)| node)
            .collect();
        let former = |node: &NodeId| {
            let record = self.table.get(*node);
            record.is_none_or(|r| r.standing == Standing::Dead)
        };
        known.extend(self.bootstrap.iter().copied().filter(former));
        known.retain(|n| !self.peers.contains_key(n) && !self.dials.contains_key(n));
        for _ in open + self.dials.len()..PULL_SERVERS {
            if !known.is_empty() {
                let pick = self.rng.random_range(0..known.len());
                self.dial(known.swap_remove(pick));
            }
        }
    }

    fn send_pull(&mut self, server: NodeId) {
        self.puller.asked = Some((server, self.now_ms()));
        let pull = Message::Pull {
            have: self.puller.version,
            root: self.table.changes().root(),
            whole: self.puller.whole.is_some(),
            rates: self.publisher.rates().to_vec(),
        };
        self.send(server, pull);
    }

    /// Whether this answers the question that is out.
    fn answers(&mut self, from: NodeId) -> bool {
        let wanted = self.mode == Mode::Pull || self.puller.once;
        let asked = self.puller.asked.is_some_and(|(node, _)| node == from);
        if wanted && asked {
            self.puller.asked = None;
        }
        wanted && asked
    }

    fn pull_again_in(&mut self, next_ms: u64) {
        let pause = next_ms.clamp(PULL_AGAIN_MS_MIN, PULL_MS_MAX);
        let pause = pause.min(PULL_AGAIN_MS_MIN << self.puller.tables.min(8));
        self.puller.tables += 1;
        // Up to a tenth more, so that clients do not come in step.
        let pause = pause + self.rng.random_range(0..=pause / 10);
        self.puller.next_at_ms = self.now_ms() + pause;
        self.puller.once = false;
    }

    pub(super) fn on_unchanged(&mut self, from: NodeId, version: TableVersion, next_ms: u64) {
        if self.answers(from) {
            self.puller.version = Some(version);
            self.puller.whole = None;
            self.pull_again_in(next_ms);
        }
    }

    pub(super) fn on_table(&mut self, from: NodeId, page: Page) {
        if !self.answers(from) {
            return;
        }
        if page.restart {
            self.puller.whole = Some(BTreeSet::new());
        }
        self.puller.version = Some(page.version);
        let named: Vec<NodeId> = page.items.iter().filter_map(|i| i.fact.node()).collect();
        if let Some(whole) = &mut self.puller.whole
            && whole.len() < MEMBERS_MAX
        {
            whole.extend(named);
        }
        self.on_news(from, page.items);
        if !self.peers.contains_key(&from) {
            return;
        }
        if page.more {
            self.send_pull(from);
            return;
        }
        if let Some(whole) = self.puller.whole.take() {
            self.drop_unnamed(&whole);
        }
        self.pull_again_in(page.next_ms);
    }

    /// The whole table named everybody: the others are gone. A node that gossips judges itself.
    /// That is no death: the member that was asked may have started just now, and the next one that is
    /// asked may know better.
    fn drop_unnamed(&mut self, named: &BTreeSet<NodeId>) {
        if self.mode != Mode::Pull {
            return;
        }
        let alive = self.table.members().filter(|(_, record)| record.is_alive());
        let gone = alive.map(|(node, _)| node).filter(|n| !named.contains(n));
        for node in gone.collect::<Vec<_>>() {
            self.table.forget(node);
            self.mark_changed();
        }
    }
}
