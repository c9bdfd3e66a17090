//! What a node sends, by the size of the mesh.

use mesh::sim::{Kind, Settings, Simulation};

use crate::worlds::{Weather, always, check_bounds, settled};

/// Bytes per second that one node sends in a mesh of `nodes` whose load changes all the time.
fn bytes_per_second(nodes: usize, load_ms: Option<u64>) -> f64 {
    const SECONDS: u64 = 120;
    let mut simulation = Simulation::new(Settings {
        load_ms,
        decode_every: 17,
        watch_queues: false,
        ..Settings::new(1)
    });
    simulation.grow(nodes, 50);
    simulation.run_for(90_000);
    simulation.forget_traffic();
    simulation.run_for(SECONDS * 1_000);
    check_bounds(&simulation);
    simulation.traffic_of(Kind::Serving).bytes as f64 / SECONDS as f64 / nodes as f64
}

#[test]
fn traffic_of_a_node_grows_slower_than_the_mesh() {
    for load_ms in [None, Some(5_000)] {
        let sizes = [10, 100, 300];
        let bytes = sizes.map(|nodes| bytes_per_second(nodes, load_ms));
        for (pair, sent) in sizes.windows(2).zip(bytes.windows(2)) {
            let larger = pair[1] as f64 / pair[0] as f64;
            let more = sent[1] / sent[0];
            // Slower by far: from a hundred nodes on the mesh as a whole says no more than before.
            assert!(
                more < larger * 0.75,
                "{pair:?} nodes send {sent:?} bytes/s each"
            );
        }
    }
}

#[test]
fn a_quiet_node_that_joined_when_the_mesh_was_small_does_not_run_out() {
    let mut simulation = settled(2, Weather::Clear, 1);
    simulation.grow(248, 20);
    // The first announcements hold for four minutes; a mesh of this size renews them every 75 seconds
    // at first and slower when it is larger.
    always(&mut simulation, 400_000, "everybody stays", |sim| {
        (0..2).all(|node| sim.buried_by(node) == 0) && sim.believes_alive(200, 0)
    });
    assert!(simulation.agree());
}

#[test]
fn connections_that_nobody_needs_are_closed() {
    let mut simulation = settled(30, Weather::Clear, 1);
    for from in 0..30 {
        for to in 0..30 {
            if from != to {
                simulation.open(from, to);
            }
        }
        simulation.run_for(100);
    }
    simulation.run_for(60_000);
    for node in 0..30 {
        let neighbours = simulation.neighbours(node).len();
        let peers = simulation.peers_of(node).len();
        assert!(
            peers <= neighbours + 2,
            "node {node}: {peers} connections, {neighbours} neighbours"
        );
    }
    always(&mut simulation, 60_000, "and nobody is missed", |sim| {
        sim.agree()
    });
}
