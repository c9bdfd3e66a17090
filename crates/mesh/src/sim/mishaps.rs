//! Owns what can be done to simulated nodes and their network from outside.

use super::authority::revocation_of;
use super::happening::Happening;
use super::simulation::Simulation;
use crate::NodeId;
use crate::announcement::{NodeInfo, NodeState};
use crate::proto::{Event, Message};

/// How a node comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// It knows the members that it knew, and the revocations.
    Kept,
    /// It knows what its ticket says.
    Lost,
}

impl Simulation {
    /// Kills a node's program: it says nothing more, not even goodbye.
    pub fn crash(&mut self, index: usize) {
        let now_known = self.known_to(index);
        let node = &mut self.nodes[index];
        node.held.clear();
        node.paused_at_ms = None;
        node.keep_bootstrap(now_known);
        let Some(life) = node.life.take() else {
            return;
        };
        for peer in life.peers.into_keys() {
            self.look_for_silence(peer, index);
        }
    }

    /// Kills a node's program and starts it again.
    pub fn restart(&mut self, index: usize, memory: Memory) {
        let ticket = self.nodes[index].bootstrap.clone();
        self.crash(index);
        if memory == Memory::Lost {
            self.nodes[index].bootstrap = ticket;
            self.nodes[index].revocations.clear();
        }
        self.start(index);
    }

    /// A node says goodbye and ends.
    pub fn leave(&mut self, index: usize) {
        let known = self.known_to(index);
        self.nodes[index].keep_bootstrap(known);
        self.drive(index, Event::Leave);
    }

    /// The last messages are out: the connections close.
    pub(super) fn end_cleanly(&mut self, index: usize) {
        let Some(life) = self.nodes[index].life.take() else {
            return;
        };
        for (peer, end) in life.peers {
            self.tell_closed(index, peer, end.connection, end.arrival_ms, true);
        }
    }

    /// Members that a node would find in its files after an end now.
    fn known_to(&self, index: usize) -> Vec<usize> {
        let Some(life) = self.life(index) else {
            return Vec::new();
        };
        let others = (0..self.nodes.len()).filter(|&other| other != index);
        let alive = |&other: &usize| {
            let belief = life.state.belief(self.nodes[other].id);
            belief.is_some_and(|belief| belief.is_alive())
        };
        others.filter(alive).collect()
    }

    /// Stops a node as `SIGSTOP` does: it notices nothing and says nothing.
    pub fn pause(&mut self, index: usize) {
        let now_ms = self.now_ms();
        self.nodes[index].paused_at_ms.get_or_insert(now_ms);
        for peer in self.peers_of(index) {
            self.look_for_silence(peer, index);
        }
    }

    /// Lets a stopped node go on. What came meanwhile is read now, unless its connection died of silence.
    pub fn resume(&mut self, index: usize) {
        let Some(since_ms) = self.nodes[index].paused_at_ms.take() else {
            return;
        };
        let paused_ms = self.now_ms() - since_ms;
        let held = std::mem::take(&mut self.nodes[index].held);
        for peer in self.peers_of(index) {
            self.look_for_silence(peer, index);
        }
        if paused_ms >= super::connections::IDLE_MS {
            for peer in self.peers_of(index) {
                self.lose(index, peer);
            }
        }
        for happening in held {
            // Timers that ran out meanwhile fire at once; one tick is as good as many.
            match happening {
                Happening::Wake { .. } => self.drive(index, Event::Tick),
                other => self.happen(other),
            }
        }
        for peer in self.peers_of(index) {
            self.look_for_silence(index, peer);
        }
    }

    /// Lets nothing through from `from` to `to`; the other direction is not touched.
    pub fn block(&mut self, from: usize, to: usize) {
        self.network.block(from, to);
        self.look_for_silence(to, from);
    }

    /// Ends a [`block`](Self::block).
    pub fn unblock(&mut self, from: usize, to: usize) {
        self.network.unblock(from, to);
        self.look_for_silence(to, from);
    }

    /// Takes a node off the network, as when Wi-Fi is gone, or puts it on again.
    pub fn set_offline(&mut self, index: usize, offline: bool) {
        self.network.set_offline(index, offline);
        self.look_everywhere_for_silence();
    }

    /// Lets packets through only within each of `parts`; nodes in none are in the first.
    pub fn partition(&mut self, parts: &[Vec<usize>]) {
        self.network.partition(parts);
        self.look_everywhere_for_silence();
    }

    /// Ends a [`partition`](Self::partition).
    pub fn heal(&mut self) {
        self.partition(&[]);
    }

    fn look_everywhere_for_silence(&mut self) {
        for node in 0..self.nodes.len() {
            for peer in self.peers_of(node) {
                self.look_for_silence(node, peer);
            }
        }
    }

    /// Open connections of a node.
    #[must_use]
    pub fn peers_of(&self, index: usize) -> Vec<usize> {
        let life = self.life(index);
        life.map(|life| life.peers.keys().copied().collect())
            .unwrap_or_default()
    }

    /// What a node says of itself changes.
    pub fn change(&mut self, index: usize, change: impl FnOnce(&mut NodeInfo)) {
        let mut info = self.nodes[index].info.clone();
        change(&mut info);
        self.nodes[index].info = info.clone();
        self.drive(index, Event::LocalChanged(info));
    }

    /// A node begins or ends to serve.
    pub fn set_state(&mut self, index: usize, state: NodeState) {
        self.change(index, |info| info.state = state);
    }

    /// A node wants a fresh table.
    pub fn pull_now(&mut self, index: usize) {
        self.drive(index, Event::PullNow);
    }

    /// `by` expels `node` from the mesh.
    pub fn expel(&mut self, by: usize, node: usize) {
        let blob = revocation_of(self.nodes[node].id);
        self.drive(by, Event::Revoke(blob));
    }

    /// Gives `to` a message that seems to come from its peer `from`: an old one that was held up, or
    /// a forged one.
    pub fn inject(&mut self, from: usize, to: usize, message: Message) {
        if self.peer(to, from).is_some() {
            let from = self.nodes[from].id;
            self.drive(to, Event::Message { from, message });
        }
    }

    /// The application of `from` opens a connection to `to`, as for a request.
    pub fn open(&mut self, from: usize, to: usize) {
        let to = self.id(to);
        self.dial(from, to);
    }

    /// The key of a node.
    #[must_use]
    pub fn id(&self, index: usize) -> NodeId {
        self.nodes[index].id
    }
}
