//! Links that come and go, or work in one direction only.

use mesh::sim::Simulation;

use crate::worlds::{DEATH_MS, SPREAD_MS, Weather, always, check_bounds, settled, within};

/// Whether nobody has declared node 1 dead, and it nobody.
fn nobody_is_buried(sim: &mut Simulation) -> bool {
    let subjects = sim.running();
    subjects
        .into_iter()
        .all(|subject| sim.buried_by(subject) == 0)
}

#[test]
fn wifi_that_flaps_for_a_minute_expels_nobody() {
    for seed in 0..4 {
        for nodes in [2, 4, 20] {
            for (off_ms, on_ms) in [
                (2_000, 2_000),
                (6_000, 3_000),
                (9_000, 4_000),
                (12_000, 6_000),
            ] {
                let mut simulation = settled(nodes, Weather::Clear, seed);
                let case = format!("{nodes} nodes, {off_ms} ms off and {on_ms} on, seed {seed}");
                for _ in 0..60_000 / (off_ms + on_ms) {
                    simulation.set_offline(1, true);
                    always(&mut simulation, off_ms, &case, nobody_is_buried);
                    simulation.set_offline(1, false);
                    always(&mut simulation, on_ms, &case, nobody_is_buried);
                }
                always(&mut simulation, 30_000, &case, nobody_is_buried);
                within(&mut simulation, SPREAD_MS, &case, |sim| sim.agree());
                check_bounds(&simulation);
            }
        }
    }
}

#[test]
fn what_a_suspect_says_is_heard() {
    for seed in 0..4 {
        let mut simulation = settled(10, Weather::Clear, seed);
        // Long enough to be suspected, too short to be dead.
        simulation.set_offline(1, true);
        simulation.run_for(10_000);
        simulation.change(1, |info| info.serving.clear());
        simulation.set_offline(1, false);
        let one = simulation.id(1);
        within(&mut simulation, 12_000, &format!("seed {seed}"), |sim| {
            sim.running().into_iter().all(|observer| {
                let view = sim.view(observer).unwrap();
                view.member(one)
                    .is_some_and(|m| m.is_alive() && m.announcement().info.serving.is_empty())
            })
        });
    }
}

#[test]
fn a_node_that_was_off_for_a_minute_is_back_at_once() {
    for seed in 0..4 {
        for nodes in [2, 4, 20] {
            for off_ms in [20_000, 40_000, 60_000] {
                let mut simulation = settled(nodes, Weather::Clear, seed);
                simulation.set_offline(1, true);
                simulation.run_for(off_ms);
                simulation.set_offline(1, false);
                let case = format!("{nodes} nodes, {off_ms} ms off, seed {seed}");
                within(&mut simulation, 20_000, &case, |sim| sim.agree());
                always(&mut simulation, 60_000, &case, |sim| sim.agree());
            }
        }
    }
}

#[test]
fn a_link_that_is_broken_in_one_direction_expels_nobody() {
    for seed in 0..4 {
        let mut simulation = settled(8, Weather::Clear, seed);
        let case = format!("seed {seed}");
        for to in simulation.peers_of(1) {
            simulation.block(1, to);
            always(&mut simulation, 40_000, &case, nobody_is_buried);
            simulation.unblock(1, to);
        }
        always(&mut simulation, 40_000, &case, nobody_is_buried);
    }
}

#[test]
fn two_who_cannot_reach_each_other_live_on_in_one_mesh() {
    for seed in 0..4 {
        let mut simulation = settled(6, Weather::Clear, seed);
        for (from, to) in [(1, 2), (2, 1), (3, 4), (4, 3), (1, 5), (5, 1)] {
            simulation.block(from, to);
        }
        always(
            &mut simulation,
            300_000,
            &format!("seed {seed}"),
            nobody_is_buried,
        );
        simulation.crash(5);
        within(&mut simulation, DEATH_MS, "a real death", |sim| {
            sim.all_miss(5)
        });
    }
}

#[test]
fn a_node_that_hears_and_is_not_heard_is_missed_and_comes_back() {
    for seed in 0..4 {
        let mut simulation = settled(8, Weather::Clear, seed);
        for other in (0..8).filter(|&other| other != 1) {
            simulation.block(1, other);
        }
        let case = format!("seed {seed}");
        within(&mut simulation, DEATH_MS, &case, |sim| {
            (0..8).all(|observer| observer == 1 || !sim.believes_alive(observer, 1))
        });
        for other in (0..8).filter(|&other| other != 1) {
            simulation.unblock(1, other);
        }
        within(&mut simulation, 20_000, &case, |sim| sim.agree());
    }
}

#[test]
fn a_pause_shorter_than_a_death_is_forgiven() {
    for seed in 0..3 {
        for nodes in [2, 8] {
            for pause_ms in [1_000, 4_500, 6_000, 12_000] {
                let mut simulation = settled(nodes, Weather::Clear, seed);
                let case = format!("{nodes} nodes, {pause_ms} ms, seed {seed}");
                simulation.pause(1);
                always(&mut simulation, pause_ms, &case, nobody_is_buried);
                simulation.resume(1);
                always(&mut simulation, 60_000, &case, nobody_is_buried);
                assert!(simulation.agree(), "{case}");
            }
        }
    }
}
