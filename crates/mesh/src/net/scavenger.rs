//! Owns how much bulk may be on its way to a peer: what the path carries without a queue. Reads no clock.
//!
//! Weights take whatever a path gives, for minutes. A controller that grows until packets are lost keeps the queue before
//! the narrowest link full, and hidden states wait in that queue, whichever connection they are on. So this one gives
//! way as soon as packets take longer than the path needs, as LEDBAT (RFC 6817) does. It compares the shortest of some round trips
//! with the shortest that there was: single ones also tell of machines that are busy. There is no floor as for hidden states
//! (`congestion`).

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iroh::endpoint::{Controller, ControllerFactory, RttEstimator};

/// How much longer than the shortest a round trip may be, beside a share of it. Less is the noise of busy machines; and a
/// token waits for it at each hop that bulk shares.
const MARGIN: Duration = Duration::from_millis(5);

/// That share: one part in so many. Long paths vary more.
const MARGIN_SHARE: u32 = 8;

/// Round trips that are enough to tell of a queue: the first ones of a round, so that the rest of it does not add to one.
const SAMPLES_ENOUGH: u32 = 8;

/// Fewer than this in a round tell nothing: answers to single packets are held back by the other side.
const SAMPLES_MIN: u32 = 4;

/// First window in bytes: ten packets, as RFC 9002 has it. It doubles with each round trip.
const FIRST_WINDOW_BYTES: u64 = 12_000;

/// Packets of the smallest window. As many as tell of a queue, so that the window can grow again.
const PACKETS_MIN: u64 = 4;

/// Largest window in bytes: no more is ever unacknowledged.
const WINDOW_BYTES_MAX: u64 = 16 * 1_024 * 1_024;

/// In each round trip the window grows by one part in so many, or by a packet. Small beside the margin, so that the queue
/// does not outgrow it before this is noticed.
const GROWTH_SHARE: u64 = 64;

/// Packets that are lost by chance: one part in so many of a window, or a single one. BBR takes as many for chance.
const CHANCE_SHARE: u64 = 50;

/// Makes the controllers of connections for bulk.
#[derive(Debug)]
pub(super) struct Scavengers;

impl ControllerFactory for Scavengers {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Scavenger::new(now, mtu))
    }
}

/// What is known of one path.
#[derive(Debug, Clone)]
struct Scavenger {
    mtu: u64,
    /// Bytes that may be on their way.
    window: u64,
    /// No queue was seen yet: the window doubles in each round trip.
    is_starting: bool,
    /// The shortest round trip, which is that of the path without a queue.
    shortest: Option<Duration>,
    round: Round,
    /// When the window became smaller. Packets from before tell nothing of the present one.
    smaller_since: Option<Instant>,
}

/// About one round trip: until a packet is acknowledged that was sent in it.
#[derive(Debug, Clone)]
struct Round {
    began: Instant,
    samples: u32,
    shortest: Duration,
    /// Whether it was looked at for a queue.
    is_judged: bool,
    lost_bytes: u64,
}

impl Round {
    fn begin(now: Instant) -> Self {
        Self {
            began: now,
            samples: 0,
            shortest: Duration::MAX,
            is_judged: false,
            lost_bytes: 0,
        }
    }
}

impl Scavenger {
    fn new(now: Instant, mtu: u16) -> Self {
        Self {
            mtu: u64::from(mtu).max(1),
            window: FIRST_WINDOW_BYTES,
            is_starting: true,
            shortest: None,
            round: Round::begin(now),
            smaller_since: None,
        }
    }

    fn window_min(&self) -> u64 {
        PACKETS_MIN * self.mtu
    }

    fn is_from_before(&self, sent: Instant) -> bool {
        self.smaller_since.is_some_and(|since| sent <= since)
    }

    fn acknowledged(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        let round_trip = now.saturating_duration_since(sent);
        let shortest = self
            .shortest
            .map_or(round_trip, |shortest| shortest.min(round_trip));
        self.shortest = Some(shortest);
        // A window that is not used tells nothing.
        if app_limited || self.is_from_before(sent) {
            return;
        }
        if sent >= self.round.began {
            if self.round.samples >= SAMPLES_MIN && self.gives_way(now) {
                return;
            }
            self.round = Round::begin(now);
        }
        self.round.samples = self.round.samples.saturating_add(1);
        self.round.shortest = self.round.shortest.min(round_trip);
        let growth = if self.is_starting {
            bytes
        } else {
            (bytes * self.mtu / self.window.max(1)).max(bytes / GROWTH_SHARE)
        };
        self.window = self.window.saturating_add(growth).min(WINDOW_BYTES_MAX);
    }

    /// What came with one message is all told. The last packet in it was not held back for others.
    fn all_acknowledged(&mut self, now: Instant) {
        if self.round.samples >= SAMPLES_ENOUGH {
            self.gives_way(now);
        }
    }

    /// Makes the window smaller if the round tells of a queue, which is looked at once: to what the path carries without
    /// one, and by half at most.
    fn gives_way(&mut self, now: Instant) -> bool {
        let in_round = self.round.shortest;
        let shortest = self.shortest.unwrap_or(in_round);
        let is_judged = std::mem::replace(&mut self.round.is_judged, true);
        let margin = MARGIN + shortest / MARGIN_SHARE;
        if is_judged || in_round.saturating_sub(shortest) <= margin {
            return false;
        }
        if self.window < 2 * self.window_min() {
            // It can't be halved any more. With so little on its way the queue is not ours, or the path
            // has become longer.
            self.shortest = Some(in_round);
            self.is_starting = true;
            return false;
        }
        let fits = u128::from(self.window) * shortest.as_nanos() / in_round.as_nanos().max(1);
        let fits = u64::try_from(fits).unwrap_or(self.window);
        self.shrink(now, fits.max(self.window / 2));
        true
    }

    fn shrink(&mut self, now: Instant, window: u64) {
        self.window = window.max(self.window_min());
        self.is_starting = false;
        self.smaller_since = Some(now);
        self.round = Round::begin(now);
    }

    fn lost(&mut self, now: Instant, sent: Instant, bytes: u64, is_marked: bool) {
        if self.is_from_before(sent) {
            return;
        }
        self.round.lost_bytes = self.round.lost_bytes.saturating_add(bytes);
        let by_chance = (self.window / CHANCE_SHARE).max(self.mtu);
        if is_marked || self.round.lost_bytes > by_chance {
            // As Cubic does.
            self.shrink(now, self.window / 10 * 7);
        }
    }

    /// Nothing arrived for long: everything is to be found out anew.
    fn begin_anew(&mut self, now: Instant) {
        self.shrink(now, 0);
        self.is_starting = true;
    }
}

impl Controller for Scavenger {
    fn window(&self) -> u64 {
        self.window
    }

    fn initial_window(&self) -> u64 {
        FIRST_WINDOW_BYTES
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _packet: u64,
        app_limited: bool,
        _round_trip: &RttEstimator,
    ) {
        self.acknowledged(now, sent, bytes, app_limited);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        _in_flight: u64,
        _app_limited: bool,
        _largest: Option<u64>,
    ) {
        self.all_acknowledged(now);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent: bool,
        is_ecn: bool,
        lost_bytes: u64,
        _largest_lost: u64,
    ) {
        if is_persistent {
            self.begin_anew(now);
        } else {
            self.lost(now, sent, lost_bytes, is_ecn);
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu).max(1);
        self.window = self.window.max(self.window_min());
    }
}

#[cfg(test)]
mod tests;
