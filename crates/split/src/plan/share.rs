//! How layers are shared among machines whose order in the ring is settled: the share with the least
//! time a token, and among shares about as fast the one whose slowest stage is fastest.

use std::collections::VecDeque;
use std::ops::Range;

use super::track::Track;

/// A machine's place in the ring. The last seat is the host's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    /// Memory for layers, in tenths of a byte.
    pub(super) tenths: u128,
    /// Attoseconds for each active byte.
    pub(super) rate: u128,
    /// Attoseconds beside the layers: the host's head.
    pub(super) fixed: u128,
}

impl Seat {
    pub(super) fn time(&self, track: &Track, stage: Range<usize>) -> u128 {
        self.rate * track.active(stage) + self.fixed
    }

    fn takes(&self, track: &Track, stage: Range<usize>, time_max: u128) -> bool {
        track.tenths(stage.clone()) <= self.tenths && self.time(track, stage) <= time_max
    }
}

/// Which pieces each seat runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// Ranges of cut indices, seat by seat; none is empty.
    pub(super) stages: Vec<Range<usize>>,
    /// Attoseconds of all stages together.
    pub(super) time: u128,
}

impl Share {
    /// Attoseconds of the slowest stage.
    pub(super) fn bottleneck(&self, track: &Track, seats: &[Seat]) -> u128 {
        let times = self.stages.iter().zip(seats);
        let times = times.map(|(stage, seat)| seat.time(track, stage.clone()));
        times.max().unwrap_or(0)
    }
}

/// The share with the least time, or `None` when the seats can't hold the model.
///
/// Dynamic programming over seats and cuts. A stage's time is linear in the bytes it reads, and what fits
/// before a cut also fits when it starts later, so the best start of each stage is the minimum of a
/// sliding window: one pass over the cuts a seat.
pub(super) fn fastest(track: &Track, seats: &[Seat]) -> Option<Share> {
    fastest_within(track, seats, u128::MAX)
}

/// Like [`fastest`], with no stage slower than `stage_time_max`.
fn fastest_within(track: &Track, seats: &[Seat], stage_time_max: u128) -> Option<Share> {
    let pieces = track.pieces();
    // Least time of the seats so far when they run everything before a cut.
    let mut least: Vec<Option<u128>> = vec![None; pieces + 1];
    least[0] = Some(0);
    let mut starts = Vec::with_capacity(seats.len());
    for seat in seats {
        let (next, start) = add_seat(track, seat, &least, stage_time_max);
        least = next;
        starts.push(start);
    }
    let time = least[pieces]?;
    let mut end = pieces;
    let mut stages = Vec::with_capacity(seats.len());
    for start in starts.iter().rev() {
        stages.push(start[end]..end);
        end = start[end];
    }
    stages.reverse();
    Some(Share { stages, time })
}

/// One more seat: the least time up to each cut, and where the seat starts for it.
fn add_seat(
    track: &Track,
    seat: &Seat,
    least: &[Option<u128>],
    stage_time_max: u128,
) -> (Vec<Option<u128>>, Vec<usize>) {
    let mut next = vec![None; least.len()];
    let mut starts = vec![0; least.len()];
    // Possible starts, ascending, with the time before them less the seat's own time up to them: the
    // smallest is in front.
    let mut window: VecDeque<(usize, i128)> = VecDeque::new();
    for end in 1..least.len() {
        let start = end - 1;
        if let Some(time) = least[start] {
            let value = signed(time) - signed(seat.rate * track.active_before(start));
            while window.back().is_some_and(|&(_, other)| other > value) {
                window.pop_back();
            }
            window.push_back((start, value));
        }
        while let Some(&(start, _)) = window.front()
            && !seat.takes(track, start..end, stage_time_max)
        {
            window.pop_front();
        }
        if let Some(&(start, value)) = window.front() {
            let time = value + signed(seat.rate * track.active_before(end) + seat.fixed);
            next[end] = u128::try_from(time).ok();
            starts[end] = start;
        }
    }
    (next, starts)
}

/// Times stay far below 2^127: sizes and rates are bounded where they come in.
fn signed(time: u128) -> i128 {
    i128::try_from(time).unwrap_or(i128::MAX / 4)
}

/// The share whose slowest stage is fastest, among those that take at most `time_max` in all.
pub(super) fn balanced(track: &Track, seats: &[Seat], time_max: u128) -> Option<Share> {
    let mut best = fastest(track, seats).filter(|share| share.time <= time_max)?;
    // The least time grows as stages are bounded more tightly, so bisection finds the tightest bound.
    // Each round halves a number of at most 128 bits.
    let mut low = 0;
    let mut high = best.bottleneck(track, seats);
    while low < high {
        let middle = low + (high - low) / 2;
        match fastest_within(track, seats, middle).filter(|share| share.time <= time_max) {
            Some(share) => {
                high = share.bottleneck(track, seats);
                best = share;
            }
            None => low = middle + 1,
        }
    }
    Some(best)
}
