//! The controller against one link with a queue, packet by packet, on a clock of its own.

use std::collections::VecDeque;

use super::*;

const MTU: u16 = 1_400;

const MS: Duration = Duration::from_millis(1);

/// Ends the beginning, in which the window doubles beyond what fits.
const BEGINNING: Duration = Duration::from_secs(2);

/// A link, and how a test of it goes.
#[derive(Debug, Clone, Copy)]
struct Link {
    round_trip: Duration,
    bits_per_second: u64,
    /// One packet in so many is lost; 0 for none.
    loses_one_in: u64,
    /// Packets that would wait longer are lost.
    queue_max: Duration,
    lasts: Duration,
}

const LINK: Link = Link {
    round_trip: Duration::from_millis(20),
    bits_per_second: 100_000_000,
    loses_one_in: 0,
    queue_max: Duration::from_millis(100),
    lasts: Duration::from_secs(8),
};

/// What came of it, after the beginning.
#[derive(Debug)]
struct Outcome {
    queue_mean: Duration,
    queue_max: Duration,
    /// Of what the link could have carried, percent.
    used_percent: u64,
}

/// A packet on its way.
struct Packet {
    sent: Instant,
    told: Instant,
    is_lost: bool,
}

/// Sends over the link as much as the controller allows.
fn send(link: Link) -> Outcome {
    let start = Instant::now();
    let bytes = u64::from(MTU);
    let takes = Duration::from_nanos(bytes * 8 * 1_000_000_000 / link.bits_per_second);
    let mut controller = Scavenger::new(start, MTU);
    let mut on_its_way: VecDeque<Packet> = VecDeque::new();
    let (mut now, mut free_at) = (start, start);
    let (mut number, mut arrived, mut counted) = (0_u64, 0_u64, 0_u32);
    let (mut queue_sum, mut queue_max) = (Duration::ZERO, Duration::ZERO);
    while now < start + link.lasts {
        while (on_its_way.len() as u64 + 1) * bytes <= controller.window() {
            number += 1;
            let queue = free_at.saturating_duration_since(now);
            let by_chance = link.loses_one_in > 0 && number.is_multiple_of(link.loses_one_in);
            let is_lost = by_chance || queue > link.queue_max;
            if queue <= link.queue_max {
                free_at = free_at.max(now) + takes;
            }
            on_its_way.push_back(Packet {
                sent: now,
                told: free_at + link.round_trip,
                is_lost,
            });
            if now >= start + BEGINNING {
                counted += 1;
                queue_sum += queue;
                queue_max = queue_max.max(queue);
            }
        }
        let packet = on_its_way.pop_front().unwrap();
        now = now.max(packet.told);
        if packet.is_lost {
            controller.lost(now, packet.sent, bytes, false);
            continue;
        }
        controller.acknowledged(now, packet.sent, bytes, false);
        controller.all_acknowledged(now);
        if now >= start + BEGINNING {
            arrived += bytes;
        }
    }
    let carried = (link.lasts - BEGINNING).as_millis() * u128::from(link.bits_per_second) / 8_000;
    Outcome {
        queue_mean: queue_sum / counted.max(1),
        queue_max,
        used_percent: u64::try_from(u128::from(arrived) * 100 / carried).unwrap(),
    }
}

#[test]
fn a_link_is_used_and_its_queue_stays_short() {
    let check = |link: Link, used_percent_min: u64| {
        let outcome = send(link);
        let margin = MARGIN + link.round_trip / MARGIN_SHARE;
        assert!(
            outcome.used_percent >= used_percent_min
                && outcome.queue_mean < margin
                && outcome.queue_max < margin * 2,
            "{link:?}: {outcome:?}"
        );
    };
    check(LINK, 90);
    let near = Link {
        round_trip: MS,
        ..LINK
    };
    check(near, 90);
    let far = Link {
        round_trip: 80 * MS,
        ..LINK
    };
    check(far, 80);
    let narrow = Link {
        bits_per_second: 10_000_000,
        ..LINK
    };
    check(narrow, 90);
    // Losses by chance say nothing of queues.
    let lossy = Link {
        loses_one_in: 100,
        ..LINK
    };
    check(lossy, 70);
    // A queue that is too short to tell of itself loses packets.
    let shallow = Link {
        queue_max: 3 * MS,
        ..LINK
    };
    check(shallow, 70);
}

#[test]
fn many_losses_make_the_window_smaller_and_few_do_not() {
    let start = Instant::now();
    let mut controller = Scavenger::new(start, MTU);
    controller.window = 1_000_000;
    let (sent, now) = (start + MS, start + 2 * MS);
    controller.lost(now, sent, 20_000, false);
    assert_eq!(controller.window(), 1_000_000);
    controller.lost(now, sent, 1, false);
    assert_eq!(controller.window(), 700_000);
    // Once for what was sent before.
    controller.lost(now + MS, now, 500_000, false);
    assert_eq!(controller.window(), 700_000);
    // A router that marks packets means it.
    controller.lost(now + MS, now + MS, 0, true);
    assert_eq!(controller.window(), 490_000);
    controller.begin_anew(now + 3 * MS);
    assert_eq!(controller.window(), controller.window_min());
    assert!(controller.is_starting);
}

/// Acknowledges so many packets of one round, all of which took so long.
fn round(controller: &mut Scavenger, now: &mut Instant, round_trip: Duration, app_limited: bool) {
    *now += MS;
    let sent = *now;
    *now += round_trip;
    for _ in 0..SAMPLES_ENOUGH {
        controller.acknowledged(*now, sent, u64::from(MTU), app_limited);
    }
    controller.all_acknowledged(*now);
}

#[test]
fn a_path_that_became_longer_is_used_again() {
    let mut now = Instant::now();
    let mut controller = Scavenger::new(now, MTU);
    for _ in 0..20 {
        round(&mut controller, &mut now, 20 * MS, false);
    }
    let grown = controller.window();
    assert!(grown > 100_000, "{grown}");
    let mut smallest = grown;
    for _ in 0..200 {
        round(&mut controller, &mut now, 60 * MS, false);
        smallest = smallest.min(controller.window());
    }
    assert!(smallest < 2 * controller.window_min(), "{smallest}");
    assert_eq!(controller.shortest, Some(60 * MS));
    assert!(controller.window() > 10 * smallest);
}

#[test]
fn a_window_that_is_not_used_stays() {
    let mut now = Instant::now();
    let mut controller = Scavenger::new(now, MTU);
    round(&mut controller, &mut now, 20 * MS, true);
    round(&mut controller, &mut now, 90 * MS, true);
    assert_eq!(controller.window(), FIRST_WINDOW_BYTES);
    assert_eq!(controller.shortest, Some(20 * MS));
}
