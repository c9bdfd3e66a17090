use mesh::announcement::Model;

use super::*;
use crate::models::Facts;

const SECOND: u64 = 1_000;
const MODEL: &str = "f1";

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn split(term: u32, stage: SplitStage) -> SplitModel {
    SplitModel {
        model: Model {
            name: "big".into(),
            fingerprint: MODEL.into(),
            ..Model::default()
        },
        slots: 2,
        term,
        stage,
        forced: false,
        host_bytes: 100,
    }
}

/// A small mesh, in which everybody sees everything at once.
struct World {
    now_ms: u64,
    nodes: Vec<Machine>,
}

struct Machine {
    node: NodeId,
    liveness: Liveness,
    info: NodeInfo,
    successor: Successor,
    own: Option<Hosting>,
    /// It began in place of a host that was lost.
    follows: bool,
    willing: bool,
    /// What the machine itself sees of others otherwise than the rest.
    sees: BTreeMap<NodeId, Liveness>,
}

impl World {
    /// So many nodes, all with the model's file and room.
    fn new(nodes: u8) -> Self {
        let nodes = (1..=nodes).map(|number| Machine {
            node: node(number),
            liveness: Liveness::Alive,
            info: NodeInfo {
                memory_free_bytes: 1_000,
                local: vec![split(0, SplitStage::Waiting).model],
                ..NodeInfo::default()
            },
            successor: Successor::default(),
            own: None,
            follows: false,
            willing: true,
            sees: BTreeMap::new(),
        });
        Self {
            now_ms: 0,
            nodes: nodes.collect(),
        }
    }

    fn at(&mut self, number: u8) -> &mut Machine {
        &mut self.nodes[usize::from(number) - 1]
    }

    /// The owner of a node wants it to host the model.
    fn ask(&mut self, number: u8) {
        self.at(number).own = Some(hosting(true));
    }

    /// All decide, several times a second, and do what they decide; models come up within `load_ms`.
    fn run(&mut self, ms: u64, load_ms: u64) {
        let end_ms = self.now_ms + ms;
        let mut began: BTreeMap<NodeId, u64> = BTreeMap::new();
        while self.now_ms < end_ms {
            self.now_ms += 250;
            self.tell();
            for index in 0..self.nodes.len() {
                self.decide(index);
            }
            for machine in &mut self.nodes {
                let Some(own) = machine.own.as_mut().filter(|own| own.term.is_some()) else {
                    began.remove(&machine.node);
                    continue;
                };
                let since = *began.entry(machine.node).or_insert(self.now_ms);
                if own.stage == SplitStage::Coming && self.now_ms >= since + load_ms {
                    own.stage = SplitStage::Ready;
                }
            }
        }
        self.tell();
    }

    fn tell(&mut self) {
        for machine in self
            .nodes
            .iter_mut()
            .filter(|m| m.liveness == Liveness::Alive)
        {
            let own = machine
                .own
                .iter()
                .filter_map(|own| Some((own.term?, own.stage)));
            machine.info.splits = own.map(|(term, stage)| split(term, stage)).collect();
        }
    }

    fn decide(&mut self, index: usize) {
        let infos: Vec<_> = (self.nodes.iter())
            .map(|m| (m.node, m.liveness, m.info.clone()))
            .collect();
        let machine = &mut self.nodes[index];
        if machine.liveness != Liveness::Alive {
            return;
        }
        let members: Vec<_> = (infos.iter())
            .map(|(node, liveness, info)| Member {
                node: *node,
                liveness: machine.sees.get(node).copied().unwrap_or(*liveness),
                may_serve: true,
                info,
            })
            .collect();
        let scene = Scene {
            now_ms: self.now_ms,
            me: machine.node,
            members: &members,
            own: machine.own.iter().cloned().collect(),
            local: machine
                .info
                .local
                .iter()
                .map(|m| m.fingerprint.clone())
                .collect(),
            willing: machine.willing,
        };
        for step in machine.successor.decide(&scene) {
            match (step, &mut machine.own) {
                (Step::Begin { term, follows, .. }, Some(own)) => {
                    if own.term.is_none() {
                        own.stage = SplitStage::Coming;
                        machine.follows = follows;
                    }
                    own.term = Some(term);
                }
                (Step::Yield { .. }, own) => {
                    if own.as_ref().is_some_and(|own| own.asked) {
                        *own = Some(hosting(true));
                    } else {
                        *own = None;
                    }
                }
                (Step::TakeOver { .. }, own) => *own = Some(hosting(false)),
                (step, None) => panic!("{step:?} of nothing"),
            }
        }
    }

    /// The living nodes that host the model.
    fn hosts(&self) -> Vec<u8> {
        let alive = self.nodes.iter().filter(|m| m.liveness == Liveness::Alive);
        let hosts = alive.filter(|m| m.own.as_ref().is_some_and(|own| own.term.is_some()));
        hosts.map(|m| m.node.as_bytes()[0]).collect()
    }

    fn prospect(&self) -> Prospect {
        let members: Vec<_> = (self.nodes.iter())
            .map(|m| Member {
                node: m.node,
                liveness: m.liveness,
                may_serve: true,
                info: &m.info,
            })
            .collect();
        prospect(&members, MODEL)
    }
}

fn hosting(asked: bool) -> Hosting {
    Hosting {
        id: 7,
        name: "big".into(),
        facts: Facts {
            fingerprint: MODEL.into(),
            ..Facts::default()
        },
        asked,
        term: None,
        stage: SplitStage::Waiting,
    }
}

/// A world in which node 1 hosts the model.
fn hosted(nodes: u8) -> World {
    let mut world = World::new(nodes);
    world.ask(1);
    world.run(10 * SECOND, SECOND);
    assert_eq!(world.hosts(), [1]);
    assert_eq!(world.prospect(), Prospect::Coming);
    world
}

#[test]
fn a_joiner_claims_a_model_once_it_knows_the_others() {
    for (nodes, hosts_after_s) in [(2, 1), (8, 1), (1, 2)] {
        let mut world = World::new(nodes);
        world.ask(1);
        world.run(hosts_after_s * SECOND - SECOND / 2, SECOND);
        assert!(world.hosts().is_empty(), "{nodes}");
        world.run(SECOND / 2, SECOND);
        assert_eq!(world.hosts(), [1], "{nodes}");
    }
}

#[test]
fn one_node_takes_over_and_an_old_host_that_returns_leaves_it_to_that() {
    for nodes in 2..9 {
        let mut world = hosted(nodes);
        world.at(1).liveness = Liveness::Dead;
        world.run(SECOND, 10 * SECOND);
        let heirs = world.hosts();
        assert_eq!(heirs.len(), 1, "{heirs:?} of {nodes}");
        world.run(60 * SECOND, 10 * SECOND);
        assert_eq!(world.hosts(), heirs, "nobody else does");
        assert_eq!(world.prospect(), Prospect::Coming);
        // It was only cut off, or asleep, and believes that it is the host.
        world.at(1).liveness = Liveness::Alive;
        world.run(10 * SECOND, SECOND);
        assert_eq!(world.hosts(), heirs);
        // It is the next one when that is lost.
        let heir = heirs[0];
        world.at(heir).liveness = Liveness::Left;
        world.run(60 * SECOND, SECOND);
        assert_eq!(world.hosts().len(), 1);
        assert_ne!(world.hosts(), heirs);
    }
}

#[test]
fn a_host_that_was_started_anew_waits_for_its_turn() {
    let mut world = hosted(3);
    world.at(1).liveness = Liveness::Dead;
    world.run(20 * SECOND, SECOND);
    let heirs = world.hosts();
    let machine = world.at(1);
    machine.liveness = Liveness::Alive;
    machine.successor = Successor::default();
    machine.own = Some(hosting(true));
    world.run(60 * SECOND, SECOND);
    assert_eq!(world.hosts(), heirs);
}

#[test]
fn streams_wait_for_whoever_follows_a_lost_host_and_not_for_whoever_begins_anew() {
    let mut world = hosted(3);
    assert!(!world.at(1).follows);
    // Its owner drops it and wants it again.
    world.at(1).own = None;
    world.run(2 * SECOND, SECOND);
    world.ask(1);
    world.run(10 * SECOND, SECOND);
    assert_eq!(world.hosts(), [1]);
    let term = world.at(1).own.as_ref().and_then(|own| own.term);
    assert_eq!(term, Some(2), "others have seen the first one");
    assert!(!world.at(1).follows);
    world.at(1).liveness = Liveness::Dead;
    world.run(20 * SECOND, SECOND);
    let heirs = world.hosts();
    assert_eq!(heirs.len(), 1, "what came back has heirs as before");
    assert!(world.at(heirs[0]).follows);
    // The heir's owner does the same while the lost host is still known.
    let now_ms = world.now_ms;
    world.at(heirs[0]).own = None;
    world.at(heirs[0]).successor.dropped("big", now_ms);
    world.run(2 * SECOND, SECOND);
    assert!(world.hosts().is_empty());
    world.ask(heirs[0]);
    world.run(10 * SECOND, SECOND);
    assert_eq!(world.hosts(), heirs);
    assert!(!world.at(heirs[0]).follows);
}

#[test]
fn who_was_asked_for_a_model_follows_its_host_once_that_is_lost() {
    let mut world = hosted(2);
    world.ask(2);
    world.run(5 * SECOND, SECOND);
    assert_eq!(world.hosts(), [1]);
    world.at(1).liveness = Liveness::Dead;
    world.run(20 * SECOND, SECOND);
    assert_eq!(world.hosts(), [2]);
    assert!(world.at(2).follows);
}

#[test]
fn streams_wait_for_nobody_in_place_of_a_host_that_ran_nothing() {
    let mut world = hosted(2);
    world.ask(2);
    world.run(5 * SECOND, SECOND);
    if let Some(own) = &mut world.at(1).own {
        own.stage = SplitStage::Waiting;
    }
    world.run(SECOND, SECOND);
    world.at(1).liveness = Liveness::Dead;
    world.run(20 * SECOND, SECOND);
    assert_eq!(world.hosts(), [2]);
    assert!(!world.at(2).follows);
}

#[test]
fn the_next_one_takes_over_if_the_first_does_not() {
    let mut world = hosted(4);
    world.at(1).liveness = Liveness::Dead;
    // The first heir's owner wants none of it.
    let first = heirs_of(&world)[0].as_bytes()[0];
    world.at(first).willing = false;
    world.run(30 * SECOND, SECOND);
    assert_eq!(world.hosts().len(), 1);
    assert_ne!(world.hosts(), [first]);
}

fn heirs_of(world: &World) -> Vec<NodeId> {
    let members: Vec<_> = (world.nodes.iter())
        .map(|m| Member {
            node: m.node,
            liveness: m.liveness,
            may_serve: true,
            info: &m.info,
        })
        .collect();
    heirs(&members, MODEL, 100)
}

#[test]
fn heirs_with_room_come_first_and_all_compute_the_same_order() {
    let mut world = World::new(6);
    world.at(3).info.memory_free_bytes = 50;
    world.at(4).liveness = Liveness::Suspect;
    world.at(5).info.local.clear();
    let order = heirs_of(&world);
    assert_eq!(order.len(), 4);
    assert_eq!(order[3], node(3));
    world.nodes.reverse();
    assert_eq!(heirs_of(&world), order);
}

#[test]
fn a_silent_host_has_time_to_object() {
    let mut world = hosted(3);
    world.at(1).liveness = Liveness::Suspect;
    world.run(3 * SECOND, SECOND);
    assert!(world.hosts().is_empty());
    world.at(1).liveness = Liveness::Alive;
    world.run(60 * SECOND, SECOND);
    assert_eq!(world.hosts(), [1]);
    world.at(1).liveness = Liveness::Suspect;
    world.run(5 * SECOND, SECOND);
    assert_eq!(world.hosts().len(), 1);
}

#[test]
fn a_host_that_was_missed_for_a_moment_only_stays() {
    let mut world = hosted(3);
    let heir = heirs_of(&world).into_iter().find(|heir| *heir != node(1));
    let heir = heir.unwrap().as_bytes()[0];
    // One node alone has lost sight of it, and begins to load.
    world.at(heir).sees.insert(node(1), Liveness::Dead);
    world.run(5 * SECOND, 60 * SECOND);
    assert_eq!(world.hosts().len(), 2);
    world.at(heir).sees.clear();
    world.run(5 * SECOND, 60 * SECOND);
    assert_eq!(world.hosts(), [1]);
    // And once it is really gone, it has a successor again.
    world.at(1).liveness = Liveness::Dead;
    world.run(20 * SECOND, SECOND);
    assert_eq!(world.hosts().len(), 1);
}

#[test]
fn of_two_hosts_that_run_after_a_partition_one_gives_way() {
    let mut world = hosted(4);
    for number in 2..=4 {
        world.at(number).sees.insert(node(1), Liveness::Dead);
        world.at(1).sees.insert(node(number), Liveness::Dead);
    }
    world.run(30 * SECOND, SECOND);
    assert_eq!(world.hosts().len(), 2);
    for machine in &mut world.nodes {
        machine.sees.clear();
    }
    world.run(5 * SECOND, SECOND);
    assert_eq!(world.hosts().len(), 1);
    assert_ne!(world.hosts(), [1], "the newer one stays");
}

#[test]
fn two_nodes_that_are_told_at_once_agree() {
    let mut world = World::new(3);
    world.ask(1);
    world.ask(2);
    world.run(20 * SECOND, SECOND);
    assert_eq!(world.hosts().len(), 1);
}

#[test]
fn what_was_dropped_or_never_ran_is_not_taken_over() {
    let mut world = hosted(3);
    world.at(1).own = None;
    world.run(30 * SECOND, SECOND);
    assert!(world.hosts().is_empty());
    // A successor drops it while the first host is still known as dead.
    let mut world = hosted(3);
    world.at(1).liveness = Liveness::Dead;
    world.run(20 * SECOND, SECOND);
    let heir = world.hosts()[0];
    let now_ms = world.now_ms;
    world.at(heir).own = None;
    world.at(heir).successor.dropped("big", now_ms);
    world.run(60 * SECOND, SECOND);
    assert!(world.hosts().is_empty());
    // One that waited for memory in vain.
    let mut world = World::new(3);
    world.ask(1);
    world.run(3 * SECOND, 60 * SECOND);
    world.at(1).own.as_mut().unwrap().stage = SplitStage::Waiting;
    world.run(SECOND, 60 * SECOND);
    world.at(1).liveness = Liveness::Dead;
    world.run(60 * SECOND, SECOND);
    assert!(world.hosts().is_empty());
}

#[test]
fn whoever_waits_is_told_what_to_hope_for() {
    let mut world = World::new(2);
    assert_eq!(world.prospect(), Prospect::Whole);
    world.ask(1);
    world.run(10 * SECOND, SECOND);
    world.at(2).info.local.clear();
    assert_eq!(world.prospect(), Prospect::Coming);
    world.at(1).info.splits[0].stage = SplitStage::Waiting;
    assert_eq!(world.prospect(), Prospect::Stuck);
    world.at(1).liveness = Liveness::Suspect;
    assert_eq!(world.prospect(), Prospect::Stuck);
    world.at(1).liveness = Liveness::Dead;
    assert_eq!(world.prospect(), Prospect::Nobody);
    world.at(2).info.local = vec![split(0, SplitStage::Waiting).model];
    assert_eq!(world.prospect(), Prospect::Coming);
}
