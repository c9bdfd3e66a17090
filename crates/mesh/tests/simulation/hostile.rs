//! A member that says whatever comes to its mind. The others stay a mesh, and bounded.

use std::sync::Arc;

use mesh::NodeId;
use mesh::announcement::{COUNTER_MAX, Signed};
use mesh::proto::{Fact, Item, Message, Page, TableVersion};
use mesh::sim::Simulation;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::worlds::{Weather, check_bounds, settled, within};

/// Nodes, of which the last one is hostile.
const NODES: usize = 10;
const HOSTILE: usize = NODES - 1;

/// Lies to each of its peers in a second, and for how many seconds.
const LIES_PER_SECOND: u64 = 20;
const SECONDS: u64 = 60;

struct Liar {
    rng: StdRng,
    known: Vec<NodeId>,
    words: Vec<Arc<Signed>>,
}

impl Liar {
    fn number(&mut self) -> u64 {
        match self.rng.random_range(0..5) {
            0 => 0,
            1 => u64::MAX,
            2 => self.rng.random(),
            3 => COUNTER_MAX - self.rng.random_range(0..3),
            _ => 1_800_000_000_000 + self.rng.random_range(0..100_000),
        }
    }

    fn node(&mut self) -> NodeId {
        if self.rng.random_range(0..4) == 0 {
            return NodeId::from_bytes(self.rng.random());
        }
        self.known[self.rng.random_range(0..self.known.len())]
    }

    fn hashes(&mut self) -> Vec<u64> {
        let count = self.rng.random_range(0..200);
        (0..count).map(|_| self.rng.random()).collect()
    }

    fn item(&mut self) -> Item {
        let node = self.node();
        // What does not fit into the wire form is refused before it comes this far.
        let counter = |number: u64| number.min(COUNTER_MAX);
        let (incarnation, sequence) = (counter(self.number()), counter(self.number()));
        let fact = match self.rng.random_range(0..4) {
            0 => Fact::Died { node, incarnation },
            1 => Fact::Suspected {
                node,
                incarnation,
                sequence,
            },
            2 => Fact::Died {
                node,
                incarnation: 1_800_000_000_000 + self.rng.random_range(0..2_000),
            },
            _ => Fact::Announced(self.words[self.rng.random_range(0..self.words.len())].clone()),
        };
        Item {
            fact,
            age_ms: self.number(),
            urgent: self.rng.random(),
        }
    }

    fn items(&mut self) -> Vec<Item> {
        (0..self.rng.random_range(0..8))
            .map(|_| self.item())
            .collect()
    }

    fn message(&mut self) -> Message {
        let version = TableVersion {
            source: self.rng.random(),
            change: self.number(),
        };
        match self.rng.random_range(0..16) {
            0 => Message::Link {
                wanted: self.rng.random(),
                root: self.rng.random(),
            },
            1 => Message::Refuse,
            2..=4 => Message::News {
                items: self.items(),
            },
            5 => Message::Have {
                hashes: self.hashes(),
                offered: self.rng.random(),
            },
            6 => Message::Want {
                hashes: self.hashes(),
                graft: self.rng.random(),
            },
            7 => Message::Prune,
            8 => Message::Compare {
                root: self.rng.random(),
            },
            9 => Message::Parts {
                digests: (0..1 << self.rng.random_range(0..9))
                    .map(|_| self.rng.random())
                    .collect(),
            },
            10 => {
                let parts = 1 << self.rng.random_range(0..9u32);
                Message::Entries {
                    parts,
                    differing: (0..parts.min(40)).map(|part| part as u8).collect(),
                    hashes: self.hashes(),
                }
            }
            11 => Message::Ping {
                nonce: self.rng.random(),
                round_trip_us: Some(self.rng.random()),
            },
            12 => Message::Probe {
                target: self.node(),
            },
            13 => Message::Reached {
                target: self.node(),
            },
            14 => Message::Pull {
                have: Some(version),
                root: self.rng.random(),
                whole: self.rng.random(),
                rates: Vec::new(),
            },
            _ => Message::Table(Page {
                version,
                restart: self.rng.random(),
                more: self.rng.random(),
                items: self.items(),
                next_ms: self.number(),
            }),
        }
    }
}

fn lie(simulation: &mut Simulation, seed: u64) {
    let view = simulation.view(0).unwrap();
    let mut liar = Liar {
        rng: StdRng::seed_from_u64(seed),
        known: view.members.iter().map(|member| member.node).collect(),
        words: view
            .members
            .iter()
            .map(|member| member.signed().clone())
            .collect(),
    };
    for _ in 0..SECONDS * LIES_PER_SECOND {
        for to in simulation.peers_of(HOSTILE) {
            let message = liar.message();
            simulation.inject(HOSTILE, to, message);
        }
        simulation.run_for(1_000 / LIES_PER_SECOND);
    }
}

#[test]
fn the_others_stay_a_mesh_and_bounded() {
    for seed in 0..6 {
        let mut simulation = settled(NODES, Weather::Clear, seed);
        lie(&mut simulation, seed);
        check_bounds(&simulation);
        simulation.expel(0, HOSTILE);
        let others_agree = |sim: &mut Simulation| {
            (0..HOSTILE).all(|one| (0..HOSTILE).all(|other| sim.believes_alive(one, other)))
        };
        let case = format!("seed {seed}");
        // Whoever was declared dead too often waits up to a minute before its next life.
        within(&mut simulation, 90_000, &case, others_agree);
        check_bounds(&simulation);
    }
}
