//! Costs of deciding what the next step computes: they are paid between any two tokens.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use engine::TokenId;
use engine::scheduler::cost::StepCost;
use engine::scheduler::round::Pipe;
use engine::scheduler::{Budget, JobKey, Limits, Scheduler};
use engine::speculation::{self, Steps};

const BUDGET: Budget = Budget {
    jobs: usize::MAX,
    beside_decoding: 64,
    alone: 512,
};
/// Steps in one measured run, so that growing sequences are part of it.
const STEPS: usize = 64;

/// A scheduler whose `jobs` jobs all decode.
fn decoding(jobs: usize) -> Scheduler {
    let limits = Limits {
        slots: jobs,
        sequences: 2 * jobs,
        kv_tokens: jobs * 1024,
        batch_tokens: 512,
        can_cut: true,
        row_group: 4,
        stored_tokens: 4096,
        logits_kept: 8,
    };
    let mut scheduler = Scheduler::new(limits);
    for key in 0..jobs {
        let prompt = (0..200)
            .map(|token| (token * 7 + key * 13) as TokenId)
            .collect();
        scheduler.submit(key as JobKey, prompt, true);
    }
    while scheduler.decoding().count() < jobs {
        step(&mut scheduler);
    }
    scheduler
}

fn step(scheduler: &mut Scheduler) {
    let step = scheduler.plan(BUDGET);
    scheduler.commit(&step);
    for row in step.rows.iter().filter(|row| row.output) {
        black_box(scheduler.advance(row.key, &[row.token + 1]));
    }
}

fn steps(criterion: &mut Criterion) {
    for jobs in [1, 8, 64] {
        criterion.bench_function(&format!("scheduler/{STEPS} steps of {jobs} jobs"), |b| {
            b.iter_batched(
                || decoding(jobs),
                |mut scheduler| (0..STEPS).for_each(|_| step(&mut scheduler)),
                BatchSize::LargeInput,
            );
        });
    }
}

fn costs(criterion: &mut Criterion) {
    let mut cost = StepCost::default();
    for rows in [1, 2, 4, 8, 16, 64] {
        cost.observe(rows, 15.0 + 4.0 * rows as f64);
    }
    criterion.bench_function("cost/observe and ask", |b| {
        b.iter(|| {
            cost.observe(black_box(8), 47.0);
            black_box((cost.step_ms(12), cost.rows_within(330.0)))
        });
    });
    criterion.bench_function("speculation/draft length", |b| {
        let steps = Steps {
            jobs: 2,
            groups: 1,
            pipe: Pipe::WHOLE,
            cost: &cost,
            draft_ms: 0.0,
        };
        b.iter(|| speculation::draft_tokens(black_box(0.7), &steps));
    });
}

fn lookup(criterion: &mut Criterion) {
    // Few different tokens, so that short repeats are everywhere and a long one is rare.
    let mut noise = 1_u32;
    let tokens: Vec<TokenId> = (0..8192)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 27) as TokenId
        })
        .collect();
    criterion.bench_function("speculation/lookup in 8,192 tokens", |b| {
        b.iter(|| speculation::lookup(black_box(&tokens), 8));
    });
}

criterion_group!(benches, steps, costs, lookup);
criterion_main!(benches);
