//! Single plans and refusals.

use std::time::Duration;

use split::plan::{Candidate, ModelShape, Plan, Pool, Refusal, Request, Speed, make};

use crate::world::{MIB, Machine, apart, even, layer, model, pool, request};

fn layers(plan: &Plan<usize>) -> Vec<(usize, u32)> {
    let stages = plan.stages.iter();
    stages
        .map(|stage| (stage.id, stage.layers.end - stage.layers.start))
        .collect()
}

#[test]
fn what_fits_stays_whole_on_the_fastest() {
    let plan = make(
        &even(8, 10),
        &apart(&[(200, 100), (200, 300), (50, 900)], 1),
        &request(),
    );
    assert_eq!(layers(&plan.unwrap()), [(1, 8)]);
}

#[test]
fn weights_at_hand_outweigh_a_little_speed() {
    let candidate = |id, mb: f64, has_weights| Candidate {
        id,
        memory_bytes: 200 * MIB,
        speed: Speed::from_bandwidth(mb * 1e6).unwrap(),
        has_weights,
    };
    for (mb, host) in [(110.0, 0), (200.0, 1)] {
        let pool = Pool::new([candidate(0, 100.0, true), candidate(1, mb, false)]).unwrap();
        let plan = make(&even(8, 10), &pool, &request()).unwrap();
        assert_eq!(plan.host, host);
        assert_eq!(plan.fetch_bytes() > 0, host == 1);
    }
}

#[test]
fn the_fewest_machines_suffice() {
    // 82 MiB × 1.1 need two of 60; a third would be faster.
    let machines = [(60, 100), (60, 100), (60, 900), (5, 900)];
    let plan = make(&even(8, 10), &apart(&machines, 1), &request()).unwrap();
    assert_eq!(plan.stages.len(), 2);
    assert!(plan.stages.iter().any(|stage| stage.id == 2));
}

#[test]
fn uneven_machines_get_uneven_shares() {
    let plan = make(
        &even(12, 10),
        &apart(&[(100, 100), (50, 100)], 1),
        &request(),
    )
    .unwrap();
    let shares = layers(&plan);
    assert_eq!(shares.iter().map(|share| share.1).sum::<u32>(), 12);
    let of = |id| shares.iter().find(|share| share.0 == id).unwrap().1;
    // Equally fast, so as balanced as memory allows: 50 MiB hold 4 layers of 11.
    assert_eq!((of(0), of(1)), (8, 4));
}

#[test]
fn the_faster_machine_takes_what_it_can() {
    let machines = [(70, 100), (90, 400)];
    let plan = make(&even(8, 10), &apart(&machines, 1), &request()).unwrap();
    assert_eq!(layers(&plan), [(0, 1), (1, 7)]);
}

#[test]
fn several_streams_trade_a_little_speed_for_balance() {
    let machines = [(70, 100), (90, 101)];
    let one = make(&even(8, 10), &apart(&machines, 1), &request()).unwrap();
    assert_eq!(layers(&one), [(0, 1), (1, 7)]);
    let request = Request {
        sequences: 4,
        ..request()
    };
    let four = make(&even(8, 10), &apart(&machines, 1), &request).unwrap();
    assert_eq!(layers(&four).iter().map(|share| share.1).max(), Some(4));
    assert!(four.tokens_per_second_full > 1.5 * one.tokens_per_second);
    assert!(four.tokens_per_second > 0.9 * one.tokens_per_second);
}

#[test]
fn a_slow_wanted_host_hides_no_better_set() {
    // The host must be slow and could hold nearly everything; the fastest pair for the rest is 2 and 3.
    let machines = [(80, 50), (45, 200), (45, 900), (45, 800)];
    let request = Request {
        host: Some(0),
        ..request()
    };
    let plan = make(&even(12, 10), &apart(&machines, 1), &request).unwrap();
    let members: Vec<usize> = plan.stages.iter().map(|stage| stage.id).collect();
    assert_eq!(members.last(), Some(&0));
    assert!(members.contains(&2) && !members.contains(&1), "{members:?}");
}

#[test]
fn near_machines_win_over_far_ones() {
    // 0 and 1 are near each other, 2 is as fast but 40 ms away.
    let machines = [(60, 100), (60, 100), (60, 100)];
    let distances = [vec![0, 1000, 40_000], vec![1000, 0, 40_000], vec![0, 0, 0]];
    let plan = make(&even(8, 10), &pool(&machines, &distances), &request()).unwrap();
    assert!(plan.stages.iter().all(|stage| stage.id != 2));
    // Two hops of half a millisecond each, and half a millisecond of overhead each.
    assert_eq!(plan.ring_delay, Duration::from_millis(2));
}

#[test]
fn the_ring_follows_the_shortest_way() {
    // Machines on a line; any other order goes back and forth.
    let machines: Vec<Machine> = vec![(30, 100); 4];
    let distances: Vec<Vec<i64>> = (0..4i64)
        .map(|a| (0..4i64).map(|b| (a - b).abs() * 10_000).collect())
        .collect();
    let plan = make(&even(8, 10), &pool(&machines, &distances), &request()).unwrap();
    assert_eq!(plan.ring_delay, Duration::from_millis(2 * 30 / 2 + 2));
}

#[test]
fn a_prompt_flows_through_all_stages_at_once() {
    let split = make(&even(8, 10), &apart(&[(50, 100), (60, 100)], 0), &request()).unwrap();
    let whole = make(&even(8, 10), &apart(&[(200, 100)], 0), &request()).unwrap();
    let (split, whole) = (split.first_token_time(4096), whole.first_token_time(4096));
    let ratio = split.as_secs_f64() / whole.as_secs_f64();
    assert!((0.5..0.6).contains(&ratio), "{ratio}");
}

#[test]
fn only_who_asked_for_a_split_is_told_to_leave_that_out() {
    let request = Request {
        force_split: true,
        ..request()
    };
    let whole = model(vec![layer(80, 80, 0)], vec![]);
    for (model, pool, helps) in [
        (even(8, 10), apart(&[(100, 100)], 1), "add another"),
        (
            whole,
            apart(&[(99, 100), (99, 100)], 1),
            "use a larger machine",
        ),
    ] {
        let refusal = make(&model, &pool, &request).unwrap_err();
        let asked = refusal.to_string();
        assert!(asked.contains("leave --split out"), "{asked}");
        let unasked = refusal.unasked().to_string();
        assert!(!unasked.contains("--split"), "{unasked}");
        assert!(unasked.contains(helps), "{unasked}");
    }
}

#[test]
fn refusals_tell_numbers_and_what_helps() {
    let two = [(60, 100), (30, 100)];
    let tight = model(vec![layer(40, 40, 0), layer(40, 40, 0)], vec![1]);
    let whole = model(vec![layer(80, 80, 0)], vec![]);
    let host = |host| Request {
        host: Some(host),
        ..request()
    };
    let forced = Request {
        force_split: true,
        ..request()
    };
    for (model, pool, request, wanted) in [
        (
            even(8, 10),
            apart(&[], 1),
            request(),
            "there are no machines",
        ),
        (
            even(16, 10),
            apart(&two, 1),
            request(),
            "needs 178.2 MiB, the machines have 90.0 MiB together; hint: add one with 88.2 MiB",
        ),
        (
            even(8, 10),
            apart(&two, 1),
            host(7),
            "7 is not among the machines",
        ),
        (
            even(8, 10),
            apart(&[(90, 100), (5, 100)], 1),
            host(1),
            "1 has 5.0 MiB, but a host keeps at least 13.2 MiB",
        ),
        (
            even(8, 10),
            apart(&[(90, 100)], 1),
            host(0),
            "needs 90.2 MiB, the machines have 90.0",
        ),
        (
            even(8, 10),
            apart(&[(100, 100)], 1),
            forced,
            "a split takes two machines",
        ),
        (
            whole.clone(),
            apart(&[(70, 100), (70, 100)], 1),
            request(),
            "test models can't be split; whole it needs 90.2 MiB, and the largest machine has 70.0 MiB; hint: use a larger",
        ),
        (
            whole,
            apart(&[(99, 100), (99, 100)], 1),
            forced,
            "hint: leave --split out",
        ),
        (
            even(8, 10),
            apart(&[(60, 100), (60, 100)], 81),
            request(),
            "needs 90.2 MiB, but machines within 80 ms of each other have 60.0 MiB; the next, 0 and 1, are 81 ms apart",
        ),
        (
            even(8, 10),
            pool(&[(60, 100), (60, 100)], &[vec![0, -1], vec![0, 0]]),
            request(),
            "the round trip between 0 and 1 is not",
        ),
        (
            even(60, 10),
            apart(&vec![(74, 100); 40], 1),
            request(),
            "more than 8 of these machines",
        ),
        (
            tight,
            apart(&[(75, 100), (40, 100)], 1),
            request(),
            "but no share of whole layers fits them: the least stage takes 44.0 MiB",
        ),
    ] {
        let refusal = make(&model, &pool, &request).unwrap_err().to_string();
        assert!(refusal.contains(wanted), "{refusal}\n{wanted}");
        assert!(refusal.contains("; hint: "), "{refusal}");
    }
}

#[test]
fn a_pool_refuses_what_makes_no_sense() {
    let candidate = |id| Candidate {
        id,
        memory_bytes: 1,
        speed: Speed::from_bandwidth(1e9).unwrap(),
        has_weights: false,
    };
    assert!(Pool::new([candidate(1), candidate(1)]).is_err());
    let mut pool = Pool::new([candidate(1), candidate(2)]).unwrap();
    assert!(pool.link(1, 1, Duration::ZERO).is_err());
    assert!(pool.link(1, 3, Duration::ZERO).is_err());
    assert_eq!(pool.round_trip(1, 2), None);
}

/// 64 machines of many kinds in four places; what must hold is that a plan is found within bounds.
#[test]
fn a_large_mesh_is_planned() {
    let machines: Vec<Machine> = (0..64)
        .map(|n| (300 + n * 37 % 211, 100_000 + (n as u32 * 53) % 400 * 1000))
        .collect();
    let place = |n: usize| n % 4;
    let distances: Vec<Vec<i64>> = (0..64)
        .map(|a| {
            (0..64)
                .map(|b| if place(a) == place(b) { 2000 } else { 45_000 })
                .collect()
        })
        .collect();
    let pool = pool(&machines, &distances);
    for (mib, stages) in [(20, 4..=5), (25, 5..=6), (32, 6..=7)] {
        let model: ModelShape = even(80, mib);
        let plan = make(&model, &pool, &request()).unwrap();
        assert!(stages.contains(&plan.stages.len()), "{}", plan.stages.len());
        assert_eq!(
            plan.ring_delay.as_millis() as usize,
            plan.stages.len() * 3 / 2,
            "all in one place"
        );
    }
}

#[test]
fn names_refuse_the_same_way() {
    let refusal: Refusal<String> = Refusal::UnknownHost {
        host: "box".to_owned(),
    };
    assert!(refusal.to_string().starts_with("box is not among"));
}
