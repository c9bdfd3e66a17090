//! The scheduler against a simulated KV cache and a model whose next token depends on the whole
//! sequence: whatever is shared, cut, drafted, cancelled or sent back, every job must get the
//! text that it would get alone.

use proptest::prelude::*;

use super::batch::share;
use super::*;

mod flight;
mod world;

use world::*;

/// Some prompts come again as they were.
fn tail() -> impl Strategy<Value = Vec<TokenId>> {
    prop_oneof![
        3 => prop::collection::vec(0..3i32, 1..30),
        1 => prop_oneof![Just(vec![2]), Just(vec![1, 2, 0, 1])],
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    let prompt = (0usize..4, tail()).prop_map(|(shared, tail)| {
        let mut prompt: Vec<TokenId> = (0..shared as i32 * 20).map(|i| i % 3).collect();
        prompt.extend(tail);
        prompt
    });
    let cancel = prop::option::weighted(0.2, 0..60usize);
    let stall = (0..60usize, 0..60usize, 0..20usize)
        .prop_map(|(from, length, short)| (from, from + length, from + short));
    (
        prompt,
        1..12usize,
        0..40usize,
        cancel,
        prop::option::weighted(0.3, stall),
        prop::bool::weighted(0.9),
    )
        .prop_map(
            |(prompt, count, arrives, cancelled_at, stalled, reuse)| Wish {
                prompt,
                count,
                arrives,
                cancelled_at: cancelled_at.filter(|at| *at >= arrives),
                stalled,
                reuse,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_job_gets_the_text_it_would_get_alone(
        wishes in prop::collection::vec(wish(), 1..14),
        slots in 1..5usize,
        spare in 0..4usize,
        kv_tokens in 110..400usize,
        batch_tokens in 8..40usize,
        drafts: bool,
        can_cut: bool,
        stored_tokens in prop_oneof![Just(0usize), 20..60usize, Just(500usize)],
        logits_kept in 0..4usize,
    ) {
        let limits = Limits { slots, sequences: slots + spare, kv_tokens, batch_tokens, can_cut, row_group: 4, stored_tokens, logits_kept };
        run(limits, drafts, &wishes);
    }
}

fn traffic() -> impl Strategy<Value = Traffic> {
    (
        2..6usize,
        prop_oneof![1..4usize, Just(usize::MAX)],
        prop::option::of(0..30usize),
        prop::collection::vec(0..3usize, 1..8)
            .prop_filter("steps come back", |returns| returns.iter().any(|n| *n > 0)),
        prop::collection::vec(
            (
                0..60usize,
                prop_oneof![Just(0usize), 0..100usize, Just(100usize)],
            ),
            0..3,
        ),
    )
        .prop_map(|(depth, jobs, spare, returns, lost_at)| Traffic {
            depth,
            jobs,
            spare,
            returns,
            lost_at,
        })
}

proptest! {
    // Some mistakes show in one of a thousand courses.
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn with_several_steps_in_flight_too(
        wishes in prop::collection::vec(wish(), 1..14),
        slots in 1..6usize,
        spare in 0..4usize,
        kv_tokens in 110..400usize,
        batch_tokens in 8..40usize,
        drafts: bool,
        can_cut in prop::bool::weighted(0.8),
        traffic in traffic(),
        logits_kept in 0..4usize,
    ) {
        let traffic = Traffic {
            // Recurrent memory can't take rows back: such models begin anew, as `lost_at` has it.
            spare: traffic.spare.filter(|_| can_cut),
            ..traffic
        };
        let kv_tokens = if can_cut { kv_tokens } else { 4_000 };
        let limits = Limits { slots, sequences: slots + spare, kv_tokens, batch_tokens, can_cut, row_group: 4, stored_tokens: 0, logits_kept };
        run_with(limits, drafts, &wishes, traffic);
    }
}

/// Room for everything, little of it beside jobs that decode.
const BUDGET: Budget = Budget {
    jobs: usize::MAX,
    beside_decoding: 10,
    alone: 64,
};

fn limits() -> Limits {
    Limits {
        slots: 4,
        sequences: 8,
        kv_tokens: 4000,
        batch_tokens: 64,
        can_cut: true,
        row_group: 32,
        stored_tokens: 2000,
        logits_kept: 4,
    }
}

fn plain(prompt: Vec<TokenId>, count: usize, arrives: usize) -> Wish {
    Wish {
        prompt,
        count,
        arrives,
        cancelled_at: None,
        stalled: None,
        reuse: true,
    }
}

#[test]
fn a_shared_prompt_is_evaluated_once_even_by_jobs_that_arrive_together() {
    let prompt: Vec<TokenId> = (0..300).map(|i| i % 7).collect();
    let wishes: Vec<Wish> = (0..4).map(|_| plain(prompt.clone(), 3, 0)).collect();
    let world = run(limits(), false, &wishes);
    // The prompt once, and two generated tokens for each: all draw the first one from the same logits.
    assert_eq!(world.rows_total, 300 + 4 * 2);
    let without = Limits {
        logits_kept: 0,
        ..limits()
    };
    assert_eq!(run(without, false, &wishes).rows_total, 300 + 2 + 3 * 3);
}

#[test]
fn a_repeated_prompt_costs_no_row() {
    let prompt: Vec<TokenId> = (0..200).map(|i| i % 7).collect();
    let wishes = vec![plain(prompt.clone(), 2, 0), plain(prompt.clone(), 2, 70)];
    assert_eq!(run(limits(), false, &wishes).rows_total, 201 + 1);
    // Something else in between moves it to the host's memory.
    let between = plain(vec![1; 30], 2, 40);
    let wishes = [wishes, vec![between]].concat();
    assert_eq!(run(limits(), false, &wishes).rows_total, 201 + 1 + 31);
    // Without logits the last token is evaluated again.
    let without = Limits {
        logits_kept: 0,
        ..limits()
    };
    assert_eq!(run(without, false, &wishes).rows_total, 201 + 2 + 31);
}

#[test]
fn without_reuse_everything_is_evaluated_again() {
    let prompt: Vec<TokenId> = (0..200).map(|i| i % 7).collect();
    let mut again = plain(prompt.clone(), 2, 70);
    again.reuse = false;
    assert_eq!(
        run(limits(), false, &[plain(prompt, 2, 0), again]).rows_total,
        201 * 2
    );
}

#[test]
fn prompts_share_a_step_evenly_and_use_what_others_leave() {
    assert_eq!(share(&[100, 4, 100], 60), [28, 4, 28]);
    assert_eq!(share(&[3, 2], 60), [3, 2]);
    assert_eq!(share(&[9, 9, 9], 2), [1, 1, 0]);
    assert_eq!(share(&[], 5), [0usize; 0]);
}

#[test]
fn a_long_prompt_leaves_room_for_running_jobs() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(0, vec![1], true);
    let first = scheduler.plan(BUDGET);
    scheduler.commit(&first);
    scheduler.advance(0, &[2]);
    scheduler.submit(1, (0..500).collect(), true);
    let step = scheduler.plan(BUDGET);
    assert_eq!(step.rows.iter().filter(|r| r.key == 0).count(), 1);
    // 10 rows wanted, one decodes: filled up to a multiple of four.
    assert_eq!(step.prefill_rows, 11);
    // 45 wanted: cut down to a multiple of 32.
    scheduler.commit(&step);
    scheduler.advance(0, &[3]);
    let step = scheduler.plan(Budget {
        jobs: usize::MAX,
        beside_decoding: 45,
        alone: 64,
    });
    assert_eq!(step.prefill_rows, 31);
}

/// Rounding to groups costs no step: with less in each, more would be left for one more.
#[test]
fn a_prompt_beside_running_jobs_takes_as_many_steps_as_it_has_parts() {
    let mut scheduler = Scheduler::new(Limits {
        batch_tokens: 512,
        row_group: 16,
        ..limits()
    });
    for key in 0..3 {
        scheduler.submit(key, vec![key as TokenId + 1], true);
    }
    let first = scheduler.plan(BUDGET);
    scheduler.commit(&first);
    scheduler.submit(3, (0..512).collect(), true);
    let mut parts = Vec::new();
    while parts.iter().sum::<usize>() < 512 {
        for key in 0..3 {
            scheduler.advance(key, &[2]);
        }
        let step = scheduler.plan(Budget {
            jobs: usize::MAX,
            beside_decoding: 103,
            alone: 64,
        });
        scheduler.commit(&step);
        parts.push(step.prefill_rows);
    }
    assert_eq!(parts, [109, 109, 109, 93, 92]);
}

#[test]
fn a_job_that_was_sent_back_waits_for_another_to_finish() {
    let tight = Limits {
        slots: 4,
        sequences: 4,
        kv_tokens: 120,
        batch_tokens: 64,
        can_cut: true,
        row_group: 32,
        stored_tokens: 2000,
        logits_kept: 4,
    };
    let shared: Vec<TokenId> = (0..60).map(|i| i % 7).collect();
    let other: Vec<TokenId> = (0..50).map(|i| i % 5).collect();
    // The first ends early and takes its claim to the shared cells along; the second keeps them.
    let wishes = vec![
        plain(shared.clone(), 1, 0),
        plain(shared, 50, 1),
        plain(other, 40, 45),
    ];
    run(tight, false, &wishes);
}

#[test]
fn a_job_goes_on_from_what_is_still_there() {
    let mut scheduler = Scheduler::new(limits());
    for (key, first) in [(0, 1), (1, 2)] {
        scheduler.submit(key, vec![first; 9], true);
    }
    let step = scheduler.plan(BUDGET);
    assert_eq!(step.rows.len(), 18);
    scheduler.commit(&step);
    for key in [0, 1] {
        scheduler.advance(key, &[7]);
    }
    // Their tokens are under way, and what they wait for is lost.
    assert_eq!(scheduler.plan(BUDGET).rows.len(), 2);
    let mut held = scheduler.held();
    assert_eq!(held.iter().filter(|held| **held == 9).count(), 2);
    assert_eq!(held.iter().sum::<u32>(), 18);
    let second = held.iter().rposition(|held| *held == 9).unwrap();
    held[second] = 4;
    scheduler.forget_but(&held);
    let step = scheduler.plan(BUDGET);
    let rows: Vec<_> = step
        .rows
        .iter()
        .map(|row| (row.token, row.position))
        .collect();
    assert!(step.ops.is_empty(), "{:?}", step.ops);
    assert_eq!(rows.iter().filter(|row| **row == (7, 9)).count(), 2);
    assert_eq!(rows.len(), 1 + 6);
}

#[test]
fn a_job_that_was_sent_back_can_lose_its_stall() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(0, vec![1, 2], true);
    scheduler.plan(BUDGET);
    scheduler.set_stall(0, Stall::Short);
    scheduler.forget_all();
    scheduler.set_stall(0, Stall::None);
    assert_eq!(scheduler.plan(BUDGET).rows.len(), 2);
}

#[test]
fn a_stalled_job_keeps_its_slot_and_gets_no_rows() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(0, vec![1, 2], true);
    let step = scheduler.plan(BUDGET);
    scheduler.take_back(&step);
    scheduler.set_stall(0, Stall::Short);
    assert!(scheduler.plan(BUDGET).rows.is_empty());
    assert_eq!(scheduler.running(), 1);
    scheduler.set_stall(0, Stall::None);
    assert_eq!(scheduler.plan(BUDGET).rows.len(), 2);
}

#[test]
fn a_stalled_job_makes_way_for_one_that_waits_and_comes_back_first() {
    let one_slot = Limits {
        slots: 1,
        sequences: 2,
        ..limits()
    };
    let mut scheduler = Scheduler::new(one_slot);
    for key in 0..3 {
        let first = 100 * key as TokenId;
        scheduler.submit(key, (first..first + 20).collect(), true);
    }
    let step = scheduler.plan(BUDGET);
    scheduler.commit(&step);
    scheduler.advance(0, &[7]);
    // A consumer that stutters loses nothing.
    scheduler.set_stall(0, Stall::Short);
    assert!(scheduler.plan(BUDGET).rows.is_empty());
    scheduler.set_stall(0, Stall::Long);
    let step = scheduler.plan(BUDGET);
    assert!(step.rows.iter().all(|row| row.key == 1), "{step:?}");
    let counts = (scheduler.running(), scheduler.parked(), scheduler.waiting());
    assert_eq!(counts, (1, 1, 2));
    scheduler.commit(&step);
    scheduler.advance(1, &[7]);
    scheduler.set_stall(0, Stall::None);
    scheduler.finish(1);
    let step = scheduler.plan(BUDGET);
    // All that it had is there, but for the last token.
    assert_eq!(step.rows.len(), 1, "{step:?}");
    assert_eq!((step.rows[0].key, step.rows[0].position), (0, 20));
}

#[test]
fn a_stalled_job_gives_up_its_cells_for_a_prompt_that_needs_them() {
    let tight = Limits {
        kv_tokens: 120,
        ..limits()
    };
    let budget = Budget {
        jobs: usize::MAX,
        beside_decoding: 64,
        alone: 64,
    };
    let mut world = World::new(tight, false);
    let prompt = |first: TokenId| (0..70).map(|i| (i + first) % 5).collect::<Vec<_>>();
    let wishes = vec![plain(prompt(0), 2, 0), plain(prompt(1), 2, 0)];
    world.scheduler.submit(0, prompt(0), true);
    world.step(&wishes, budget);
    world.scheduler.submit(1, prompt(1), true);
    world.scheduler.set_stall(0, Stall::Long);
    for _ in 0..6 {
        world.step(&wishes, budget);
    }
    assert_eq!(world.outputs[&1], alone(&prompt(1), 2));
    assert!(world.outputs.get(&0).is_none_or(|output| output.len() < 2));
    world.scheduler.set_stall(0, Stall::None);
    for _ in 0..6 {
        world.step(&wishes, budget);
    }
    assert_eq!(world.outputs[&0], alone(&prompt(0), 2));
    assert!(world.scheduler.is_idle());
}

#[test]
fn nobody_makes_way_in_vain() {
    let tight = Limits {
        kv_tokens: 200,
        ..limits()
    };
    let budget = Budget {
        jobs: usize::MAX,
        beside_decoding: 64,
        alone: 200,
    };
    let mut scheduler = Scheduler::new(tight);
    scheduler.submit(0, (0..100).collect(), true);
    scheduler.submit(1, (100..140).collect(), true);
    let step = scheduler.plan(budget);
    scheduler.commit(&step);
    assert_eq!(scheduler.running(), 2);
    // With the second job gone the third still would not fit.
    scheduler.set_stall(1, Stall::Long);
    scheduler.submit(2, (200..300).collect(), true);
    let step = scheduler.plan(budget);
    scheduler.commit(&step);
    assert_eq!((scheduler.running(), scheduler.waiting()), (2, 1));
    // With the first one gone it does.
    scheduler.set_stall(0, Stall::Long);
    scheduler.plan(budget);
    assert!(scheduler.tokens(2).is_some());
}

#[test]
fn the_parts_of_a_prompt_are_equal() {
    let mut scheduler = Scheduler::new(Limits {
        row_group: 4,
        ..limits()
    });
    let budget = Budget {
        jobs: usize::MAX,
        beside_decoding: 40,
        alone: 64,
    };
    scheduler.submit(0, vec![1], true);
    let first = scheduler.plan(budget);
    scheduler.commit(&first);
    scheduler.advance(0, &[2]);
    scheduler.submit(1, (0..101).collect(), true);
    let mut parts = Vec::new();
    while scheduler.running() < 2 || scheduler.is_prefilling() {
        let step = scheduler.plan(budget);
        parts.push(step.prefill_rows);
        scheduler.commit(&step);
        scheduler.advance(0, &[3]);
    }
    // Three are needed; a third is 34 rows, and the batch is filled up to a multiple of four.
    assert_eq!(parts, [35, 35, 31]);
}

#[test]
fn a_prefix_that_nobody_computes_with_is_moved_out_and_comes_back() {
    let prompt: Vec<TokenId> = (0..200).map(|i| i % 7).collect();
    let other: Vec<TokenId> = (0..100).map(|i| 10 + i % 5).collect();
    let wishes = vec![
        plain(prompt.clone(), 2, 0),
        plain(other, 30, 20),
        plain(prompt, 2, 70),
    ];
    let mut world = World::new(limits(), false);
    let budget = Budget {
        jobs: usize::MAX,
        beside_decoding: 64,
        alone: 64,
    };
    let mut lived = 0;
    for (key, wish) in wishes.iter().enumerate() {
        world
            .scheduler
            .submit(key as JobKey, wish.prompt.clone(), true);
        let rows = world.rows_total;
        while !world.scheduler.is_idle() {
            world.step(&wishes, budget);
            lived = lived.max(world.kv().used());
        }
        // Its own tokens; the third begins where the first ended, and draws its first token from kept logits.
        let expected = [201, 129, 1][key];
        assert_eq!(world.rows_total - rows, expected, "job {key}");
    }
    // Beside the second job the first one's cells were free.
    assert!(lived < 300, "{lived}");
}

#[test]
fn a_prompt_goes_on_however_many_jobs_decode() {
    for decoding in 1..80 {
        let mut scheduler = Scheduler::new(Limits {
            slots: 100,
            sequences: 100,
            batch_tokens: 512,
            ..limits()
        });
        let budget = Budget {
            jobs: usize::MAX,
            beside_decoding: 64,
            alone: 64,
        };
        for key in 0..decoding {
            scheduler.submit(key, vec![key as TokenId], false);
        }
        let step = scheduler.plan(budget);
        scheduler.commit(&step);
        for key in 0..decoding {
            scheduler.advance(key, &[7]);
        }
        scheduler.submit(decoding, (0..20).collect(), false);
        let step = scheduler.plan(budget);
        assert_eq!(step.prefill_rows, 20, "beside {decoding}");
    }
}

#[test]
fn step_cost_draws_lines_between_measurements() {
    let mut cost = cost::StepCost::default();
    assert_eq!(cost.step_ms(2), None);
    cost.observe(1, 10.0);
    cost.observe(5, 30.0);
    assert_eq!(cost.step_ms(3), Some(20.0));
    cost.observe(64, 128.0);
    assert_eq!(cost.rows_within(300.0), 150);
}
