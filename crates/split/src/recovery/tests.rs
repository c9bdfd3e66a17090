//! The state machine by itself, and thousands of bad days in `world`.

use super::*;

mod machines;
mod world;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn lost(epoch: u32, suspect: Option<u8>) -> Event<u8> {
    Event::Lost {
        epoch,
        suspect,
        accuser: None,
        text: "gone".into(),
    }
}

fn planned(epoch: u32, workers: &[u8]) -> Event<u8> {
    Event::Planned {
        epoch,
        workers: workers.to_vec(),
        beside: false,
    }
}

fn beside(epoch: u32, workers: &[u8]) -> Event<u8> {
    Event::Planned {
        epoch,
        workers: workers.to_vec(),
        beside: true,
    }
}

fn plan(epoch: u32, without: &[u8]) -> Effect<u8> {
    Effect::Plan {
        epoch,
        without: without.iter().copied().collect(),
        is_move: false,
    }
}

fn plan_move(epoch: u32, without: &[u8]) -> Effect<u8> {
    Effect::Plan {
        epoch,
        without: without.iter().copied().collect(),
        is_move: true,
    }
}

fn raise_beside(epoch: u32, workers: &[u8]) -> Effect<u8> {
    Effect::Raise {
        epoch,
        workers: workers.to_vec(),
        beside: true,
    }
}

fn raise(epoch: u32, workers: &[u8]) -> Effect<u8> {
    Effect::Raise {
        epoch,
        workers: workers.to_vec(),
        beside: false,
    }
}

fn suspend() -> Effect<u8> {
    Effect::Suspend {
        text: "gone".into(),
    }
}

fn waiting(text: &str) -> Effect<u8> {
    Effect::Waiting { text: text.into() }
}

fn fail(text: &str) -> Effect<u8> {
    Effect::Fail { text: text.into() }
}

/// Each step: second, event, effects.
#[track_caller]
fn check(steps: Vec<(u64, Event<u8>, Vec<Effect<u8>>)>) -> Recovery<u8> {
    let mut recovery = Recovery::new(0, seconds(600));
    for (number, (at, event, wanted)) in steps.into_iter().enumerate() {
        let got = recovery.handle(event, seconds(at));
        assert_eq!(got, wanted, "step {number}");
    }
    recovery
}

#[test]
fn a_lost_machine_is_left_out_and_the_rest_goes_on() {
    let recovery = check(vec![
        (0, Event::Begin, vec![plan(1, &[])]),
        (1, planned(1, &[1, 2]), vec![raise(1, &[1, 2])]),
        (
            2,
            Event::Raised { epoch: 1 },
            vec![Effect::Resume { epoch: 1 }],
        ),
        (
            9,
            lost(1, Some(2)),
            vec![Effect::Release { epoch: 1 }, suspend(), plan(2, &[2])],
        ),
        // Late news of the old ring.
        (9, lost(1, Some(1)), vec![]),
        (9, planned(1, &[1]), vec![]),
        (10, planned(2, &[1, 3]), vec![raise(2, &[1, 3])]),
        (
            11,
            Event::Raised { epoch: 1 },
            vec![Effect::Release { epoch: 1 }],
        ),
        (
            12,
            Event::Raised { epoch: 2 },
            vec![Effect::Resume { epoch: 2 }],
        ),
        (13, Event::Raised { epoch: 2 }, vec![]),
    ]);
    assert_eq!(recovery.next_wake(), None);
}

#[test]
fn streams_are_told_soon_that_nothing_fits_and_late_that_nothing_works() {
    let none = |epoch| Event::NoPlan {
        epoch,
        text: "too large".into(),
    };
    let mut steps = running();
    steps.extend([
        (
            9,
            lost(1, Some(2)),
            vec![release(1), suspend(), plan(2, &[2])],
        ),
        (10, none(2), vec![waiting("too large")]),
        // Looking again changes nothing.
        (12, Event::Changed, vec![plan(3, &[2])]),
        (12, none(3), vec![waiting("too large")]),
        (13, Event::Time, vec![]),
        (14, Event::Time, vec![fail("too large")]),
        // For whoever has come since.
        (18, Event::Time, vec![fail("too large")]),
        (21, Event::Changed, vec![plan(4, &[2])]),
        // A machine has come: now it is worth waiting.
        (21, planned(4, &[1]), vec![raise(4, &[1])]),
        (50, Event::Time, vec![]),
        (50, lost(4, None), vec![release(4), waiting("gone")]),
        (54, Event::Time, vec![plan(5, &[])]),
        (55, planned(5, &[1]), vec![raise(5, &[1])]),
        (229, Event::Time, vec![]),
        (
            230,
            Event::Time,
            vec![fail(
                "the model's machines could not be brought together in time",
            )],
        ),
        (
            231,
            Event::Stop,
            vec![release(5), fail("the model is no longer served here")],
        ),
        (232, Event::Raised { epoch: 5 }, vec![release(5)]),
        (233, Event::Begin, vec![]),
    ]);
    check(steps);
}

#[test]
fn attempts_that_fail_without_a_culprit_wait_longer_each_time() {
    let mut recovery = Recovery::<u8>::new(0, seconds(600));
    let mut now = seconds(0);
    recovery.handle(Event::Begin, now);
    let mut pauses = Vec::new();
    for epoch in 1..=7 {
        recovery.handle(planned(epoch, &[1]), now);
        let effects = recovery.handle(lost(epoch, None), now);
        assert_eq!(effects, [Effect::Release { epoch }, waiting("gone")]);
        let wake = recovery.next_wake().unwrap();
        pauses.push((wake - now).as_secs());
        now = wake;
        let next = epoch + 1;
        assert_eq!(recovery.handle(Event::Time, now), [plan(next, &[])]);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30]);
}

#[test]
fn planning_and_raising_have_an_end() {
    check(vec![
        (0, Event::Begin, vec![plan(1, &[])]),
        (60, Event::Time, vec![waiting("no plan was made in time")]),
        (61, Event::Time, vec![plan(2, &[])]),
        (62, planned(2, &[1]), vec![raise(2, &[1])]),
        (
            662,
            Event::Time,
            vec![
                fail("the model's machines could not be brought together in time"),
                Effect::Release { epoch: 2 },
                waiting("the ring did not stand in time"),
            ],
        ),
        (664, Event::Returned(1), vec![plan(3, &[])]),
    ]);
}

/// A ring of 1 and 2 that runs since second 2.
fn running() -> Vec<(u64, Event<u8>, Vec<Effect<u8>>)> {
    vec![
        (0, Event::Begin, vec![plan(1, &[])]),
        (1, planned(1, &[1, 2]), vec![raise(1, &[1, 2])]),
        (
            2,
            Event::Raised { epoch: 1 },
            vec![Effect::Resume { epoch: 1 }],
        ),
    ]
}

fn release(epoch: u32) -> Effect<u8> {
    Effect::Release { epoch }
}

#[test]
fn streams_move_while_the_old_ring_runs() {
    let mut steps = running();
    steps.extend([
        (10, Event::Leaves(2), vec![plan_move(2, &[2])]),
        (10, Event::Leaves(2), vec![]),
        (11, beside(2, &[1, 3]), vec![raise_beside(2, &[1, 3])]),
        (12, Event::Better, vec![]),
        (
            15,
            Event::Raised { epoch: 2 },
            vec![Effect::Resume { epoch: 2 }, release(1)],
        ),
        // What it says when it goes.
        (16, lost(1, Some(2)), vec![]),
        // It is left out until it is back.
        (
            20,
            lost(2, Some(3)),
            vec![release(2), suspend(), plan(3, &[2, 3])],
        ),
        (21, Event::Returned(2), vec![]),
        (22, planned(3, &[1, 2]), vec![raise(3, &[1, 2])]),
    ]);
    check(steps);
}

#[test]
fn without_room_for_both_the_old_ring_goes_first() {
    let mut steps = running();
    let text = "the layers move to where they are computed faster".to_owned();
    steps.extend([
        (200, Event::Better, vec![plan_move(2, &[])]),
        (
            201,
            planned(2, &[1, 3]),
            vec![release(1), Effect::Suspend { text }, raise(2, &[1, 3])],
        ),
        (202, lost(1, Some(2)), vec![]),
        (
            210,
            Event::Raised { epoch: 2 },
            vec![Effect::Resume { epoch: 2 }],
        ),
        // Not again so soon.
        (300, Event::Better, vec![]),
        (320, Event::Better, vec![plan_move(3, &[])]),
        (
            321,
            Event::NoPlan {
                epoch: 3,
                text: "no better one".into(),
            },
            vec![],
        ),
        // Each time it takes twice as long.
        (550, Event::Better, vec![]),
        (560, Event::Better, vec![plan_move(4, &[])]),
        // No plan comes.
        (620, Event::Time, vec![]),
    ]);
    let recovery = check(steps);
    assert!(!recovery.is_moving());
    assert_eq!(recovery.next_wake(), None);
}

#[test]
fn a_move_that_fails_disturbs_nothing_and_one_from_a_leaver_is_tried_again() {
    let mut steps = running();
    steps.extend([
        (10, Event::Leaves(2), vec![plan_move(2, &[2])]),
        (11, beside(2, &[1, 3]), vec![raise_beside(2, &[1, 3])]),
        (12, lost(2, Some(3)), vec![release(2)]),
        (14, Event::Time, vec![plan_move(3, &[2, 3])]),
        (14, beside(3, &[1, 4]), vec![raise_beside(3, &[1, 4])]),
        // The old ring breaks first: what is on its way comes next.
        (15, lost(1, Some(2)), vec![release(1), suspend()]),
        (
            16,
            Event::Raised { epoch: 3 },
            vec![Effect::Resume { epoch: 3 }],
        ),
        // The ring breaks, and with it what was to follow.
        (200, Event::Better, vec![plan_move(4, &[])]),
        (201, beside(4, &[4, 5]), vec![raise_beside(4, &[4, 5])]),
        (
            202,
            lost(3, Some(4)),
            vec![release(3), suspend(), release(4), plan(5, &[4])],
        ),
        (203, Event::Raised { epoch: 4 }, vec![release(4)]),
    ]);
    check(steps);
}
