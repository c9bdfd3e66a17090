//! Nodes that end, with a goodbye or without, and nodes that come back.

use mesh::proto::Liveness;
use mesh::sim::{Memory, Simulation};

use crate::worlds::{DEATH_MS, SPREAD_MS, Weather, always, check_bounds, settled, within};

#[test]
fn a_dead_node_leaves_all_tables_in_time() {
    for seed in 0..4 {
        for nodes in [2, 3, 10, 60] {
            for weather in [Weather::Clear, Weather::Rough] {
                let mut simulation = settled(nodes, weather, seed);
                simulation.crash(1);
                let case = format!("{nodes} nodes, {weather:?}, seed {seed}");
                let bound_ms = DEATH_MS + weather.spread_ms();
                within(&mut simulation, bound_ms, &case, |sim| sim.all_miss(1));
                simulation.run_for(1_000);
                assert!(simulation.agree(), "{case}: somebody else was buried too");
                check_bounds(&simulation);
            }
        }
    }
}

#[test]
fn many_that_die_at_once_are_all_found_out() {
    for seed in 0..3 {
        for (nodes, dead) in [(10, 5), (60, 20), (60, 40)] {
            let mut simulation = settled(nodes, Weather::Clear, seed);
            for node in 1..=dead {
                simulation.crash(node);
            }
            // Those whose neighbours died with them are found when the ring closes over them.
            let case = format!("{dead} of {nodes} nodes, seed {seed}");
            within(&mut simulation, 4 * DEATH_MS, &case, |sim| sim.agree());
        }
    }
}

#[test]
fn a_goodbye_is_known_at_once() {
    for seed in 0..4 {
        for nodes in [2, 10, 60] {
            let mut simulation = settled(nodes, Weather::Clear, seed);
            simulation.leave(1);
            let case = format!("{nodes} nodes, seed {seed}");
            within(&mut simulation, SPREAD_MS, &case, |sim| sim.all_miss(1));
            for observer in simulation.running() {
                let belief = simulation.belief(observer, 1).unwrap();
                assert_eq!(belief.liveness, Liveness::Left, "{case}");
            }
            always(&mut simulation, 60_000, &case, |sim| sim.all_miss(1));
        }
    }
}

/// When a node restarts after its end.
const PAUSES_MS: [u64; 4] = [0, 1_000, 8_000, 120_000];

fn end_and_return(
    simulation: &mut Simulation,
    pause_ms: u64,
    memory: Memory,
    end: impl FnOnce(&mut Simulation),
) {
    end(simulation);
    simulation.run_for(pause_ms);
    simulation.restart(1, memory);
}

#[test]
fn a_return_is_exchanged_at_once() {
    for seed in 0..3 {
        for pause_ms in PAUSES_MS {
            for memory in [Memory::Kept, Memory::Lost] {
                for clean in [true, false] {
                    let mut simulation = settled(12, Weather::Clear, seed);
                    let before = simulation.belief(0, 1).unwrap().incarnation;
                    end_and_return(&mut simulation, pause_ms, memory, |sim| {
                        if clean {
                            sim.leave(1);
                        } else {
                            sim.crash(1);
                        }
                    });
                    let case =
                        format!("after {pause_ms} ms, {memory:?}, clean: {clean}, seed {seed}");
                    within(&mut simulation, SPREAD_MS, &case, |sim| sim.all_know(1));
                    let after = simulation.belief(0, 1).unwrap().incarnation;
                    assert!(after > before, "{case}: the return is a new life");
                    always(&mut simulation, 60_000, &case, |sim| sim.all_know(1));
                }
            }
        }
    }
}

#[test]
fn a_clock_that_went_back_does_not_keep_a_node_out() {
    for skew_ms in [-90_000, -3_600_000, 100_000, -40_000_000_000] {
        let mut simulation = settled(8, Weather::Clear, 5);
        simulation.crash(1);
        simulation.run_for(60_000);
        simulation.skew_clock(1, skew_ms);
        simulation.start(1);
        let case = format!("clock off by {skew_ms} ms");
        within(&mut simulation, 2 * SPREAD_MS, &case, |sim| sim.all_know(1));
        always(&mut simulation, 60_000, &case, |sim| sim.all_know(1));
    }
}

#[test]
fn nodes_with_wrong_clocks_make_one_mesh() {
    for seed in 0..3 {
        let mut simulation = Simulation::new(mesh::sim::Settings::new(seed));
        for number in 0..12 {
            let node = simulation.add(mesh::sim::Kind::Serving, &[0]);
            // Up to the two minutes that certificates allow.
            simulation.skew_clock(node, (number - 6) * 20_000);
            simulation.start(node);
            simulation.run_for(100);
        }
        within(&mut simulation, 10_000, "a mesh", |sim| sim.agree());
        simulation.crash(3);
        within(&mut simulation, DEATH_MS, "a death", |sim| sim.all_miss(3));
        simulation.restart(3, Memory::Lost);
        within(&mut simulation, SPREAD_MS, "a return", |sim| {
            sim.all_know(3)
        });
    }
}

#[test]
fn an_expelled_node_is_in_no_table() {
    for seed in 0..3 {
        let mut simulation = settled(12, Weather::Clear, seed);
        simulation.expel(0, 5);
        let unknown = |sim: &mut Simulation| {
            let mut others = sim.running().into_iter().filter(|&node| node != 5);
            others.all(|node| {
                sim.belief(node, 5).is_none() && sim.peers_of(node).iter().all(|&p| p != 5)
            })
        };
        within(&mut simulation, SPREAD_MS, "expelled", unknown);
        // It knocks, and does not get in. What the real node refuses by certificate is refused here
        // by each table.
        always(&mut simulation, 120_000, "expelled for good", |sim| {
            let mut others = sim.running().into_iter().filter(|&node| node != 5);
            others.all(|node| sim.belief(node, 5).is_none())
        });
    }
}
