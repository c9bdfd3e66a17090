//! Owns one direction between two hosts: which packets get lost, when the others arrive, and those
//! on their way. Deterministic; neither reads a clock nor moves bytes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::link::{Counters, Link};

/// Most bytes on their way in one direction: 10 Gbit/s for 50 ms. More is dropped.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// One direction, with packets of type `P`.
pub(super) struct Path<P> {
    link: Link,
    cut: bool,
    loss_dice: StdRng,
    jitter_dice: StdRng,
    /// When the last bit of what was admitted has left, where there is a rate.
    free_at: Option<Instant>,
    /// When the latest packet arrives. None may overtake it.
    latest: Option<Instant>,
    /// In the order of their arrival.
    waiting: VecDeque<Waiting<P>>,
    waiting_bytes: usize,
    counters: Counters,
}

struct Waiting<P> {
    at: Instant,
    bytes: usize,
    packet: P,
}

impl<P> Path<P> {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            cut: false,
            loss_dice: StdRng::seed_from_u64(link.seed),
            jitter_dice: StdRng::seed_from_u64(link.seed),
            free_at: None,
            latest: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            counters: Counters::default(),
        }
    }

    pub(super) fn link(&self) -> Link {
        self.link
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// From now on `link`, with fresh dice. Packets on their way arrive as it was decided for them.
    pub(super) fn set(&mut self, link: Link) {
        self.link = link;
        self.loss_dice = StdRng::seed_from_u64(link.seed);
        self.jitter_dice = StdRng::seed_from_u64(link.seed);
        self.free_at = None;
    }

    /// Lets nothing through, not even what is on its way, until it is restored.
    pub(super) fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
        if cut {
            self.counters.cut += self.waiting.len() as u64;
            self.counters.passed -= self.waiting.len() as u64;
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
    }

    /// Decides on a packet that comes at `now`: when it arrives, if it does. A packet whose time
    /// is not yet there must be kept with [`keep`](Self::keep).
    pub(super) fn admit(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.cut {
            self.counters.cut += 1;
            return None;
        }
        if self.link.loss > 0.0 && self.loss_dice.random::<f64>() < self.link.loss {
            self.counters.lost += 1;
            return None;
        }
        let Some(sent_at) = self.send(now, bytes) else {
            self.counters.overflowed += 1;
            return None;
        };
        let mut arrives_at = sent_at + self.link.delay;
        if !self.link.jitter.is_zero() {
            arrives_at += self.link.jitter.mul_f64(self.jitter_dice.random::<f64>());
        }
        if let Some(latest) = self.latest {
            arrives_at = arrives_at.max(latest);
        }
        self.latest = Some(arrives_at);
        self.counters.passed += 1;
        Some(arrives_at)
    }

    /// When the last bit of a packet is on the wire; `None` if there is no room for it.
    fn send(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.waiting_bytes + bytes > WAITING_BYTES_MAX {
            return None;
        }
        let Some(rate_bits) = self.link.rate_bits else {
            return Some(now);
        };
        let starts_at = self.free_at.map_or(now, |free_at| free_at.max(now));
        if starts_at - now > self.link.queue {
            return None;
        }
        let ends_at = starts_at + Duration::from_secs_f64(bytes as f64 * 8.0 / rate_bits as f64);
        self.free_at = Some(ends_at);
        Some(ends_at)
    }

    /// Keeps an admitted packet until its time.
    pub(super) fn keep(&mut self, at: Instant, bytes: usize, packet: P) {
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { at, bytes, packet });
    }

    /// When the next packet arrives.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.at)
    }

    /// The next packet that has arrived by `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<P> {
        let waiting = self.waiting.pop_front_if(|waiting| waiting.at <= now)?;
        self.waiting_bytes -= waiting.bytes;
        self.counters.late_max = self.counters.late_max.max(now - waiting.at);
        Some(waiting.packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends `count` packets of `bytes`, one each `every`; gives what is left of each.
    fn fates(link: Link, count: u32, bytes: usize, every: Duration) -> Vec<Option<Duration>> {
        let mut path = Path::<()>::new(link);
        let start = Instant::now();
        let sent = (0..count).map(|index| start + every * index);
        sent.map(|now| path.admit(now, bytes).map(|at| at - now))
            .collect()
    }

    #[test]
    fn delay_is_exact_and_nothing_else_happens() {
        let link = Link::round_trip_ms(21);
        let expected = Some(Duration::from_micros(10_500));
        assert_eq!(fates(link, 50, 1_500, MS), vec![expected; 50]);
        assert_eq!(
            fates(Link::default(), 1, 1_500, MS),
            vec![Some(Duration::ZERO)]
        );
    }

    #[test]
    fn loss_follows_the_seed() {
        let link = Link::default().with_loss(0.01);
        let fate = fates(link, 10_000, 100, MS);
        let lost = fate.iter().filter(|fate| fate.is_none()).count();
        assert!((70..130).contains(&lost), "{lost}");
        assert_eq!(fate, fates(link, 10_000, 100, MS));
        assert_ne!(fate, fates(link.with_seed(2), 10_000, 100, MS));
        // Jitter is drawn from dice of its own.
        let jittery = fates(link.with_jitter_ms(3), 10_000, 100, MS);
        assert!(
            fate.iter()
                .zip(&jittery)
                .all(|(a, b)| a.is_none() == b.is_none())
        );
        let all = fates(Link::default().with_loss(1.0), 100, 100, MS);
        assert!(all.iter().all(Option::is_none));
    }

    #[test]
    fn jitter_stays_in_its_range_and_in_order() {
        let link = Link::round_trip_ms(20).with_jitter_ms(5);
        let every = Duration::from_micros(100);
        let fate: Vec<_> = fates(link, 1_000, 100, every)
            .into_iter()
            .flatten()
            .collect();
        assert!(fate.iter().all(|took| (10 * MS..=15 * MS).contains(took)));
        // Packets that come close together wait for each other; those that come one by one show the
        // whole range.
        let apart = fates(link, 1_000, 100, 10 * MS);
        assert!(apart.iter().flatten().any(|took| *took > 14 * MS));
        assert!(apart.iter().flatten().any(|took| *took < 12 * MS));
        let arrivals = fate
            .iter()
            .zip(0..)
            .map(|(took, index)| *took + every * index);
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn a_rate_spreads_packets_and_drops_what_the_queue_does_not_hold() {
        // 1,250 bytes at 10 Mbit/s take 1 ms.
        let link = Link::default().with_rate_mbit(10);
        let fate = fates(link, 200, 1_250, Duration::ZERO);
        for (index, took) in (1..=101).zip(&fate) {
            assert_eq!(*took, Some(MS * index));
        }
        assert!(fate[101..].iter().all(Option::is_none));
        let short = fates(link.with_queue_ms(20), 200, 1_250, Duration::ZERO);
        assert_eq!(short.iter().flatten().count(), 21);
        // Those that come as fast as the link is never wait.
        assert_eq!(fates(link, 200, 1_250, MS), vec![Some(MS); 200]);
    }

    #[test]
    fn kept_packets_come_out_at_their_time() {
        let mut path = Path::new(Link::round_trip_ms(20));
        let start = Instant::now();
        for index in 0..3 {
            let now = start + MS * index;
            let at = path.admit(now, 10).unwrap();
            path.keep(at, 10, index);
        }
        assert_eq!(path.next_at(), Some(start + MS * 10));
        assert_eq!(path.take(start + MS * 9), None);
        assert_eq!(path.take(start + MS * 11), Some(0));
        assert_eq!(path.take(start + MS * 11), Some(1));
        assert_eq!(path.take(start + MS * 11), None);
        assert_eq!(path.take(start + MS * 12), Some(2));
        assert_eq!(path.next_at(), None);
        assert_eq!(path.counters().late_max, MS);
    }

    #[test]
    fn a_cut_takes_what_is_on_its_way_until_it_is_restored() {
        let mut path = Path::new(Link::round_trip_ms(20));
        let now = Instant::now();
        let at = path.admit(now, 10).unwrap();
        path.keep(at, 10, ());
        path.set_cut(true);
        assert_eq!(path.admit(now, 10), None);
        assert_eq!(path.take(now + MS * 100), None);
        path.set_cut(false);
        assert!(path.admit(now, 10).is_some());
        let counters = Counters {
            passed: 1,
            cut: 2,
            ..Counters::default()
        };
        assert_eq!(path.counters(), counters);
    }

    #[test]
    fn what_is_on_its_way_is_bounded() {
        let mut path = Path::new(Link::round_trip_ms(20));
        let now = Instant::now();
        let packet = 1 << 20;
        for _ in 0..64 {
            let at = path.admit(now, packet).unwrap();
            path.keep(at, packet, ());
        }
        assert_eq!(path.admit(now, packet), None);
        assert_eq!(path.counters().overflowed, 1);
        path.take(now + MS * 10).unwrap();
        assert!(path.admit(now, packet).is_some());
    }

    #[test]
    fn a_new_setting_holds_for_new_packets() {
        let mut path = Path::new(Link::round_trip_ms(20));
        let now = Instant::now();
        let slow = path.admit(now, 10).unwrap();
        path.keep(slow, 10, "slow");
        path.set(Link::default());
        // It may not overtake the one before.
        assert_eq!(path.admit(now, 10), Some(slow));
        assert_eq!(path.admit(slow + MS, 10), Some(slow + MS));
    }
}
