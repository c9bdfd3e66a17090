//! Owns what can be asked of a simulation. Nothing here changes what happens.

use std::sync::Arc;

use super::node::Kind;
use super::simulation::Simulation;
use super::traffic::Traffic;
use crate::proto::{Belief, Liveness, QueueLengths, View};

impl Simulation {
    /// How `subject` stands in the table of `observer`; `None` where either is unknown.
    #[must_use]
    pub fn belief(&self, observer: usize, subject: usize) -> Option<Belief> {
        let life = self.life(observer)?;
        life.state.belief(self.nodes[subject].id)
    }

    /// Whether `observer` runs and holds `subject` for alive, suspected or not.
    #[must_use]
    pub fn believes_alive(&self, observer: usize, subject: usize) -> bool {
        let belief = self.belief(observer, subject);
        belief.is_some_and(|belief| belief.is_alive())
    }

    /// The table of a running node as the application sees it.
    pub fn view(&mut self, index: usize) -> Option<Arc<View>> {
        Some(self.life_mut(index)?.state.view())
    }

    /// Nodes whose program runs, whatever they do.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let running = |&index: &usize| self.nodes[index].life.is_some();
        (0..self.nodes.len()).filter(running).collect()
    }

    /// Running nodes that announce themselves.
    #[must_use]
    pub fn announcing(&self) -> Vec<usize> {
        let mut running = self.running();
        running.retain(|&index| self.nodes[index].info.state.announces());
        running
    }

    /// Whether a node runs.
    #[must_use]
    pub fn is_running(&self, index: usize) -> bool {
        self.nodes[index].life.is_some()
    }

    /// Whether every running node but `subject` holds it for alive in its present life.
    #[must_use]
    pub fn all_know(&self, subject: usize) -> bool {
        let own = self.belief(subject, subject).map(|own| own.incarnation);
        own.is_some()
            && self.running().into_iter().all(|observer| {
                let seen = self.belief(observer, subject);
                seen.is_some_and(|seen| seen.is_alive() && Some(seen.incarnation) == own)
            })
    }

    /// Whether no running node holds `subject` for alive.
    #[must_use]
    pub fn all_miss(&self, subject: usize) -> bool {
        let mut observers = self.running().into_iter();
        observers.all(|observer| observer == subject || !self.believes_alive(observer, subject))
    }

    /// Whether all running nodes agree that exactly those that announce themselves live, in the lives
    /// that they have.
    #[must_use]
    pub fn agree(&self) -> bool {
        let mut announcing = vec![false; self.nodes.len()];
        for index in self.announcing() {
            announcing[index] = true;
        }
        let lives: Vec<_> = (0..self.nodes.len())
            .map(|index| self.belief(index, index).map(|own| own.incarnation))
            .collect();
        self.running().into_iter().all(|observer| {
            (0..self.nodes.len()).all(|subject| {
                let seen = self.belief(observer, subject).filter(|s| s.is_alive());
                match (seen, announcing[subject]) {
                    (Some(seen), true) => Some(seen.incarnation) == lives[subject],
                    (None, false) => true,
                    _ => false,
                }
            })
        })
    }

    /// How many running nodes hold `subject` for dead or gone.
    #[must_use]
    pub fn buried_by(&self, subject: usize) -> usize {
        let observers = self.running().into_iter();
        let buried = observers.filter(|&observer| {
            let belief = self.belief(observer, subject);
            belief.is_some_and(|s| matches!(s.liveness, Liveness::Dead | Liveness::Left))
        });
        buried.count()
    }

    /// Nodes that are neighbours of a node, as it sees it.
    pub fn neighbours(&mut self, index: usize) -> Vec<usize> {
        let Some(view) = self.view(index) else {
            return Vec::new();
        };
        let neighbours = view.members.iter().filter(|member| member.neighbour);
        let indices = neighbours.filter_map(|m| self.index_of.get(&m.node).copied());
        indices.collect()
    }

    /// What a node sent since the last [`forget_traffic`](Self::forget_traffic).
    #[must_use]
    pub fn traffic(&self, index: usize) -> Traffic {
        self.nodes[index].traffic
    }

    /// What all nodes of a kind sent.
    #[must_use]
    pub fn traffic_of(&self, kind: Kind) -> Traffic {
        let mut sum = Traffic::default();
        for node in self.nodes.iter().filter(|node| node.kind == kind) {
            sum.add(&node.traffic);
        }
        sum
    }

    /// Begins to count traffic anew.
    pub fn forget_traffic(&mut self) {
        for node in &mut self.nodes {
            node.traffic = Traffic::default();
        }
    }

    /// Stands for everything that all state machines have done so far, and when.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// The longest that any queue of any node was, if queues are watched.
    #[must_use]
    pub fn peaks(&self) -> QueueLengths {
        self.peaks
    }

    /// What happened that never must: messages that did not read back, peers that sent more than
    /// they may.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}
