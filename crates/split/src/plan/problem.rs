//! The machines of a search as numbers, by their place in the pool: what they hold, how fast they are, how far
//! from each other, and bounds that follow from that.

use std::fmt::{Debug, Display};
use std::time::Duration;

use super::candidate::Pool;
use super::memory::TENTHS;
use super::search::{FETCH_PERCENT, STAGES_MAX};
use super::share::{Seat, Share};
use super::track::Track;
use super::{HOP_OVERHEAD, ROUND_TRIP_MAX};

/// The machines as numbers.
pub(super) struct Problem<'a> {
    pub(super) track: &'a Track,
    /// Memory in tenths of a byte and attoseconds a byte, by place in the pool.
    pub(super) memory: Vec<u128>,
    pub(super) rates: Vec<u128>,
    has_weights: Vec<bool>,
    /// Most active bytes that a machine's memory could hold.
    holds: Vec<u128>,
    /// Attoseconds of a hop; `None` where it is too far or not known.
    hops: Vec<Option<u128>>,
    /// Attoseconds to the nearest other machine.
    nearest: Vec<u128>,
    /// Places in the pool, fastest first.
    pub(super) machines: Vec<usize>,
    pub(super) host: Option<usize>,
}

impl<'a> Problem<'a> {
    pub(super) fn new<I: Copy + Ord + Debug + Display>(
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
        let hops: Vec<Option<u128>> = (0..count * count)
            .map(|index| pool.between(index / count, index % count))
            .map(|round_trip| round_trip.filter(|&rtt| rtt <= ROUND_TRIP_MAX).map(hop))
            .collect();
        let rows = (0..count).map(|place| &hops[place * count..(place + 1) * count]);
        let nearest = rows.map(|row| row.iter().flatten().copied().min());
        let nearest = nearest.map(|hop| hop.unwrap_or(0)).collect();
        let mut machines = pool.shortlist(host);
        machines.sort_by_key(|&place| (candidates[place].speed.decode(), place));
        Self {
            track,
            rates: candidates.iter().map(|c| c.speed.decode()).collect(),
            has_weights: candidates.iter().map(|c| c.has_weights).collect(),
            memory,
            holds,
            hops,
            nearest,
            machines,
            host,
        }
    }

    /// The machine that runs everything, if one can.
    pub(super) fn whole(&self) -> Option<usize> {
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

    pub(super) fn hop(&self, from: usize, to: usize) -> Option<u128> {
        self.hops[from * self.memory.len() + to]
    }

    pub(super) fn near(&self, place: usize, members: &[usize]) -> bool {
        members
            .iter()
            .all(|&other| self.hop(place, other).is_some())
    }

    pub(super) fn seats(&self, order: &[usize]) -> Option<Vec<Seat>> {
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
    pub(super) fn fetch_bytes(&self, order: &[usize], share: &Share) -> u64 {
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

    /// A set of near machines around one of them: the nearest, with smaller ones replaced by the next
    /// larger until the memory suffices.
    pub(super) fn neighbours(&self, centre: usize, count: usize) -> Option<Vec<usize>> {
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

    pub(super) fn total(&self, members: &[usize]) -> u128 {
        members.iter().map(|&place| self.memory[place]).sum()
    }

    /// For each place in `machines` and each number: the most memory that so many from there on have.
    pub(super) fn richest(&self, count: usize) -> Vec<Vec<u128>> {
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

    /// Least attoseconds a token that a set could take, each hop being the shortest that its sender has.
    /// `rest` is the rate of the machines still to come, if any do.
    pub(super) fn least_time(&self, members: &[usize], rest: Option<u128>) -> Option<u128> {
        let hops = members
            .iter()
            .map(|&place| self.least_hop(place, members, rest.is_some()));
        Some(self.least_compute(members, rest)? + hops.sum::<u128>())
    }

    /// The same without hops: the fastest machines filled first, wherever the cuts are.
    pub(super) fn least_compute(&self, members: &[usize], rest: Option<u128>) -> Option<u128> {
        let mut order = [0; STAGES_MAX];
        let order = &mut order[..members.len()];
        order.copy_from_slice(members);
        order.sort_unstable_by_key(|&place| self.rates[place]);
        let mut left = self.track.active(0..self.track.pieces());
        let mut time = 0;
        for &place in &*order {
            // A wanted host may be slower than those to come, which could then take everything.
            if rest.is_some_and(|rate| rate < self.rates[place]) {
                break;
            }
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

    /// The shortest hop of a member: to another one, or to any machine as long as some are to come.
    fn least_hop(&self, place: usize, members: &[usize], open: bool) -> u128 {
        if open {
            return self.nearest[place];
        }
        let hops = members.iter().filter_map(|&other| self.hop(place, other));
        hops.min().unwrap_or(0)
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

pub(super) fn hop(round_trip: Duration) -> u128 {
    const ATTOSECONDS_PER_NANOSECOND: u128 = 1_000_000_000;
    (round_trip.as_nanos() / 2 + HOP_OVERHEAD.as_nanos()) * ATTOSECONDS_PER_NANOSECOND
}
