//! What holds for every input, and equals the best of all plans on small ones.

use proptest::prelude::*;
use split::plan::{
    BALANCE_PERCENT, Candidate, Layer, ModelShape, Parts, Plan, Pool, ROUND_TRIP_MAX, Refusal,
    Request, Speed, make,
};

use crate::brute;
use crate::world::{MIB, Machine, model, pool};

/// A model, machines, their distances, a request.
#[derive(Debug, Clone)]
struct Case {
    layers: Vec<Layer>,
    cuts: Vec<u32>,
    machines: Vec<Machine>,
    round_trips: Vec<Vec<i64>>,
    request: Request<usize>,
}

impl Case {
    fn model(&self) -> ModelShape {
        model(self.layers.clone(), self.cuts.clone())
    }

    fn pool(&self) -> Pool<usize> {
        pool(&self.machines, &self.round_trips)
    }

    fn plan(&self) -> Result<Plan<usize>, Refusal<usize>> {
        make(&self.model(), &self.pool(), &self.request)
    }

    fn bandwidths(&self) -> Vec<f64> {
        let machines = self.machines.iter();
        machines.map(|&(_, mb)| f64::from(mb) * 1e6).collect()
    }
}

fn a_layer() -> impl Strategy<Value = Layer> {
    let window = prop_oneof![Just(None), (1..64u32).prop_map(Some)];
    (0..40u64, 0..40u64, 0..100_000u64, window, 0..4u64).prop_map(
        |(weight, active, kv_token_bytes, kv_tokens_max, state)| Layer {
            weight_bytes: weight * MIB,
            active_bytes: active.min(weight) * MIB,
            kv_token_bytes,
            kv_tokens_max,
            state_bytes: state * MIB,
        },
    )
}

fn a_case(machines_max: usize, layers_max: usize) -> impl Strategy<Value = Case> {
    let layers = prop::collection::vec((a_layer(), prop::bool::weighted(0.7)), 1..=layers_max);
    let machines = prop::collection::vec((0..250u64, 50..2000u32), 1..=machines_max);
    // Mostly near, sometimes too far, seldom unknown.
    let distance = prop_oneof![
        8 => 0..60_000i64,
        2 => 60_000..120_000i64,
        1 => Just(-1),
    ];
    let distances =
        prop::collection::vec(prop::collection::vec(distance, machines_max), machines_max);
    (
        layers,
        machines,
        distances,
        0..2048u32,
        0..4u32,
        any::<bool>(),
        prop::option::weighted(0.2, 0..machines_max),
    )
        .prop_map(
            |(layers, machines, round_trips, context_tokens, sequences, force_split, host)| Case {
                cuts: (1u32..)
                    .zip(layers.iter().skip(1))
                    .filter_map(|(cut, (_, legal))| legal.then_some(cut))
                    .collect(),
                layers: layers.into_iter().map(|(layer, _)| layer).collect(),
                request: Request {
                    context_tokens,
                    sequences,
                    force_split,
                    host: host.filter(|&host| host < machines.len()),
                },
                machines,
                round_trips,
            },
        )
}

/// Everything that a plan promises.
fn check_plan(case: &Case, plan: &Plan<usize>) {
    let (model, pool) = (case.model(), case.pool());
    let mut next = 0;
    for stage in &plan.stages {
        assert_eq!(stage.layers.start, next);
        assert!(stage.layers.end > stage.layers.start);
        assert!(next == 0 || case.cuts.contains(&next));
        next = stage.layers.end;
        let memory = case.machines[stage.id].0 * MIB;
        assert!(stage.needed_bytes <= memory);
        assert!(stage.needed_bytes >= stage.weight_bytes + stage.kv_bytes);
    }
    assert_eq!(next, model.layer_count());
    let weights: u64 = plan.stages.iter().map(|stage| stage.weight_bytes).sum();
    assert_eq!(weights, model.weight_bytes());
    assert_eq!(plan.host, plan.stages.last().unwrap().id);
    assert!(case.request.host.is_none_or(|host| host == plan.host));
    assert!(!case.request.force_split || !plan.is_whole());
    for (at, stage) in plan.stages.iter().enumerate() {
        for other in &plan.stages[..at] {
            assert_ne!(stage.id, other.id);
            assert!(pool.round_trip(stage.id, other.id).unwrap() <= ROUND_TRIP_MAX);
        }
    }
    let one = plan.tokens_per_second;
    assert!(one.is_finite() && one > 0.0);
    assert!(plan.tokens_per_second_full >= one * 0.999);
    assert!(plan.first_token_time(100) <= plan.first_token_time(1000));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_sound_and_as_good_as_any(case in a_case(4, 8)) {
        let wanted = brute::best(&case.model(), &case.pool(), &case.bandwidths(), &case.request);
        match (case.plan(), wanted) {
            (Ok(plan), Some((count, time))) => {
                check_plan(&case, &plan);
                prop_assert_eq!(plan.stages.len(), count);
                let give = if case.request.sequences > 1 { 1.0 + f64::from(BALANCE_PERCENT) / 100.0 } else { 1.0 };
                let ratio = plan.token_time.as_secs_f64().max(1e-9) / time.max(1e-9);
                prop_assert!(ratio <= give + 1e-4, "{} of {}", ratio, time);
                prop_assert!(ratio >= 1.0 - 1e-4, "brute force missed a plan: {}", ratio);
            }
            (Err(refusal), None) => prop_assert!(refusal.to_string().contains("; hint: ")),
            (plan, wanted) => prop_assert!(false, "{:?} but {:?}", plan, wanted),
        }
    }

    #[test]
    fn the_order_of_machines_does_not_matter(case in a_case(5, 6)) {
        let pool = case.pool();
        let mut turned = Pool::new(pool.candidates().iter().rev().copied()).unwrap();
        for a in 0..case.machines.len() {
            for b in 0..a {
                if let Some(round_trip) = pool.round_trip(a, b) {
                    turned.link(a, b, round_trip).unwrap();
                }
            }
        }
        let model = case.model();
        prop_assert_eq!(make(&model, &pool, &case.request), make(&model, &turned, &case.request));
    }

    #[test]
    fn more_memory_never_hurts(case in a_case(5, 8), which in 0..5usize, more in 1..500u64) {
        let mut larger = case.clone();
        let which = which % case.machines.len();
        larger.machines[which].0 += more;
        if let Ok(before) = case.plan() {
            let after = larger.plan();
            prop_assert!(after.is_ok(), "{:?}", after);
            prop_assert!(after.unwrap().stages.len() <= before.stages.len());
        }
    }

    #[test]
    fn another_machine_never_slows(mut case in a_case(5, 8)) {
        case.request.sequences = 1;
        if case.machines.len() < 2 || case.request.host == Some(case.machines.len() - 1) {
            return Ok(());
        }
        let mut smaller = case.clone();
        smaller.machines.pop();
        if let Ok(before) = smaller.plan() {
            let after = case.plan().unwrap();
            prop_assert!(after.stages.len() <= before.stages.len());
            if after.stages.len() == before.stages.len() {
                prop_assert!(after.token_time <= before.token_time);
            }
        }
    }

    #[test]
    fn extremes_are_refused_or_planned(
        sizes in prop::collection::vec(any::<[u64; 4]>(), 0..6),
        ends in any::<[u64; 3]>(),
        cuts in prop::collection::vec(0..8u32, 0..4),
        memory in prop::collection::vec(any::<u64>(), 0..4),
        speed in any::<(f64, f64)>(),
        (context_tokens, sequences) in any::<(u32, u32)>(),
    ) {
        let small = |bytes: u64| bytes >> (bytes % 64);
        let layers: Vec<Layer> = sizes.iter().map(|&[a, b, c, d]| Layer {
            weight_bytes: small(a),
            active_bytes: small(b),
            kv_token_bytes: small(c),
            kv_tokens_max: None,
            state_bytes: small(d),
        }).collect();
        let parts = Parts {
            architecture: "x".to_owned(),
            layers,
            embedding_bytes: small(ends[0]),
            head_bytes: small(ends[1]),
            head_active_bytes: small(ends[2]),
            width: 1,
            cuts,
        };
        let layer = parts.layers.first().copied();
        let Ok(model) = ModelShape::new(parts) else { return Ok(()) };
        let speed = layer
            .and_then(|layer| Speed::from_times(layer.active_bytes, speed.0, speed.1).ok())
            .or(Speed::from_bandwidth(speed.0).ok())
            .unwrap_or(Speed::from_bandwidth(1e9).unwrap());
        let candidates = (0..).zip(&memory).map(|(id, &memory_bytes)| Candidate {
            id,
            memory_bytes,
            speed,
            has_weights: id % 2 == 0,
        });
        let mut pool = Pool::new(candidates).unwrap();
        for (a, bytes) in memory.iter().enumerate() {
            for b in 0..a {
                pool.link(a, b, std::time::Duration::from_nanos(bytes >> 20)).unwrap();
            }
        }
        let request = Request { context_tokens, sequences, ..Request::new(0) };
        if let Ok(plan) = make(&model, &pool, &request) {
            prop_assert!(plan.tokens_per_second.is_finite());
            let _ = plan.first_token_time(u32::MAX);
            let _ = split::plan::render::summary(&plan);
        }
    }
}
