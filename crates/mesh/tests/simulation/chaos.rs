//! Everything at once: bounds hold, one seed gives one run, and in the end all agree.

use mesh::announcement::NodeState;
use mesh::sim::{Kind, Memory, Settings, Simulation};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::worlds::{Weather, check_bounds, within};

/// Serving nodes at the beginning, and others.
const NODES: usize = 24;
const IDLE: usize = 3;
const CLIENTS: usize = 8;

/// Seconds of misfortune, and how long all may take to agree after it.
const SECONDS: u64 = 240;
const AGREE_MS_MAX: u64 = 120_000;

fn mishap(simulation: &mut Simulation, rng: &mut StdRng) {
    let node = rng.random_range(0..simulation.running().len().max(1));
    let node = simulation.running().get(node).copied().unwrap_or(0);
    let other = rng.random_range(0..NODES);
    match rng.random_range(0..14) {
        0 => simulation.crash(node),
        1 => simulation.leave(node),
        2 => simulation.restart(node, Memory::Kept),
        3 => simulation.restart(node, Memory::Lost),
        4 => simulation.pause(node),
        5 => simulation.resume(other),
        6 => simulation.set_offline(node, true),
        7 => simulation.set_offline(other, false),
        8 => simulation.block(node, other),
        9 => simulation.unblock(node, other),
        10 => simulation.start(other),
        11 => simulation.open(node, other),
        12 => simulation.pull_now(node),
        _ => simulation.change(node, |info| {
            info.memory_free_bytes = rng.random_range(0..1 << 30);
            if info.state.announces() || info.state == NodeState::Idle {
                info.state = [NodeState::Serving, NodeState::Standby, NodeState::Idle]
                    [rng.random_range(0..3)];
            }
        }),
    }
}

fn misfortune(seed: u64) -> Simulation {
    let mut simulation = Simulation::new(Settings {
        load_ms: Some(5_000),
        quality: Weather::Rough.quality(),
        ..Settings::new(seed)
    });
    let mut rng = StdRng::seed_from_u64(seed);
    simulation.grow(NODES, 100);
    for number in 0..IDLE + CLIENTS {
        let kind = if number < IDLE {
            Kind::Idle
        } else {
            Kind::Client
        };
        let node = simulation.add(kind, &[number, number + 1]);
        simulation.start(node);
    }
    for second in 0..SECONDS {
        if second % 90 == 30 {
            let part = |odd| (0..NODES).filter(|node| node % 2 == odd).collect();
            simulation.partition(&[part(0), part(1)]);
        }
        if second % 90 == 70 {
            simulation.heal();
        }
        mishap(&mut simulation, &mut rng);
        simulation.run_for(1_000);
    }
    simulation
}

fn calm(simulation: &mut Simulation) {
    simulation.heal();
    for node in 0..NODES + IDLE + CLIENTS {
        simulation.resume(node);
        simulation.set_offline(node, false);
        for other in 0..NODES + IDLE + CLIENTS {
            simulation.unblock(node, other);
        }
        simulation.start(node);
    }
}

#[test]
fn all_agree_in_the_end_and_no_queue_exceeds_its_bound() {
    for seed in 0..6 {
        let mut simulation = misfortune(seed);
        check_bounds(&simulation);
        calm(&mut simulation);
        within(
            &mut simulation,
            AGREE_MS_MAX,
            &format!("seed {seed}"),
            |sim| sim.agree(),
        );
        check_bounds(&simulation);
    }
}

#[test]
fn one_seed_gives_one_run() {
    let trace = |seed| {
        let mut simulation = misfortune(seed);
        calm(&mut simulation);
        simulation.run_for(10_000);
        simulation.trace()
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
