//! Owns the measurement of a mesh by its size: how fast news travels, and what it costs.

use super::mishaps::Memory;
use super::network::Quality;
use super::node::Kind;
use super::simulation::{Settings, Simulation};

/// Time between two starts while the mesh grows: a thousand nodes take a minute and a half.
const GROWTH_APART_MS: u64 = 100;

/// How often a busy node's load changes. What it says of itself changes as often as it may.
const LOAD_MS: u64 = 5_000;

/// Time between two incidents: longer than any of them takes.
const INCIDENT_MS: u64 = 60_000;

/// How long the mesh is cut in two.
const PARTITION_MS: u64 = 120_000;

/// The longest that anything is waited for.
const WAIT_MS_MAX: u64 = 300_000;

/// What is surveyed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Serving nodes.
    pub nodes: usize,
    /// Virtual time, in minutes. A third of it is steady, the rest is full of incidents.
    pub minutes: u64,
    /// Decides everything that chance decides.
    pub seed: u64,
    /// How messages fare.
    pub quality: Quality,
}

/// How long something took, over several times, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// How often it was measured.
    pub count: usize,
    /// The middle one.
    pub median_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// How often it took longer than five minutes, and was not waited for.
    pub unfinished: usize,
}

/// What a node sends on average.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Flow {
    /// Bytes per second: messages, without what QUIC, UDP and IP add.
    pub bytes: f64,
    /// Messages per second.
    pub messages: f64,
    /// Attempts to open a connection, per second.
    pub dials: f64,
    /// Neighbours on average.
    pub neighbours: f64,
    /// Open connections on average.
    pub connections: f64,
    /// Bytes per second by kind of message, see [`MESSAGE_KINDS`](super::MESSAGE_KINDS).
    pub by_kind: [f64; super::MESSAGE_KINDS.len()],
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Serving nodes.
    pub nodes: usize,
    /// From the start of the last of them until all agreed.
    pub growth: Spread,
    /// From the start of one more until all knew it.
    pub join: Spread,
    /// From a kill until nobody held the node for alive.
    pub death: Spread,
    /// From a goodbye until nobody held the node for alive.
    pub leave: Spread,
    /// From the end of a partition into halves until all agreed.
    pub heal: Spread,
    /// What a node sends in a mesh that nobody joins or leaves, and whose load changes all the time.
    pub steady: Flow,
    /// What a node sends while there is an incident each minute, and at the partition.
    pub unsteady: Flow,
    /// What must never happen and did.
    pub faults: Vec<String>,
}

struct Surveyor<'a> {
    simulation: Simulation,
    plan: Plan,
    progress: &'a mut dyn FnMut(u64),
}

/// Lets a mesh live and measures it. `progress` is told the virtual time in milliseconds now and then.
pub fn survey(plan: Plan, progress: &mut dyn FnMut(u64)) -> Report {
    let settings = Settings {
        quality: plan.quality,
        load_ms: Some(LOAD_MS),
        // Reading takes most of the time; tests read every message.
        decode_every: 101,
        watch_queues: false,
        ..Settings::new(plan.seed)
    };
    let mut surveyor = Surveyor {
        simulation: Simulation::new(settings),
        plan,
        progress,
    };
    surveyor.run()
}

impl Surveyor<'_> {
    fn run(&mut self) -> Report {
        let end_ms = self.plan.minutes * 60_000;
        let mut report = Report {
            nodes: self.plan.nodes,
            growth: self.grow(),
            ..Report::default()
        };
        // The first announcements have been renewed.
        self.run_for(60_000);
        report.steady = self.steady(end_ms / 3);
        self.simulation.forget_traffic();
        let incidents_ms = self.simulation.now_ms();
        let (mut joins, mut deaths, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
        let mut turn = 0;
        while self.simulation.now_ms() + INCIDENT_MS + PARTITION_MS + WAIT_MS_MAX / 2 <= end_ms {
            let victim = 1 + turn % (self.plan.nodes - 1);
            deaths.push(self.incident(|sim| sim.crash(victim), |sim| sim.all_miss(victim)));
            joins.push(self.incident(
                |sim| sim.restart(victim, Memory::Lost),
                |sim| sim.all_know(victim),
            ));
            leaves.push(self.incident(|sim| sim.leave(victim), |sim| sim.all_miss(victim)));
            joins.push(self.incident(|sim| sim.start(victim), |sim| sim.all_know(victim)));
            // Far from the last one on the ring and among the neighbours.
            turn += 7;
        }
        report.heal = spread(&[self.partition()]);
        (report.join, report.death, report.leave) =
            (spread(&joins), spread(&deaths), spread(&leaves));
        self.run_to(end_ms);
        let unsteady_ms = self.simulation.now_ms() - incidents_ms;
        report.unsteady = self.flow(unsteady_ms);
        report.faults = self.simulation.faults().to_vec();
        report
    }

    fn grow(&mut self) -> Spread {
        for _ in 0..self.plan.nodes {
            self.simulation.grow(1, GROWTH_APART_MS);
            (self.progress)(self.simulation.now_ms());
        }
        spread(&[self.wait(|sim| sim.agree())])
    }

    fn steady(&mut self, until_ms: u64) -> Flow {
        self.simulation.forget_traffic();
        let start_ms = self.simulation.now_ms();
        self.run_to(until_ms.max(start_ms + 60_000));
        let passed_ms = self.simulation.now_ms() - start_ms;
        self.flow(passed_ms)
    }

    fn incident(
        &mut self,
        happens: impl FnOnce(&mut Simulation),
        done: impl FnMut(&mut Simulation) -> bool,
    ) -> Option<u64> {
        let start_ms = self.simulation.now_ms();
        happens(&mut self.simulation);
        let took = self.wait(done);
        self.run_to(start_ms + INCIDENT_MS);
        took
    }

    fn partition(&mut self) -> Option<u64> {
        let halves = [0, 1].map(|half| {
            let nodes = 0..self.plan.nodes;
            nodes.filter(|node| node % 2 == half).collect()
        });
        self.simulation.partition(&halves);
        self.run_for(PARTITION_MS);
        self.simulation.heal();
        self.wait(|sim| sim.agree())
    }

    fn wait(&mut self, mut done: impl FnMut(&mut Simulation) -> bool) -> Option<u64> {
        let start_ms = self.simulation.now_ms();
        while self.simulation.now_ms() < start_ms + WAIT_MS_MAX {
            if self.simulation.run_until(1_000, &mut done).is_some() {
                return Some(self.simulation.now_ms() - start_ms);
            }
            (self.progress)(self.simulation.now_ms());
        }
        None
    }

    fn run_for(&mut self, ms: u64) {
        self.run_to(self.simulation.now_ms() + ms);
    }

    fn run_to(&mut self, at_ms: u64) {
        while self.simulation.now_ms() < at_ms {
            let next_ms = at_ms.min(self.simulation.now_ms() + 1_000);
            self.simulation.run_to(next_ms);
            (self.progress)(next_ms);
        }
    }

    fn flow(&mut self, passed_ms: u64) -> Flow {
        let sum = self.simulation.traffic_of(Kind::Serving);
        let node_seconds = passed_ms as f64 / 1_000.0 * self.plan.nodes as f64;
        let per_node_second = |count: u64| count as f64 / node_seconds;
        let nodes = self.simulation.running();
        let (mut neighbours, mut connections) = (0, 0);
        for &node in &nodes {
            neighbours += self.simulation.neighbours(node).len();
            connections += self.simulation.peers_of(node).len();
        }
        Flow {
            bytes: per_node_second(sum.bytes),
            messages: per_node_second(sum.messages),
            dials: per_node_second(sum.dials),
            neighbours: neighbours as f64 / nodes.len().max(1) as f64,
            connections: connections as f64 / nodes.len().max(1) as f64,
            by_kind: sum.by_kind.map(per_node_second),
        }
    }
}

fn spread(times: &[Option<u64>]) -> Spread {
    let mut finished: Vec<u64> = times.iter().copied().flatten().collect();
    finished.sort_unstable();
    Spread {
        count: finished.len(),
        median_ms: finished.get(finished.len() / 2).copied().unwrap_or(0),
        max_ms: finished.last().copied().unwrap_or(0),
        unfinished: times.len() - finished.len(),
    }
}

/// What clients cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ClientCost {
    /// Serving nodes.
    pub servers: usize,
    /// Clients, which are spread over them.
    pub clients: usize,
    /// Bytes that one client sends per second.
    pub client_bytes: f64,
    /// Bytes that one serving node sends per second to all its clients.
    pub server_bytes: f64,
}

/// Lets `clients` pull from `servers`, whose load changes all the time, for `minutes`.
#[must_use]
pub fn client_cost(servers: usize, clients: usize, minutes: u64, seed: u64) -> ClientCost {
    let mut simulation = Simulation::new(Settings {
        load_ms: Some(LOAD_MS),
        ..Settings::new(seed)
    });
    simulation.grow(servers, GROWTH_APART_MS);
    for client in 0..clients {
        // As tickets do, of which each names a member or two.
        let bootstrap = [client % servers, (client + 1) % servers];
        let client = simulation.add(Kind::Client, &bootstrap);
        simulation.start(client);
        simulation.run_for(GROWTH_APART_MS / 4);
    }
    simulation.run_for(60_000);
    simulation.forget_traffic();
    let ms = minutes * 60_000;
    simulation.run_for(ms);
    let seconds = ms as f64 / 1_000.0;
    let served = simulation.traffic_of(Kind::Serving);
    let answers = super::MESSAGE_KINDS.iter().zip(served.by_kind);
    let answers = answers.filter(|(kind, _)| matches!(**kind, "unchanged" | "table"));
    let answered: u64 = answers.map(|(_, bytes)| bytes).sum();
    let asked = simulation.traffic_of(Kind::Client).bytes;
    ClientCost {
        servers,
        clients,
        client_bytes: asked as f64 / seconds / clients as f64,
        server_bytes: answered as f64 / seconds / servers as f64,
    }
}
