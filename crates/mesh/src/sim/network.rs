//! Owns the virtual network: which packets get through, how long they take, and how often they are
//! lost, doubled or out of order. Links have directions.
//!
//! It is harsher than QUIC, which repeats what is lost and keeps the order: here a lost message
//! stays lost. What the protocol bears here it bears there.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::StdRng;

/// How the packets of one direction fare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Shortest time on the way, in milliseconds; at least 1.
    pub delay_ms: u64,
    /// Up to this much longer, in milliseconds.
    pub jitter_ms: u64,
    /// Share of messages that never arrive.
    pub loss: f64,
    /// Share of messages that arrive twice.
    pub duplication: f64,
    /// Share of messages that later ones may overtake, by up to a second.
    pub reordering: f64,
}

/// How late a message may be that others overtake, in milliseconds.
const LATE_MS_MAX: u64 = 1_000;

impl Default for Quality {
    /// Two homes in one country.
    fn default() -> Self {
        Self {
            delay_ms: 15,
            jitter_ms: 10,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
        }
    }
}

impl Quality {
    /// The default with everything that can go wrong with messages.
    #[must_use]
    pub fn rough(share: f64) -> Self {
        Self {
            jitter_ms: 60,
            loss: share,
            duplication: share,
            reordering: share,
            ..Self::default()
        }
    }
}

/// One copy of a message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) delay_ms: u64,
    /// It may overtake and be overtaken.
    pub(super) unordered: bool,
}

/// All links. Nodes are their indices.
#[derive(Debug)]
pub struct Network {
    default: Quality,
    links: BTreeMap<(usize, usize), Quality>,
    blocked: BTreeSet<(usize, usize)>,
    offline: BTreeSet<usize>,
    /// Which part of a partition each node is in; those not named are in part 0.
    parts: BTreeMap<usize, usize>,
}

impl Network {
    pub(super) fn new(default: Quality) -> Self {
        Self {
            default,
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            offline: BTreeSet::new(),
            parts: BTreeMap::new(),
        }
    }

    /// How messages from `from` to `to` fare; those in the other direction are not touched.
    pub fn set_link(&mut self, from: usize, to: usize, quality: Quality) {
        self.links.insert((from, to), quality);
    }

    pub(super) fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
    }

    pub(super) fn unblock(&mut self, from: usize, to: usize) {
        self.blocked.remove(&(from, to));
    }

    pub(super) fn set_offline(&mut self, node: usize, offline: bool) {
        if offline {
            self.offline.insert(node);
        } else {
            self.offline.remove(&node);
        }
    }

    pub(super) fn partition(&mut self, parts: &[Vec<usize>]) {
        self.parts.clear();
        for (part, nodes) in parts.iter().enumerate() {
            self.parts.extend(nodes.iter().map(|&node| (node, part)));
        }
    }

    /// Whether packets get through at all.
    #[must_use]
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        if self.blocked.is_empty() && self.offline.is_empty() && self.parts.is_empty() {
            return true;
        }
        let part = |node| self.parts.get(&node).copied().unwrap_or(0);
        !self.offline.contains(&from)
            && !self.offline.contains(&to)
            && !self.blocked.contains(&(from, to))
            && part(from) == part(to)
    }

    /// How messages from `from` to `to` fare.
    #[must_use]
    pub fn quality(&self, from: usize, to: usize) -> Quality {
        if self.links.is_empty() {
            return self.default;
        }
        let own = self.links.get(&(from, to));
        own.copied().unwrap_or(self.default)
    }

    /// A time on the way, or `None` for a packet that is lost.
    pub(super) fn transit(&self, from: usize, to: usize, rng: &mut StdRng) -> Option<u64> {
        let quality = self.quality(from, to);
        let lost = !self.is_open(from, to) || chance(quality.loss, rng);
        (!lost).then(|| delay(&quality, rng))
    }

    /// The copies of one message that will arrive.
    pub(super) fn copies(&self, from: usize, to: usize, rng: &mut StdRng) -> [Option<Copy>; 2] {
        let quality = self.quality(from, to);
        if !self.is_open(from, to) || chance(quality.loss, rng) {
            return [None, None];
        }
        let doubled = chance(quality.duplication, rng);
        let mut copy = || {
            let unordered = chance(quality.reordering, rng);
            let late_ms = if unordered {
                rng.random_range(0..=LATE_MS_MAX)
            } else {
                0
            };
            Copy {
                delay_ms: delay(&quality, rng) + late_ms,
                unordered,
            }
        };
        [Some(copy()), doubled.then(copy)]
    }
}

fn delay(quality: &Quality, rng: &mut StdRng) -> u64 {
    let jitter_ms = match quality.jitter_ms {
        0 => 0,
        jitter_ms => rng.random_range(0..=jitter_ms),
    };
    quality.delay_ms.max(1) + jitter_ms
}

fn chance(share: f64, rng: &mut StdRng) -> bool {
    share > 0.0 && rng.random::<f64>() < share
}
