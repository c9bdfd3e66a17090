use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn ring(number: u8) -> RingId {
    RingId([number; 16])
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ask(host: u8, ring_number: u8, epoch: u32, bytes: u64) -> Event<u8> {
    Event::Ask(Ask {
        host,
        ring: ring(ring_number),
        epoch,
        bytes,
        lease: seconds(30),
    })
}

fn no_memory(ring_number: u8, epoch: u32, needed_bytes: u64, free_bytes: u64) -> Effect {
    let refusal = Refusal::NoMemory {
        needed_bytes,
        free_bytes,
    };
    Effect::Refuse(ring(ring_number), epoch, refusal)
}

/// Each step: second, event, effects.
#[track_caller]
fn check(steps: Vec<(u64, Event<u8>, Vec<Effect>)>) -> Table<u8> {
    let mut table = Table::new(10 * GIB);
    for (number, (at, event, wanted)) in steps.into_iter().enumerate() {
        let got = table.handle(event, seconds(at));
        assert_eq!(got, wanted, "step {number}");
    }
    table
}

#[test]
fn memory_is_free_only_once_the_stage_is_gone() {
    let table = check(vec![
        (0, ask(1, 1, 1, 6 * GIB), vec![Effect::Grant(ring(1), 1)]),
        (
            1,
            ask(2, 2, 1, 6 * GIB),
            vec![no_memory(2, 1, 6 * GIB, 4 * GIB)],
        ),
        (
            2,
            Event::Release(ring(1), 1),
            vec![Effect::End(ring(1), 1, Ending::Released)],
        ),
        (
            3,
            ask(2, 2, 1, 6 * GIB),
            vec![no_memory(2, 1, 6 * GIB, 4 * GIB)],
        ),
        (4, Event::Gone(ring(1), 1), vec![]),
        (5, ask(2, 2, 1, 6 * GIB), vec![Effect::Grant(ring(2), 1)]),
    ]);
    assert_eq!(table.free_bytes(), 4 * GIB);
}

#[test]
fn absurd_sizes_and_foreign_rings_are_refused() {
    let terabytes = 10 << 40;
    check(vec![
        (
            0,
            ask(1, 1, 1, terabytes),
            vec![no_memory(1, 1, terabytes, 10 * GIB)],
        ),
        (
            0,
            ask(1, 1, 1, u64::MAX),
            vec![no_memory(1, 1, u64::MAX, 10 * GIB)],
        ),
        (0, ask(1, 1, 1, GIB), vec![Effect::Grant(ring(1), 1)]),
        (
            0,
            ask(2, 1, 2, GIB),
            vec![Effect::Refuse(ring(1), 2, Refusal::Taken)],
        ),
        (
            0,
            ask(1, 1, 1, GIB),
            vec![Effect::Refuse(ring(1), 1, Refusal::OldEpoch { epoch: 1 })],
        ),
    ]);
    let mut table = Table::new(u64::MAX);
    for number in 0..u8::try_from(RINGS_MAX).unwrap() {
        table.handle(ask(1, number, 1, 1), seconds(0));
    }
    let full = table.handle(ask(1, 99, 1, 1), seconds(0));
    assert_eq!(full, [Effect::Refuse(ring(99), 1, Refusal::Full)]);
}

#[test]
fn a_lease_ends_unless_it_is_renewed() {
    let table = check(vec![
        (0, ask(1, 1, 1, GIB), vec![Effect::Grant(ring(1), 1)]),
        (29, Event::Renew(ring(1), 1), vec![]),
        (30, Event::Time, vec![]),
        (58, Event::Time, vec![]),
        (
            59,
            Event::Time,
            vec![Effect::End(ring(1), 1, Ending::Expired)],
        ),
        (60, Event::Renew(ring(1), 1), vec![]),
        (90, Event::Time, vec![]),
        (91, Event::Gone(ring(1), 1), vec![]),
    ]);
    assert_eq!((table.rings(), table.next_end()), (0, None));
}

#[test]
fn a_newer_epoch_waits_for_the_older_one_to_go() {
    check(vec![
        (0, ask(1, 1, 1, 6 * GIB), vec![Effect::Grant(ring(1), 1)]),
        (
            1,
            ask(1, 1, 2, 8 * GIB),
            vec![Effect::End(ring(1), 1, Ending::Replaced)],
        ),
        (
            2,
            ask(1, 1, 3, 9 * GIB),
            vec![Effect::Refuse(ring(1), 2, Refusal::Replaced)],
        ),
        (2, Event::Gone(ring(1), 2), vec![]),
        (3, Event::Gone(ring(1), 1), vec![Effect::Grant(ring(1), 3)]),
        (
            4,
            ask(1, 1, 4, 11 * GIB),
            vec![
                Effect::End(ring(1), 3, Ending::Replaced),
                no_memory(1, 4, 11 * GIB, 10 * GIB),
            ],
        ),
        (5, Event::Gone(ring(1), 3), vec![]),
    ]);
}

#[test]
fn a_waiting_epoch_can_be_released_and_expires_too() {
    let begin = |release: Event<u8>, at, refusal| {
        check(vec![
            (0, ask(1, 1, 1, GIB), vec![Effect::Grant(ring(1), 1)]),
            (
                1,
                ask(1, 1, 2, GIB),
                vec![Effect::End(ring(1), 1, Ending::Replaced)],
            ),
            (at, release, vec![Effect::Refuse(ring(1), 2, refusal)]),
            (at, Event::Gone(ring(1), 1), vec![]),
        ])
    };
    for (event, at) in [(Event::Release(ring(1), 2), 2), (Event::Time, 31)] {
        assert_eq!(begin(event, at, Refusal::Replaced).rings(), 0);
    }
}

proptest! {
    /// Whatever hosts and stages do, memory is never promised twice, and nothing stays once nobody asks.
    #[test]
    fn no_memory_is_promised_twice_and_none_leaks(
        events in proptest::collection::vec((0..6u8, 0..3u8, 0..4u8, 0..8u32, 0..7u64, 0..9u64), 1..200),
    ) {
        let mut table = Table::new(10 * GIB);
        let mut now = seconds(0);
        // Stages that run or are about to end.
        let mut alive: BTreeSet<(RingId, u32)> = BTreeSet::new();
        for (kind, host, number, epoch, gib, passed) in events {
            now += seconds(passed);
            let event = match kind {
                0 | 1 => ask(host, number, epoch, gib * GIB),
                2 => Event::Renew(ring(number), epoch),
                3 => Event::Release(ring(number), epoch),
                4 => Event::Gone(ring(number), epoch),
                _ => Event::Time,
            };
            if let Event::Gone(ring, epoch) = event {
                alive.remove(&(ring, epoch));
            }
            for effect in table.handle(event, now) {
                match effect {
                    Effect::Grant(ring, epoch) => prop_assert!(alive.insert((ring, epoch))),
                    Effect::End(ring, epoch, _) => prop_assert!(alive.contains(&(ring, epoch))),
                    Effect::Refuse(..) => {}
                }
            }
            let held = table.rings.iter().filter_map(|(r, e)| Some((*r, e.current?.epoch)));
            prop_assert_eq!(held.collect::<BTreeSet<_>>(), alive.clone());
            prop_assert!(table.used_bytes() <= 10 * GIB);
        }
        let ending = table.handle(Event::Time, now + LEASE_MAX);
        prop_assert!(table.next_end().is_none());
        drop(ending);
        for (ring, epoch) in alive {
            let effects = table.handle(Event::Gone(ring, epoch), now + LEASE_MAX);
            prop_assert!(effects.is_empty());
        }
        prop_assert_eq!(table.rings(), 0);
        prop_assert_eq!(table.free_bytes(), 10 * GIB);
    }
}
