//! Several steps in flight.

use super::world::*;
use super::*;

const BUDGET: Budget = Budget {
    jobs: 1,
    beside_decoding: 16,
    alone: 16,
};

/// A prompt of 40 tokens, of which so many steps were planned and none is back.
fn prompt_in_flight(steps: usize) -> (Scheduler, Vec<Step>) {
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(0, (0..40).collect(), true);
    let steps = (0..steps).map(|_| scheduler.plan(BUDGET)).collect();
    (scheduler, steps)
}

#[test]
fn as_many_steps_are_in_flight_as_there_are_groups() {
    let wishes: Vec<Wish> = (0..4).map(|key| plain(vec![key, 1, 2], 20, 0)).collect();
    let traffic = Traffic {
        depth: 5,
        jobs: 1,
        ..Traffic::default()
    };
    let world = run_with(limits(), false, &wishes, traffic.clone());
    assert_eq!(world.flights_most, 4);
    let pairs = Traffic { jobs: 2, ..traffic };
    assert_eq!(run_with(limits(), false, &wishes, pairs).flights_most, 2);
}

#[test]
fn the_next_rows_of_a_prompt_do_not_wait_for_the_first() {
    let (mut scheduler, steps) = prompt_in_flight(4);
    let rows: Vec<usize> = steps.iter().map(|step| step.rows.len()).collect();
    assert_eq!(rows, [16, 16, 8, 0]);
    assert_eq!(scheduler.kv_used(), 40);
    // A second prompt with the same beginning follows what is known to be there.
    scheduler.submit(1, (0..50).collect(), true);
    assert_eq!(scheduler.plan(BUDGET), Step::default());
    scheduler.commit(&steps[0]);
    assert_eq!(scheduler.plan(BUDGET), Step::default());
    // The rest finds no room: the first job goes on where it is, the second one waits for it.
    let ops = [&steps[1], &steps[2]].map(|step| scheduler.take_back(step));
    let cut = CacheOp::Cut {
        sequence: 0,
        from: 16,
    };
    assert_eq!(ops, [vec![cut], vec![cut]]);
    let again = scheduler.plan(BUDGET);
    assert_eq!((again.rows.len(), again.rows[0].position), (16, 16));
}

#[test]
fn a_job_that_ends_in_flight_leaves_what_is_certain() {
    let (mut scheduler, steps) = prompt_in_flight(2);
    scheduler.commit(&steps[0]);
    let cut = CacheOp::Cut {
        sequence: 0,
        from: 16,
    };
    assert_eq!(scheduler.finish(0), Some(cut));
    // Another one begins in its sequence before its last rows are back.
    scheduler.submit(1, (0..40).collect(), true);
    let step = scheduler.plan(BUDGET);
    assert_eq!(step.started, [(1, 16)]);
    assert_eq!((step.rows[0].sequence, step.rows[0].position), (0, 16));
    let ops = scheduler.take_back(&steps[1]);
    assert!(ops.is_empty(), "these rows are nobody's: {ops:?}");
    scheduler.commit(&step);
    assert_eq!(scheduler.plan(BUDGET).rows[0].position, 32);
}
