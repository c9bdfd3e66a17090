//! Plans of which something is settled before.

use std::time::Duration;

use proptest::prelude::*;
use split::plan::{Candidate, Pool, Request, Speed, make, settled};

use crate::world::{MIB, apart, even, request};

#[test]
fn a_settled_share_is_predicted_as_the_plan_that_has_it() {
    let (model, machines) = (even(12, 10), apart(&[(60, 100), (50, 200), (80, 150)], 4));
    let request = Request {
        force_split: true,
        ..request()
    };
    let plan = make(&model, &machines, &request).unwrap();
    let shares: Vec<_> = plan
        .stages
        .iter()
        .map(|stage| (stage.id, stage.layers.clone()))
        .collect();
    assert_eq!(settled(&model, &machines, &request, &shares), Some(plan));
    for nonsense in [
        vec![(0, 0..6)],
        vec![(0, 0..6), (1, 7..12)],
        vec![(0, 0..6), (1, 6..13)],
        vec![(0, 0..6), (9, 6..12)],
        vec![(0, 0..0), (1, 0..12)],
        vec![],
    ] {
        assert_eq!(settled(&model, &machines, &request, &nonsense), None);
    }
}

/// The host, number 0, and workers; all `ms` from each other.
fn around_a_host(host_bytes: u64, workers: &[(u64, u32)], ms: u64) -> Pool<usize> {
    let candidate = |id, memory_bytes, mb: u32| Candidate {
        id,
        memory_bytes,
        speed: Speed::from_bandwidth(f64::from(mb) * 1e6).unwrap(),
        has_weights: true,
    };
    let others = (1..)
        .zip(workers)
        .map(|(id, &(mib, mb))| candidate(id, mib * MIB, mb));
    let mut pool = Pool::new([candidate(0, host_bytes, 100)].into_iter().chain(others)).unwrap();
    for a in 0..=workers.len() {
        for b in 0..a {
            pool.link(a, b, Duration::from_millis(ms)).unwrap();
        }
    }
    pool
}

#[test]
fn a_pinned_tail_stays_and_counts() {
    let model = even(12, 10);
    let pinned = model.pinned(8).unwrap();
    let pool = around_a_host(pinned.host_bytes, &[(60, 100), (60, 200), (60, 100)], 4);
    let request = Request {
        force_split: true,
        host: Some(0),
        ..request()
    };
    let plan = make(&pinned.shape, &pool, &request).unwrap();
    let shares: Vec<_> = plan
        .stages
        .iter()
        .map(|s| (s.id, s.layers.clone()))
        .collect();
    // Eight layers of 10 MiB need two workers; the fast one gets as much as it holds.
    assert_eq!(shares.len(), 3, "{shares:?}");
    assert_eq!(shares[2], (0, 8..9));
    let fast = shares.iter().find(|(id, _)| *id == 2).unwrap();
    assert_eq!(fast.1.len(), 5);
    // Three hops, and the tail with its head, on top of the workers.
    assert_eq!(plan.ring_delay, Duration::from_micros(3 * 2_500));
    let tail = plan.stages[2].token_time.as_secs_f64();
    assert!((tail - 41.0 * MIB as f64 / 1e8).abs() < 1e-6, "{tail}");
    assert_eq!(model.active_bytes(8..12), 40 * MIB);
    assert!(model.pinned(0).is_none() && model.pinned(12).is_none());
}

proptest! {
    /// Whatever the workers claim, the host keeps what is its own and gets nothing else.
    #[test]
    fn nobody_takes_a_pinned_tail(
        workers in proptest::collection::vec((0..u64::MAX / MIB, 50..2000u32), 1..5),
        start in 1..8u32,
    ) {
        let pinned = even(8, 10).pinned(start).unwrap();
        let pool = around_a_host(pinned.host_bytes, &workers, 1);
        let request = Request { force_split: true, host: Some(0), ..request() };
        if let Ok(plan) = make(&pinned.shape, &pool, &request) {
            let last = plan.stages.last().unwrap();
            prop_assert_eq!((last.id, last.layers.clone()), (0, start..start + 1));
        }
    }
}
