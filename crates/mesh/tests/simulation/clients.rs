//! Nodes that pull the table: they know what the others know, and cost next to nothing.

use mesh::announcement::NodeState;
use mesh::proto::{PULL_AGAIN_MS_MIN, PULL_MS, PULL_MS_MAX, PULLS_PER_SECOND};
use mesh::sim::survey::client_cost;
use mesh::sim::{IDLE_MS, Kind, Memory, Simulation};

use crate::worlds::{DEATH_MS, SPREAD_MS, Weather, always, check_bounds, settled, within};

fn with_clients(servers: usize, clients: usize, seed: u64) -> Simulation {
    let mut simulation = settled(servers, Weather::Clear, seed);
    for client in 0..clients {
        let client = simulation.add(Kind::Client, &[client % servers]);
        simulation.start(client);
    }
    within(&mut simulation, SPREAD_MS, "clients know all", |sim| {
        sim.agree()
    });
    simulation
}

#[test]
fn clients_know_what_changes_by_their_next_pull() {
    for seed in 0..3 {
        let mut simulation = with_clients(6, 20, seed);
        let pull_ms = PULL_MS * 11 / 10 + SPREAD_MS;
        let case = format!("seed {seed}");
        simulation.leave(1);
        within(&mut simulation, pull_ms, &case, |sim| sim.all_miss(1));
        simulation.crash(2);
        within(&mut simulation, DEATH_MS + pull_ms, &case, |sim| {
            sim.all_miss(2)
        });
        simulation.start(1);
        within(&mut simulation, pull_ms, &case, |sim| sim.agree());
        always(&mut simulation, 60_000, &case, |sim| sim.agree());
        check_bounds(&simulation);
    }
}

#[test]
fn a_client_that_just_came_soon_hears_what_comes_with_it() {
    for seed in 0..3 {
        let mut simulation = settled(2, Weather::Clear, seed);
        let client = simulation.add(Kind::Client, &[0]);
        simulation.start(client);
        // Long enough to have pulled once, and then a member comes.
        simulation.run_for(300);
        let late = simulation.add(Kind::Serving, &[0]);
        simulation.start(late);
        let case = format!("seed {seed}");
        within(&mut simulation, PULL_AGAIN_MS_MIN * 3, &case, |sim| {
            sim.agree()
        });
    }
}

#[test]
fn clients_outlive_their_servers() {
    for seed in 0..3 {
        let mut simulation = with_clients(4, 10, seed);
        // One after the other all servers restart and know nothing.
        for server in 0..4 {
            simulation.restart(server, Memory::Lost);
            simulation.run_for(30_000);
        }
        let case = format!("seed {seed}");
        within(&mut simulation, PULL_MS * 2, &case, |sim| sim.agree());
        // All at once, for a while.
        for server in 0..4 {
            simulation.crash(server);
        }
        simulation.run_for(120_000);
        for server in 0..4 {
            simulation.start(server);
        }
        within(&mut simulation, 60_000, &case, |sim| sim.agree());
    }
}

/// A laptop: it wakes up with connections that nobody knows any more and a table of long ago.
#[test]
fn a_client_that_was_suspended_soon_knows_what_is_there() {
    /// For its dead connections to be given up, and one pull.
    const AWAKE_MS_MAX: u64 = IDLE_MS + PULL_AGAIN_MS_MIN + SPREAD_MS;
    for asleep_ms in [10_000, 60_000, 3_600_000] {
        let mut simulation = with_clients(4, 3, 1);
        let client = 4;
        simulation.pause(client);
        simulation.crash(1);
        let late = simulation.add(Kind::Serving, &[0]);
        simulation.start(late);
        simulation.run_for(asleep_ms + DEATH_MS);
        simulation.resume(client);
        let case = format!("asleep for {asleep_ms} ms");
        within(&mut simulation, AWAKE_MS_MAX, &case, |sim| sim.agree());
        always(&mut simulation, 60_000, &case, |sim| sim.agree());
    }
}

#[test]
fn a_server_that_just_started_takes_no_member_from_its_clients_for_good() {
    for seed in 0..3 {
        let mut simulation = with_clients(5, 6, seed);
        let others = [1, 2, 3, 4];
        // The first server restarts where it reaches the clients only, and they reach nobody else.
        let clients: Vec<usize> = (5..11).collect();
        simulation.partition(&[[0].into_iter().chain(clients).collect(), others.to_vec()]);
        simulation.restart(0, Memory::Lost);
        simulation.run_for(60_000);
        simulation.heal();
        within(&mut simulation, 60_000, &format!("seed {seed}"), |sim| {
            sim.agree()
        });
    }
}

#[test]
fn an_idle_node_that_begins_to_serve_brings_nobody_down() {
    for idle_ms in [1_000, 60_000, 3_600_000] {
        let mut simulation = settled(6, Weather::Clear, 1);
        let idle = simulation.add(Kind::Idle, &[0]);
        simulation.start(idle);
        simulation.run_for(idle_ms);
        let case = format!("idle for {idle_ms} ms");
        assert!(simulation.agree(), "{case}");
        let lives = |sim: &Simulation| -> Vec<u64> {
            (0..6)
                .map(|n| sim.belief(n, n).unwrap().incarnation)
                .collect()
        };
        let before = lives(&simulation);
        simulation.set_state(idle, NodeState::Serving);
        within(&mut simulation, SPREAD_MS, &case, |sim| sim.agree());
        always(&mut simulation, 60_000, &case, |sim| sim.agree());
        assert_eq!(lives(&simulation), before, "{case}: nobody had to object");
        simulation.set_state(idle, NodeState::Idle);
        within(&mut simulation, SPREAD_MS, &case, |sim| sim.all_miss(idle));
        simulation.run_for(PULL_MS * 2);
        assert!(simulation.agree(), "{case}: it pulls again");
    }
}

#[test]
fn hundreds_of_clients_cost_next_to_nothing() {
    /// Bytes of a pull, and of the answer that nothing changed, with what frames them.
    const PULL_BYTES_MAX: f64 = 128.0;
    const ANSWER_BYTES_MAX: f64 = 80.0;
    for (servers, clients) in [(2, 40), (3, 300), (8, 400)] {
        let cost = client_cost(servers, clients, 10, 1);
        let pulls_per_client = 1_000.0 / PULL_MS as f64;
        assert!(
            cost.client_bytes <= PULL_BYTES_MAX * pulls_per_client,
            "{cost:?}"
        );
        let pulls = (clients as f64 / servers as f64 * pulls_per_client)
            .min(PULLS_PER_SECOND as f64)
            .max(1_000.0 / PULL_MS_MAX as f64);
        // Twice: clients choose their servers by chance.
        assert!(
            cost.server_bytes <= 2.0 * ANSWER_BYTES_MAX * pulls,
            "{cost:?}"
        );
    }
}
