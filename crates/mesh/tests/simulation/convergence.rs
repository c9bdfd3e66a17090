//! Tables become the same: after a start, after a partition.

use mesh::sim::{Kind, Settings, Simulation};

use crate::worlds::{SPREAD_MS, Weather, check_bounds, settled, within};

/// A former member is looked for every ten seconds, and found ones tell the rest; a round is one
/// such search.
const ROUND_MS: u64 = 10_000;

/// Rounds after which halves of a mesh have become one again.
const ROUNDS_MAX: u64 = 6;

#[test]
fn nodes_that_start_together_find_each_other() {
    let check = |nodes: usize, apart_ms: u64, weather: Weather, seed: u64| {
        let mut simulation = Simulation::new(Settings {
            quality: weather.quality(),
            ..Settings::new(seed)
        });
        simulation.grow(nodes, apart_ms);
        let case = format!("{nodes} nodes {apart_ms} ms apart, {weather:?}, seed {seed}");
        within(
            &mut simulation,
            10_000 + weather.spread_ms(),
            &case,
            |sim| sim.agree(),
        );
        check_bounds(&simulation);
    };
    for seed in 0..4 {
        for nodes in [1, 2, 3, 10, 60] {
            for weather in [Weather::Clear, Weather::Rough] {
                check(nodes, 0, weather, seed);
                check(nodes, 300, weather, seed);
            }
        }
    }
}

#[test]
fn a_joiner_is_known_to_all_at_once() {
    for seed in 0..4 {
        for nodes in [1, 5, 30, 100] {
            let mut simulation = settled(nodes, Weather::Clear, seed);
            let joiner = simulation.add(Kind::Serving, &[0]);
            simulation.start(joiner);
            let case = format!("{nodes} nodes, seed {seed}");
            within(&mut simulation, SPREAD_MS, &case, |sim| {
                sim.all_know(joiner)
            });
            // And knows all.
            within(&mut simulation, SPREAD_MS, &case, |sim| sim.agree());
        }
    }
}

#[test]
fn a_joiner_finds_a_mesh_whose_first_node_is_gone() {
    for seed in 0..4 {
        let mut simulation = settled(6, Weather::Clear, seed);
        simulation.leave(0);
        simulation.run_for(5_000);
        let joiner = simulation.add(Kind::Serving, &[0, 3]);
        simulation.start(joiner);
        within(
            &mut simulation,
            15_000,
            "joined by the second name",
            |sim| sim.all_know(joiner),
        );
    }
}

#[test]
fn changes_are_told_urgent_ones_at_once() {
    for (nodes, weather) in [
        (4, Weather::Clear),
        (40, Weather::Clear),
        (40, Weather::Rough),
    ] {
        let mut simulation = settled(nodes, weather, 1);
        let told = |sim: &mut Simulation, what: &dyn Fn(&mesh::announcement::NodeInfo) -> bool| {
            let one = sim.id(1);
            sim.running().into_iter().all(|observer| {
                let view = sim.view(observer).unwrap();
                view.member(one)
                    .is_some_and(|m| what(&m.announcement().info))
            })
        };
        simulation.change(1, |info| info.serving.clear());
        within(
            &mut simulation,
            weather.spread_ms(),
            "a model that goes",
            |sim| told(sim, &|info| info.serving.is_empty()),
        );
        simulation.change(1, |info| info.memory_free_bytes = 77);
        // From neighbour to neighbour by hashes that wait for company.
        let hops_ms = 5 * (mesh::proto::timing::offer_ms(nodes) + 100);
        let routine_ms = mesh::proto::timing::routine_ms(nodes) + hops_ms;
        within(
            &mut simulation,
            routine_ms + weather.spread_ms(),
            "memory",
            |sim| told(sim, &|info| info.memory_free_bytes == 77),
        );
    }
}

#[test]
fn parts_of_a_mesh_become_one_again() {
    let check = |sizes: &[usize], apart_ms: u64, weather: Weather, seed: u64| {
        let mut simulation = settled(sizes.iter().sum(), weather, seed);
        let mut first = 0;
        let parts: Vec<Vec<usize>> = sizes
            .iter()
            .map(|&size| {
                first += size;
                (first - size..first).collect()
            })
            .collect();
        simulation.partition(&parts);
        simulation.run_for(apart_ms);
        simulation.heal();
        let case = format!("{sizes:?} apart for {apart_ms} ms, {weather:?}, seed {seed}");
        let bound_ms = ROUNDS_MAX * ROUND_MS + weather.spread_ms();
        within(&mut simulation, bound_ms, &case, |sim| sim.agree());
        check_bounds(&simulation);
    };
    for seed in 0..3 {
        for apart_ms in [3_000, 20_000, 120_000, 3_000_000] {
            check(&[1, 1], apart_ms, Weather::Clear, seed);
            check(&[1, 5], apart_ms, Weather::Clear, seed);
        }
        check(&[10, 10], 120_000, Weather::Clear, seed);
        check(&[10, 10], 120_000, Weather::Rough, seed);
        check(&[7, 7, 7], 300_000, Weather::Clear, seed);
        check(&[1, 40], 600_000, Weather::Clear, seed);
    }
}

#[test]
fn parts_meet_again_whatever_happened_in_them() {
    for seed in 0..4 {
        let mut simulation = settled(12, Weather::Clear, seed);
        simulation.partition(&[(0..6).collect(), (6..12).collect()]);
        simulation.run_for(60_000);
        simulation.crash(2);
        simulation.leave(7);
        simulation.restart(8, mesh::sim::Memory::Kept);
        let joiner = simulation.add(Kind::Serving, &[1]);
        simulation.start(joiner);
        simulation.run_for(60_000);
        simulation.heal();
        within(
            &mut simulation,
            ROUNDS_MAX * ROUND_MS,
            &format!("seed {seed}"),
            |sim| sim.agree(),
        );
    }
}
