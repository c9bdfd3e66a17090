//! The search for the best machines: whole on one if it fits; otherwise the fewest that suffice, and
//! of those the set, order and share that give the most tokens a second.
//!
//! Sets are enumerated from the fastest machines on. A set is left out as soon as its memory can't suffice,
//! two of its members are too far apart, or the least time that it could take is no better than what is known.
//! For up to about ten machines that is an exact search; with more, two budgets bound it, and sets of
//! near neighbours, which are tried first, make sure that something good is known by then.

use std::fmt::{Debug, Display};
use std::time::Duration;

use super::candidate::Pool;
use super::diagnosis::explain;
use super::memory::{Room, TENTHS};
use super::outcome::{Outcome, Plan};
use super::refusal::Refusal;
use super::ring::{Ring, rings};
use super::shape::ModelShape;
use super::share::{Seat, Share, balanced, fastest};
use super::track::Track;
use super::{HOP_OVERHEAD, ROUND_TRIP_MAX};

/// Most machines of one plan. Each hop costs time, and each machine may fail.
pub const STAGES_MAX: usize = 8;

/// When several streams are wanted, a single one may get so many percent slower if that makes the slowest
/// stage faster: that stage bounds them all.
pub const BALANCE_PERCENT: u32 = 10;

/// A machine that must fetch a whole model counts as so many percent slower than one that has it.
pub const FETCH_PERCENT: u32 = 25;

/// Sets that are looked at for one number of machines. Looking takes about 100 ns.
const SETS_MAX: u32 = 50_000;
/// Orders for which layers are shared out, for one number of machines. Sharing takes about 2 µs.
const SHARES_MAX: u32 = 4_000;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<I> {
    /// Cells of the KV cache, shared by all sequences.
    pub context_tokens: u32,
    /// Streams at once.
    pub sequences: u32,
    /// True to split even what fits on one machine.
    pub force_split: bool,
    /// The machine that must be host, if it matters.
    pub host: Option<I>,
}

impl<I> Request<I> {
    /// One stream, whole if possible, whichever host.
    #[must_use]
    pub fn new(context_tokens: u32) -> Self {
        Self {
            context_tokens,
            sequences: 1,
            force_split: false,
            host: None,
        }
    }

    pub(super) fn room(&self) -> Room {
        Room {
            context_tokens: self.context_tokens,
            sequences: self.sequences.max(1),
        }
    }
}

/// Makes the plan.
///
/// # Errors
/// [`Refusal`]: why it can't be, and what would help.
pub fn make<I: Copy + Ord + Debug + Display>(
    model: &ModelShape,
    pool: &Pool<I>,
    request: &Request<I>,
) -> Result<Plan<I>, Refusal<I>> {
    let host = match request.host {
        Some(id) => Some(pool.place(id).ok_or(Refusal::UnknownHost { host: id })?),
        None => None,
    };
    let track = Track::new(model, request.room());
    let problem = Problem::new(pool, &track, host);
    let outcome = Outcome {
        pool,
        track: &track,
        sequences: request.sequences.max(1),
    };
    if !request.force_split
        && let Some(place) = problem.whole()
    {
        return Ok(outcome.whole(place));
    }
    for count in 2..=STAGES_MAX.min(problem.machines.len()).min(track.pieces()) {
        if let Some(found) = problem.best(count) {
            let (ring, share) = problem.settle(found, request.sequences);
            return Ok(outcome.ring(&ring, &share));
        }
    }
    Err(explain(model, pool, &track, request))
}

/// The machines as numbers.
struct Problem<'a> {
    track: &'a Track,
    /// Memory in tenths of a byte and attoseconds a byte, by place in the pool.
    memory: Vec<u128>,
    rates: Vec<u128>,
    has_weights: Vec<bool>,
    /// Most active bytes that a machine's memory could hold.
    holds: Vec<u128>,
    /// Attoseconds of a hop; `None` where it is too far or not known.
    hops: Vec<Option<u128>>,
    /// Places in the pool, fastest first.
    machines: Vec<usize>,
    host: Option<usize>,
}

/// The best of one number of machines.
struct Found {
    ring: Ring,
    share: Share,
    fetch_bytes: u64,
}

impl Found {
    fn rank(&self) -> (u128, u64) {
        (self.ring.delay + self.share.time, self.fetch_bytes)
    }
}

impl<'a> Problem<'a> {
    fn new<I: Copy + Ord + Debug + Display>(
        pool: &Pool<I>,
        track: &'a Track,
        host: Option<usize>,
    ) -> Self {
        let candidates = pool.candidates();
        let count = candidates.len();
        let memory: Vec<u128> = candidates
            .iter()
            .map(|candidate| u128::from(candidate.memory_bytes) * TENTHS)
            .collect();
        let holds = memory.iter().map(|&tenths| holds(track, tenths)).collect();
        let hops = (0..count * count)
            .map(|index| pool.between(index / count, index % count))
            .map(|round_trip| round_trip.filter(|&rtt| rtt <= ROUND_TRIP_MAX).map(hop))
            .collect();
        let mut machines = pool.shortlist(host);
        machines.sort_by_key(|&place| (candidates[place].speed.decode(), place));
        Self {
            track,
            rates: candidates.iter().map(|c| c.speed.decode()).collect(),
            has_weights: candidates.iter().map(|c| c.has_weights).collect(),
            memory,
            holds,
            hops,
            machines,
            host,
        }
    }

    /// The machine that runs everything, if one can.
    fn whole(&self) -> Option<usize> {
        let able = self.machines.iter().copied().filter(|&place| {
            self.memory[place] >= self.track.needed() && self.host.is_none_or(|host| host == place)
        });
        able.min_by_key(|&place| {
            let percent = if self.has_weights[place] {
                100
            } else {
                100 + FETCH_PERCENT
            };
            (
                self.rates[place] * u128::from(percent),
                self.rates[place],
                place,
            )
        })
    }

    fn hop(&self, from: usize, to: usize) -> Option<u128> {
        self.hops[from * self.memory.len() + to]
    }

    fn near(&self, place: usize, members: &[usize]) -> bool {
        members
            .iter()
            .all(|&other| self.hop(place, other).is_some())
    }

    fn seats(&self, order: &[usize]) -> Option<Vec<Seat>> {
        let last = order.len().checked_sub(1)?;
        let seat = |(index, &place): (usize, &usize)| {
            let (kept, head) = if index == last {
                (self.track.host_tenths(), self.track.head_active())
            } else {
                (0, 0)
            };
            Some(Seat {
                tenths: self.memory[place].checked_sub(kept)?,
                rate: self.rates[place],
                fixed: self.rates[place] * head,
            })
        };
        order.iter().enumerate().map(seat).collect()
    }

    /// Bytes that the members of an order must fetch.
    fn fetch_bytes(&self, order: &[usize], share: &Share) -> u64 {
        let last = order.len() - 1;
        let stages = order.iter().zip(&share.stages).enumerate();
        let lacking = stages.filter(|(_, (place, _))| !self.has_weights[**place]);
        let bytes = lacking.map(|(index, (_, stage))| {
            let ends = if index == last {
                self.track.host_bytes()
            } else {
                0
            };
            self.track.weights(stage.clone()) + ends
        });
        bytes.sum()
    }

    /// The fastest ring of `count` machines, or `None` when no such ring holds the model.
    fn best(&self, count: usize) -> Option<Found> {
        let mut search = Search {
            problem: self,
            richest: self.richest(count),
            best: None,
            sets_left: SETS_MAX,
            shares_left: SHARES_MAX,
        };
        for &centre in &self.machines {
            if let Some(members) = self.neighbours(centre, count) {
                search.try_set(&members);
            }
        }
        match self.host {
            Some(host) => search.extend(0, &mut vec![host], count - 1),
            None => search.extend(0, &mut Vec::with_capacity(count), count),
        }
        search.best
    }

    /// A set of near machines around one of them: the nearest, with smaller ones replaced by the next
    /// larger until the memory suffices.
    fn neighbours(&self, centre: usize, count: usize) -> Option<Vec<usize>> {
        let mut others: Vec<(u128, usize)> = self
            .machines
            .iter()
            .filter_map(|&place| Some((self.hop(centre, place)?, place)))
            .collect();
        // A wanted host comes first.
        others.sort_by_key(|&(hop, place)| (Some(place) != self.host, hop, place));
        let mut members = vec![centre];
        for (_, place) in others {
            if !self.near(place, &members) {
                continue;
            }
            if members.len() < count {
                members.push(place);
            } else if self.total(&members) < self.track.needed() {
                let fixed = |member: usize| member == centre || Some(member) == self.host;
                let small = (0..count).filter(|&at| !fixed(members[at]));
                let at = small.min_by_key(|&at| self.memory[members[at]])?;
                if self.memory[place] > self.memory[members[at]] {
                    members[at] = place;
                }
            }
        }
        let hosted = self.host.is_none_or(|host| members.contains(&host));
        (members.len() == count && hosted).then_some(members)
    }

    fn total(&self, members: &[usize]) -> u128 {
        members.iter().map(|&place| self.memory[place]).sum()
    }

    /// For each place in `machines` and each number: the most memory that so many from there on have.
    fn richest(&self, count: usize) -> Vec<Vec<u128>> {
        let mut rows = vec![vec![0; count + 1]];
        let mut largest: Vec<u128> = Vec::new();
        for &place in self.machines.iter().rev() {
            let memory = self.memory[place];
            let at = largest.partition_point(|&other| other >= memory);
            largest.insert(at, memory);
            largest.truncate(count);
            let mut row = vec![0; count + 1];
            for number in 1..=count {
                row[number] = row[number - 1] + largest.get(number - 1).copied().unwrap_or(0);
            }
            rows.push(row);
        }
        rows.reverse();
        rows
    }

    /// Least attoseconds a token that machines could take: the fastest filled first, wherever the cuts
    /// are. `rest` is the rate of the machines still to come, if any do.
    fn least_time(&self, members: &[usize], rest: Option<u128>) -> Option<u128> {
        let mut order: Vec<usize> = members.to_vec();
        order.sort_by_key(|&place| self.rates[place]);
        let mut left = self.track.active(0..self.track.pieces());
        let mut time = 0;
        for &place in &order {
            let taken = left.min(self.holds[place]);
            time += taken * self.rates[place];
            left -= taken;
        }
        let fastest = order.first().map(|&place| self.rates[place]);
        let head = self.track.head_active() * fastest.into_iter().chain(rest).min()?;
        match rest {
            Some(rate) => Some(time + left * rate + head),
            None => (left == 0).then_some(time + head),
        }
    }

    /// The chosen ring with its final share: the fastest, or where several streams are wanted the most
    /// balanced among those about as fast.
    fn settle(&self, found: Found, sequences: u32) -> (Ring, Share) {
        let total = found.ring.delay + found.share.time;
        let give = if sequences > 1 {
            total * u128::from(BALANCE_PERCENT) / 100
        } else {
            0
        };
        let share = self
            .seats(&found.ring.order)
            .and_then(|seats| balanced(self.track, &seats, found.share.time + give));
        (found.ring, share.unwrap_or(found.share))
    }
}

fn holds(track: &Track, tenths: u128) -> u128 {
    let pieces = (0..track.pieces()).map(|piece| {
        let (memory, active) = (
            track.tenths(piece..piece + 1),
            track.active(piece..piece + 1),
        );
        let held = tenths.checked_mul(active)?.checked_div(memory)?;
        Some(held + 1)
    });
    // A piece without weight can be held without end.
    pieces
        .map(|held| held.unwrap_or(u128::MAX))
        .max()
        .unwrap_or(0)
}

fn hop(round_trip: Duration) -> u128 {
    const ATTOSECONDS_PER_NANOSECOND: u128 = 1_000_000_000;
    (round_trip.as_nanos() / 2 + HOP_OVERHEAD.as_nanos()) * ATTOSECONDS_PER_NANOSECOND
}

/// One search for the best set of a given size.
struct Search<'p, 'a> {
    problem: &'p Problem<'a>,
    richest: Vec<Vec<u128>>,
    best: Option<Found>,
    sets_left: u32,
    shares_left: u32,
}

impl Search<'_, '_> {
    /// Tries every set that adds `missing` machines, from place `from` of the order on, to `members`.
    fn extend(&mut self, from: usize, members: &mut Vec<usize>, missing: usize) {
        if missing == 0 {
            let members = members.clone();
            return self.try_set(&members);
        }
        let problem = self.problem;
        for at in from..problem.machines.len() {
            let place = problem.machines[at];
            let memory = problem.total(members) + problem.memory[place];
            let enough = memory + self.richest[at + 1][missing - 1] >= problem.track.needed();
            if !enough || members.contains(&place) || !problem.near(place, members) {
                continue;
            }
            self.sets_left = self.sets_left.saturating_sub(1);
            if self.sets_left == 0 {
                return;
            }
            members.push(place);
            let next = problem.machines.get(at + 1).filter(|_| missing > 1);
            if self.may_win(members, next.map(|&next| problem.rates[next])) {
                self.extend(at + 1, members, missing - 1);
            }
            members.pop();
        }
    }

    fn may_win(&self, members: &[usize], rest: Option<u128>) -> bool {
        match (self.problem.least_time(members, rest), &self.best) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(least), Some(best)) => least <= best.rank().0,
        }
    }

    fn try_set(&mut self, members: &[usize]) {
        let problem = self.problem;
        if problem.total(members) < problem.track.needed() {
            return;
        }
        let Some(least) = problem.least_time(members, None) else {
            return;
        };
        // Members are near each other, or they would not be a set.
        let hop = |from: usize, to: usize| problem.hop(from, to).unwrap_or(u128::MAX >> 8);
        for ring in rings(members, problem.host, &hop) {
            let best = self.best.as_ref().map(Found::rank);
            if best.is_some_and(|(time, _)| least + ring.delay > time) || self.shares_left == 0 {
                return;
            }
            self.shares_left -= 1;
            let seats = problem.seats(&ring.order);
            let Some(share) = seats.and_then(|seats| fastest(problem.track, &seats)) else {
                continue;
            };
            let found = Found {
                fetch_bytes: problem.fetch_bytes(&ring.order, &share),
                ring,
                share,
            };
            if best.is_none_or(|best| found.rank() < best) {
                self.best = Some(found);
            }
        }
    }
}
