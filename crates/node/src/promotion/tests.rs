use super::*;

const SECOND: u64 = 1_000;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn member(number: u8, serving: &[&str], local: &[&str]) -> Member {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Member {
        node: node(number),
        standby: serving.is_empty(),
        serving: names(serving),
        local: disk(local, true),
    }
}

/// Models on a disk, all with room in memory or none.
fn disk(models: &[&str], has_room: bool) -> Disk {
    let models = models.iter().map(|name| ((*name).to_owned(), has_room));
    models.collect()
}

/// The scene of node 1 at the start.
fn scene(members: Vec<Member>, fitting: &[(&str, u64)]) -> Scene {
    Scene {
        now_ms: 0,
        me: node(1),
        members,
        fitting: (fitting.iter())
            .map(|(name, size_bytes)| Fitting {
                name: (*name).to_owned(),
                size_bytes: *size_bytes,
            })
            .collect(),
        demand: BTreeMap::new(),
        willing: true,
        wants_assignment: false,
    }
}

fn asked_for(mut scene: Scene, demand: &[(&str, f32)]) -> Scene {
    scene.demand = demand
        .iter()
        .map(|(name, rate)| ((*name).to_owned(), *rate))
        .collect();
    scene
}

/// Lets the time pass in steps of a second, from `from` to `to`; gives the first decision.
fn run(
    promoter: &mut Promoter,
    scene: &Scene,
    seconds: std::ops::Range<u64>,
) -> Option<(u64, String, Reason)> {
    for second in seconds {
        let now = Scene {
            now_ms: second * SECOND,
            ..scene.clone()
        };
        if let Some((model, reason)) = promoter.decide(&now) {
            return Some((second, model, reason));
        }
    }
    None
}

#[test]
fn a_joiner_is_given_what_the_mesh_lacks_most() {
    let check = |others: Vec<Member>, demand: &[(&str, f32)], given: Option<&str>| {
        let mut members = vec![member(1, &[], &["a", "b", "big"])];
        members.extend(others);
        let fitting = [("a", 10), ("b", 10), ("big", 70)];
        let mut scene = asked_for(scene(members, &fitting), demand);
        scene.wants_assignment = true;
        let given_now = run(&mut Promoter::default(), &scene, 0..6);
        let told = given_now.map(|(_, model, reason)| {
            assert_eq!(reason, Reason::Assigned);
            model
        });
        assert_eq!(told.as_deref(), given, "{scene:?}");
    };
    // The largest, where nothing is served or asked for.
    check(vec![], &[], Some("big"));
    check(vec![member(2, &["big"], &[])], &[], Some("a"));
    // Asked for and not served.
    check(vec![member(2, &["big"], &[])], &[("b", 3.0)], Some("b"));
    // All served: the one with the most demand for each server.
    let all = vec![member(2, &["a", "b"], &[]), member(3, &["big"], &[])];
    check(all.clone(), &[("a", 5.0), ("big", 2.0)], Some("a"));
    check(all, &[], Some("big"));
    let two = vec![
        member(2, &["a", "b", "big"], &[]),
        member(3, &["big", "a"], &[]),
    ];
    check(two, &[], Some("b"));
    // Only once, and not before the table is there.
    let mut lonely = scene(vec![member(1, &[], &["a"])], &[("a", 1)]);
    lonely.wants_assignment = true;
    let mut promoter = Promoter::default();
    assert_eq!(run(&mut promoter, &lonely, 0..1), None);
    assert!(run(&mut promoter, &lonely, 1..5).is_some());
    assert_eq!(run(&mut promoter, &lonely, 5..100), None);
    // Nothing fits: it stays on standby.
    let mut poor = scene(vec![member(1, &[], &["a"])], &[]);
    poor.wants_assignment = true;
    assert_eq!(run(&mut Promoter::default(), &poor, 0..100), None);
}

#[test]
fn a_lost_model_comes_back_within_a_minute_on_one_node() {
    // Nodes 1 to 8 could run it.
    let all: Vec<Member> = (1..=8).map(|number| member(number, &[], &["m"])).collect();
    let served = [all.clone(), vec![member(9, &["m"], &["m"])]].concat();
    let mut first = Vec::new();
    for number in 1..=8 {
        let at = |members: &[Member]| Scene {
            me: node(number),
            ..scene(members.to_vec(), &[("m", 1)])
        };
        let mut promoter = Promoter::default();
        assert_eq!(run(&mut promoter, &at(&served), 0..100), None);
        let (second, model, reason) = run(&mut promoter, &at(&all), 100..200).unwrap();
        assert_eq!((model.as_str(), reason), ("m", Reason::Lost));
        assert!(second < 160, "node {number} acts after {} s", second - 100);
        first.push(second);
    }
    first.sort_unstable();
    // The first is done long before the second would act.
    assert!(
        first
            .windows(2)
            .all(|pair| pair[1] >= pair[0] + TURN_MS / SECOND),
        "{first:?}"
    );

    // If the first takes it up, the others do not.
    let mut promoter = Promoter::default();
    assert_eq!(
        run(&mut promoter, &scene(served.clone(), &[("m", 1)]), 0..10),
        None
    );
    let taken = [all, vec![member(20, &["m"], &[])]].concat();
    assert_eq!(
        run(&mut promoter, &scene(taken, &[("m", 1)]), 10..300),
        None
    );
}

/// The second at which node `number` takes up `m`, which was last served at second 9 by a node that is
/// gone since. `members`: those that stay.
fn takes_up_m(number: u8, members: &[Member]) -> u64 {
    let served = [members.to_vec(), vec![member(99, &["m"], &["m"])]].concat();
    let at = |members: Vec<Member>| Scene {
        me: node(number),
        ..scene(members, &[("m", 1)])
    };
    let mut promoter = Promoter::default();
    assert_eq!(run(&mut promoter, &at(served), 0..10), None);
    let taken = run(&mut promoter, &at(members.to_vec()), 10..200);
    let (second, model, reason) = taken.unwrap();
    assert_eq!((model.as_str(), reason), ("m", Reason::Lost));
    second
}

#[test]
fn whatever_the_turn_a_lost_model_comes_back_within_a_minute() {
    // More than there are turns.
    let all: Vec<Member> = (1..=40).map(|number| member(number, &[], &["m"])).collect();
    let mut seconds: Vec<u64> = (1..=40).map(|number| takes_up_m(number, &all)).collect();
    seconds.sort_unstable();
    // The first need not wait for anybody.
    assert_eq!(seconds[0], 9 + LOST_MS / SECOND);
    // From the death, which is known only later, until the last one's turn.
    let known_for_ms = (seconds[39] - 9) * SECOND;
    assert!(DEATH_MS + known_for_ms + LOOK_MS <= TAKEN_UP_MS);
}

#[test]
fn who_has_no_room_holds_nobody_up() {
    // Only one of them has room, and acts at once, whatever the order of the others.
    for able in 1..=8 {
        let members: Vec<Member> = (1..=8)
            .map(|number| Member {
                local: disk(&["m"], number == able),
                ..member(number, &[], &[])
            })
            .collect();
        assert_eq!(takes_up_m(able, &members), 9 + LOST_MS / SECOND, "{able}");
        // Those that could act in another way come after it, one by one.
        let mut others: Vec<u64> = (1..=8)
            .filter(|number| *number != able)
            .map(|number| takes_up_m(number, &members))
            .collect();
        others.sort_unstable();
        others.dedup();
        assert_eq!(others.len(), 7);
        assert_eq!(others[0], 9 + (LOST_MS + TURN_MS) / SECOND);
    }
    // Room counts for more than standby.
    let serves = member(1, &["other"], &["m"]);
    let full = Member {
        local: disk(&["m"], false),
        ..member(2, &[], &[])
    };
    assert_eq!(takes_up_m(1, &[serves, full]), 9 + LOST_MS / SECOND);
}

#[test]
fn of_two_lost_models_the_second_does_not_wait_for_the_first() {
    let models = [("large", 2), ("small", 1)];
    let names = ["large", "small"];
    let members = |mine: &[&str], others: &[&str]| {
        let mut members = vec![member(1, mine, &names)];
        if !others.is_empty() {
            members.push(member(2, others, &[]));
        }
        scene(members, &models)
    };
    let mut promoter = Promoter::default();
    let up = members(&[], &names);
    assert_eq!(run(&mut promoter, &up, 0..10), None);
    let lost = |second: u64, model: &str| Some((second, model.to_owned(), Reason::Lost));
    assert_eq!(
        run(&mut promoter, &members(&[], &[]), 10..100),
        lost(17, "large")
    );
    // As soon as the first one is loaded.
    assert_eq!(
        run(&mut promoter, &members(&["large"], &[]), 20..100),
        lost(20, "small")
    );

    // Where loading fails, each is tried once a minute.
    let mut promoter = Promoter::default();
    assert_eq!(run(&mut promoter, &up, 0..10), None);
    let down = members(&[], &[]);
    assert_eq!(run(&mut promoter, &down, 10..18), lost(17, "large"));
    assert_eq!(run(&mut promoter, &down, 18..100), lost(18, "small"));
    assert_eq!(run(&mut promoter, &down, 19..100), lost(77, "large"));
}

#[test]
fn a_node_that_took_up_a_lost_model_leaves_hot_ones_alone_for_a_while() {
    let mine = member(1, &[], &["lost", "hot"]);
    let fitting = [("lost", 1), ("hot", 1)];
    let others = member(2, &["lost", "hot", "cold"], &[]);
    let rest_of_them = member(2, &["hot", "cold"], &[]);
    let demand = [("hot", 90.0), ("cold", 1.0)];
    let mut promoter = Promoter::default();
    let up = scene(vec![mine.clone(), others], &fitting);
    assert_eq!(run(&mut promoter, &up, 0..10), None);
    let down = asked_for(scene(vec![mine, rest_of_them], &fitting), &demand);
    let (second, model, reason) = run(&mut promoter, &down, 10..100).unwrap();
    assert_eq!((model.as_str(), reason), ("lost", Reason::Lost));
    let (later, model, reason) = run(&mut promoter, &down, second + 1..200).unwrap();
    assert_eq!((model.as_str(), reason), ("lost", Reason::Lost));
    assert_eq!(later, second + REST_MS / SECOND);
}

#[test]
fn a_host_that_restarts_does_not_wake_the_others() {
    let mine = member(1, &[], &["m"]);
    let up = scene(vec![mine.clone(), member(2, &["m"], &[])], &[("m", 1)]);
    let down = scene(vec![mine], &[("m", 1)]);
    let mut promoter = Promoter::default();
    for round in 0..20 {
        let start = round * 12;
        assert_eq!(run(&mut promoter, &up, start..start + 5), None);
        assert_eq!(run(&mut promoter, &down, start + 5..start + 12), None);
    }
}

#[test]
fn only_what_was_served_can_be_lost() {
    let scene = scene(vec![member(1, &[], &["m"])], &[("m", 1)]);
    assert_eq!(run(&mut Promoter::default(), &scene, 0..1_000), None);
}

#[test]
fn a_hot_model_gets_another_server_and_then_no_more() {
    let members = |serving_m: &[u8]| {
        let mut all = vec![member(9, &["cold"], &[])];
        all.extend((1..=3).map(|number| {
            let serving: &[&str] = if serving_m.contains(&number) {
                &["m"]
            } else {
                &[]
            };
            member(number, serving, &["m"])
        }));
        all
    };
    let check = |serving: &[u8], demand: &[(&str, f32)], acts: bool| {
        let scene = asked_for(scene(members(serving), &[("m", 1)]), demand);
        let decision = run(&mut Promoter::default(), &scene, 0..120);
        assert_eq!(decision.is_some(), acts, "{serving:?} {demand:?}");
        if let Some((second, _, reason)) = decision {
            assert_eq!(reason, Reason::Hot);
            assert!(second >= HOT_MS / SECOND);
        }
    };
    check(&[2], &[("m", 30.0), ("cold", 5.0)], true);
    check(&[2], &[("m", 9.0)], false);
    check(&[2], &[("m", 30.0), ("cold", 11.0)], false);
    // With a second server, each has 15 a minute: still hot; with three, none is left on standby.
    check(&[2, 3], &[("m", 30.0), ("cold", 5.0)], true);
    check(&[2, 3], &[("m", 30.0), ("cold", 6.0)], false);
    // Asked for, and nobody serves it.
    check(&[], &[("m", 30.0), ("cold", 5.0)], true);
    check(&[], &[("m", 9.0), ("cold", 1.0)], false);
    // A node that runs something already leaves it to others.
    check(&[1, 2], &[("m", 300.0)], false);
}

#[test]
fn demand_that_comes_and_goes_does_not_flap() {
    let members = vec![member(1, &[], &["m"]), member(2, &["m"], &[])];
    let hot = asked_for(scene(members.clone(), &[("m", 1)]), &[("m", 30.0)]);
    let cool = asked_for(scene(members, &[("m", 1)]), &[("m", 3.0)]);
    let mut promoter = Promoter::default();
    for round in 0..20 {
        let start = round * 20;
        assert_eq!(run(&mut promoter, &hot, start..start + 15), None);
        assert_eq!(run(&mut promoter, &cool, start + 15..start + 20), None);
    }
    // After it acted it rests, whatever happens.
    let (second, ..) = run(&mut promoter, &hot, 400..500).unwrap();
    assert_eq!(
        run(&mut promoter, &hot, second + 1..second + REST_MS / SECOND),
        None
    );
}

#[test]
fn what_was_dropped_by_hand_stays_away() {
    let mine = member(1, &[], &["m"]);
    let served = scene(vec![mine.clone(), member(2, &["m"], &[])], &[("m", 1)]);
    let lost = scene(vec![mine], &[("m", 1)]);
    let mut promoter = Promoter::default();
    run(&mut promoter, &served, 0..5);
    promoter.dropped("m", None, 5 * SECOND);
    assert_eq!(run(&mut promoter, &lost, 5..600), None);
    assert!(run(&mut promoter, &lost, 600..700).is_some());
    // A client, or a node that was told not to, never does.
    let unwilling = Scene {
        willing: false,
        ..lost
    };
    assert_eq!(run(&mut promoter, &unwilling, 700..2_000), None);
}

#[test]
fn what_was_dropped_by_hand_is_known_by_its_content() {
    let mut promoter = Promoter::default();
    let idle = scene(vec![member(1, &[], &["other"])], &[("other", 1)]);
    promoter.dropped("six", Some("f".into()), 5 * SECOND);
    promoter.dropped("seven", None, 5 * SECOND);
    assert!(promoter.was_dropped("f", 5 * SECOND));
    // Names are no contents.
    assert!(!promoter.was_dropped("six", 5 * SECOND) && !promoter.was_dropped("seven", 5 * SECOND));
    run(&mut promoter, &idle, 5..604);
    assert!(promoter.was_dropped("f", 604 * SECOND));
    assert!(!promoter.was_dropped("f", 605 * SECOND));
    run(&mut promoter, &idle, 604..606);
    assert!(promoter.dropped_content_ms.is_empty(), "it is forgotten");
}
