//! Old news that comes late: nobody returns by it.

use std::sync::Arc;

use mesh::announcement::Signed;
use mesh::proto::{Fact, Item, Message};
use mesh::sim::{Memory, Simulation};

use crate::worlds::{DEATH_MS, SPREAD_MS, Weather, always, settled, within};

/// The last announcement of a node, as a member that runs has it.
fn last_word(simulation: &mut Simulation, of: usize) -> Arc<Signed> {
    let id = simulation.id(of);
    let view = simulation.view(0).unwrap();
    view.member(id).unwrap().signed().clone()
}

/// Every connected pair gets the old announcement again, as if it had just been said.
fn repeat_everywhere(simulation: &mut Simulation, signed: &Arc<Signed>) {
    for to in simulation.running() {
        for from in simulation.peers_of(to) {
            let items = vec![Item {
                fact: Fact::Announced(signed.clone()),
                age_ms: 0,
                urgent: true,
            }];
            simulation.inject(from, to, Message::News { items });
        }
    }
}

#[test]
fn nobody_returns_by_repeated_announcements() {
    for seed in 0..3 {
        for clean in [true, false] {
            let mut simulation = settled(12, Weather::Rough, seed);
            let old = last_word(&mut simulation, 1);
            simulation.change(1, |info| info.name = "renamed".into());
            simulation.run_for(30_000);
            let newer = last_word(&mut simulation, 1);
            if clean {
                simulation.leave(1);
            } else {
                simulation.crash(1);
            }
            let case = format!("clean: {clean}, seed {seed}");
            within(&mut simulation, DEATH_MS + 40_000, &case, |sim| {
                sim.all_miss(1)
            });
            for _ in 0..20 {
                repeat_everywhere(&mut simulation, &old);
                repeat_everywhere(&mut simulation, &newer);
                always(&mut simulation, 20_000, &case, |sim| sim.all_miss(1));
            }
        }
    }
}

#[test]
fn an_old_announcement_does_not_take_the_place_of_a_newer_one() {
    let mut simulation = settled(12, Weather::Clear, 1);
    let old = last_word(&mut simulation, 1);
    simulation.restart(1, Memory::Kept);
    within(&mut simulation, SPREAD_MS, "the return", |sim| {
        sim.all_know(1)
    });
    repeat_everywhere(&mut simulation, &old);
    always(&mut simulation, 30_000, "the new life", |sim| {
        sim.all_know(1)
    });
}

#[test]
fn a_node_that_slept_brings_nobody_back() {
    // Departures are remembered for 31 minutes; announcements hold for up to 30.
    for (nodes, asleep_ms) in [
        (3, 60_000),
        (12, 60_000),
        (12, 600_000),
        (12, 2_400_000),
        (3, 2_400_000),
        (12, 40_000_000),
    ] {
        let mut simulation = settled(nodes, Weather::Clear, 3);
        simulation.pause(0);
        simulation.run_for(1_000);
        simulation.crash(1);
        simulation.run_for(asleep_ms);
        let case = format!("{nodes} nodes, asleep for {asleep_ms} ms");
        let unbelieved = |sim: &mut Simulation| {
            let mut others = sim.running().into_iter().filter(|&node| node != 0);
            others.all(|observer| !sim.believes_alive(observer, 1))
        };
        assert!(unbelieved(&mut simulation), "{case}: dead before");
        simulation.resume(0);
        always(&mut simulation, 180_000, &case, unbelieved);
        assert!(simulation.agree(), "{case}: the sleeper sees it too");
    }
}

#[test]
fn a_sleeper_buries_nobody() {
    for nodes in [2, 3, 12] {
        for asleep_ms in [4_000, 6_000, 30_000, 300_000, 3_000_000] {
            let mut simulation = settled(nodes, Weather::Clear, 3);
            simulation.pause(0);
            simulation.run_for(asleep_ms);
            simulation.resume(0);
            let case = format!("{nodes} nodes, asleep for {asleep_ms} ms");
            let others_stand = |sim: &mut Simulation| {
                let others: Vec<usize> = (1..nodes).collect();
                others
                    .iter()
                    .all(|&one| others.iter().all(|&other| sim.believes_alive(one, other)))
            };
            always(&mut simulation, 120_000, &case, others_stand);
            assert!(simulation.agree(), "{case}: and is back");
        }
    }
}

#[test]
fn a_forged_announcement_costs_the_connection() {
    let mut simulation = settled(6, Weather::Clear, 2);
    let signed = last_word(&mut simulation, 1);
    let mut bytes = signed.bytes().to_vec();
    // The last byte belongs to the signature; the sequence is raised by signing anew as another node.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = Signed::decode(&bytes).unwrap();
    simulation.crash(1);
    within(&mut simulation, DEATH_MS, "the death", |sim| {
        sim.all_miss(1)
    });
    // Forget the death, so that the announcement would be news.
    simulation.run_for(mesh::proto::DEPARTED_MS + 60_000);
    let (to, from) = (2, simulation.peers_of(2)[0]);
    let items = vec![Item {
        fact: Fact::Announced(forged),
        age_ms: 0,
        urgent: true,
    }];
    simulation.inject(from, to, Message::News { items });
    assert!(!simulation.peers_of(to).contains(&from));
    assert!(!simulation.believes_alive(to, 1));
}
