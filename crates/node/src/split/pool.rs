//! Who could run layers of a model, from what the mesh says. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::NodeId;
use mesh::Role;
use mesh::announcement::Compute;
use mesh::proto::{Liveness, Member, View};
use split::plan::nodes::BANDWIDTH_GB_S_DEFAULT;
use split::plan::{CANDIDATES_MAX, Candidate, Pool, Speed};

use super::distances::is_plausible;

/// Round trip that is assumed where none is measured: a stranger somewhere on the continent.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(50);

/// Round trips from here on are taken to be a little shorter than measured: the ends of a link add something.
const LONG_FROM_US: u32 = 20_000;

/// So many parts in a hundred of a long round trip are the ends' own: timers, and whatever else runs there.
const ENDS_PERCENT: u64 = 2;

/// What evaluation reaches of the bandwidth of memory, where no machine was measured with the model.
const EFFICIENCY_DEFAULT: f64 = 0.75;

/// Up to so many other members are all connected with this one before long.
const LINKED_MAX: usize = 8;

/// Machines that are asked how far they are from each other. A ring has fewer, and pairs grow with the square.
const ASKED_MAX: usize = 8;

/// This machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) node: NodeId,
    /// Memory that the model may take here, bytes; `None`: it takes no part.
    pub(super) memory_bytes: Option<u64>,
    pub(super) compute: Option<Compute>,
}

/// What was measured of a model's layers on a machine with so many threads.
pub(super) type Measured<'a> = &'a dyn Fn(NodeId, u32) -> Option<Speed>;

/// Microseconds from one machine to another, as the first said when it was asked.
pub(super) type Told<'a> = &'a dyn Fn(NodeId, NodeId) -> Option<u32>;

/// Everything that says who could take part.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) view: &'a View,
    pub(super) own: Own,
    pub(super) fingerprint: &'a str,
    pub(super) measured: Measured<'a>,
    pub(super) told: Told<'a>,
    /// Machines to do without.
    pub(super) without: &'a BTreeSet<NodeId>,
    /// What a stage takes on each of them, whatever its layers, bytes.
    pub(super) stage_bytes: u64,
    /// What the model has of members already, bytes.
    pub(super) held: &'a BTreeMap<NodeId, u64>,
    /// Whether that stays where it is.
    pub(super) beside: bool,
    /// The most that a machine may be planned with, where it has said so, bytes.
    pub(super) most_bytes: &'a dyn Fn(NodeId) -> Option<u64>,
}

/// A machine's threads, as far as it says.
pub(super) fn threads(compute: Option<Compute>) -> u32 {
    compute.map_or(0, |compute| compute.threads)
}

impl Scene<'_> {
    fn bytes(&self, member: &Member) -> u64 {
        let held = self.held.get(&member.node).copied().unwrap_or(0);
        let free = member.announcement().info.memory_free_bytes;
        let free = free.saturating_sub(self.stage_bytes);
        let most = (self.most_bytes)(member.node).unwrap_or(u64::MAX);
        lendable(free, held, self.beside).min(most)
    }

    fn members(&self) -> Vec<&Member> {
        let could = |member: &&Member| {
            member.node != self.own.node
                // Who is silent may be gone: finding that out by a lease takes longer.
                && member.liveness == Liveness::Alive
                && member.role() == Role::Serve
                && !self.without.contains(&member.node)
                && self.bytes(member) > 0
        };
        let mut members: Vec<&Member> = self.view.alive().filter(could).collect();
        members.sort_by_key(|member| std::cmp::Reverse(self.bytes(member)));
        members.truncate(CANDIDATES_MAX - 1);
        members
    }

    /// Machines whose speed with the model is not known, though they could be asked.
    pub(super) fn unmeasured(&self) -> Vec<NodeId> {
        let unknown = |member: &&Member| {
            let compute = member.announcement().info.compute;
            (self.measured)(member.node, threads(compute)).is_none()
        };
        let members = self.members();
        members
            .into_iter()
            .filter(unknown)
            .map(|m| m.node)
            .collect()
    }

    /// Pairs of the machines with the most memory, and of them with this one, whose round trip nobody has told unasked.
    pub(super) fn unlinked(&self) -> Vec<(NodeId, NodeId)> {
        let mut members = self.members();
        members.truncate(ASKED_MAX);
        let mut pairs = Vec::new();
        for (index, member) in members.iter().enumerate() {
            if member.round_trip_us.is_none() {
                pairs.push((self.own.node, member.node));
            }
            let unlinked = |other: &&&Member| {
                announced(member, other.node).is_none() && announced(other, member.node).is_none()
            };
            let others = members[..index].iter().filter(unlinked);
            pairs.extend(others.map(|other| (member.node, other.node)));
        }
        pairs
    }

    /// Whether it is known how far each machine is from here. In a large mesh it never is: only some are connected.
    pub(super) fn is_linked(&self) -> bool {
        let members = self.members();
        members.len() > LINKED_MAX || members.iter().all(|m| m.round_trip_us.is_some())
    }

    /// Whether every machine has said how fast its memory is.
    pub(super) fn is_known(&self) -> bool {
        let knows = |member: &&Member| member.announcement().info.compute.is_some();
        self.own.compute.is_some() && self.members().iter().all(knows)
    }

    /// Machines that could take part and the round trips between them. Who lacks the model's file fetches its
    /// layers.
    pub(super) fn pool(&self) -> Option<Pool<NodeId>> {
        let own = self.own;
        let members = self.members();
        let computes = members
            .iter()
            .map(|member| (member.node, member.announcement().info.compute));
        let computes: Vec<_> = [(own.node, own.compute)]
            .into_iter()
            .chain(computes)
            .collect();
        let guess = Guess::of(&computes, self.measured)?;
        let has = |member: &Member| {
            let local = &member.announcement().info.local;
            local
                .iter()
                .any(|local| local.fingerprint == self.fingerprint)
        };
        let here = own
            .memory_bytes
            .map(|bytes| (own.node, own.compute, bytes, true));
        let others = members.iter().map(|member| {
            let compute = member.announcement().info.compute;
            (member.node, compute, self.bytes(member), has(member))
        });
        let candidates = here.into_iter().chain(others);
        let candidates = candidates.map(|(id, compute, memory_bytes, has_weights)| Candidate {
            id,
            memory_bytes,
            speed: (self.measured)(id, threads(compute)).unwrap_or_else(|| guess.speed(compute)),
            has_weights,
        });
        let mut pool = Pool::new(candidates).ok()?;
        for (index, member) in members.iter().enumerate() {
            if own.memory_bytes.is_some() {
                pool.link(own.node, member.node, self.own_to(member)).ok()?;
            }
            for other in &members[..index] {
                pool.link(member.node, other.node, self.between(member, other))
                    .ok()?;
            }
        }
        Some(pool)
    }

    fn own_to(&self, member: &Member) -> Duration {
        let told = || (self.told)(self.own.node, member.node);
        let us = member.round_trip_us.or_else(told);
        us.map_or(ROUND_TRIP_UNKNOWN, round_trip)
    }

    /// What they say themselves; else as far as the farther one is from here. It may be up to twice as far or next
    /// door.
    fn between(&self, one: &Member, other: &Member) -> Duration {
        let ways = [(one, other), (other, one)];
        let announced = ways.map(|(from, to)| announced(from, to.node));
        let told = ways.map(|(from, to)| (self.told)(from.node, to.node));
        let guess = || self.own_to(one).max(self.own_to(other));
        longer(announced, told).map_or_else(guess, round_trip)
    }
}

/// How fast a machine is with the model that nobody has measured there: by the bandwidth of its memory, of which
/// it makes as much as those that were measured.
struct Guess {
    like: Speed,
    efficiency: f64,
}

impl Guess {
    fn of(computes: &[(NodeId, Option<Compute>)], measured: Measured<'_>) -> Option<Self> {
        let mut known: Vec<(f64, Speed)> = computes
            .iter()
            .filter_map(|(node, compute)| {
                let speed = measured(*node, threads(*compute))?;
                let bandwidth = bandwidth(*compute)?;
                Some((speed.bytes_per_s().0 / bandwidth, speed))
            })
            .collect();
        known.sort_by(|a, b| a.0.total_cmp(&b.0));
        match known.get(known.len() / 2) {
            Some((efficiency, like)) => Some(Self {
                like: *like,
                efficiency: *efficiency,
            }),
            None => Some(Self {
                like: Speed::from_bandwidth(BANDWIDTH_GB_S_DEFAULT * 1e9).ok()?,
                efficiency: EFFICIENCY_DEFAULT,
            }),
        }
    }

    fn speed(&self, compute: Option<Compute>) -> Speed {
        let bandwidth = bandwidth(compute).unwrap_or(BANDWIDTH_GB_S_DEFAULT * 1e9);
        // Nonsense of a peer, or a model of a few bytes: as fast as the one that was measured.
        self.like
            .with_decode(bandwidth * self.efficiency)
            .unwrap_or(self.like)
    }
}

/// Bytes that a machine can lend, of which the model holds some. What a machine announces hardly knows of
/// stages: their weights are mapped files, which the system counts as free, and what its owner allows counts without them.
fn lendable(free_bytes: u64, held_bytes: u64, beside: bool) -> u64 {
    match beside {
        true => free_bytes.saturating_sub(held_bytes),
        // A machine without files to map may count them all the same; what it has, it can keep.
        false => free_bytes.max(held_bytes),
    }
}

fn bandwidth(compute: Option<Compute>) -> Option<f64> {
    let mb_s = compute?.bandwidth_mb_s;
    (mb_s > 0).then(|| f64::from(mb_s) * 1e6)
}

/// A measured round trip, without what its ends add where it is long: that of a link of 80 ms, which the planner
/// just takes, is measured as 80.1 to 81.5.
pub(super) fn round_trip(us: u32) -> Duration {
    let us = match us {
        0..LONG_FROM_US => u64::from(us),
        _ => (u64::from(us) * (100 - ENDS_PERCENT) / 100).max(LONG_FROM_US.into()),
    };
    Duration::from_micros(us)
}

/// The round trip from a member to another as it announces it, microseconds.
fn announced(from: &Member, to: NodeId) -> Option<u32> {
    let trips = &from.announcement().round_trips;
    let trip = trips.iter().find(|trip| trip.is_to(to));
    trip.map(|trip| trip.us).filter(|us| is_plausible(*us))
}

/// The round trip between two machines, of what each says of the way to the other, microseconds. An announcement comes
/// before what was said when asked, because it is newer. Where both ends say something the longer one counts: a
/// machine comes no nearer by what it says than the others say.
fn longer(announced: [Option<u32>; 2], told: [Option<u32>; 2]) -> Option<u32> {
    let says = |end: usize| announced[end].or(told[end]);
    says(0).max(says(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(bandwidth_mb_s: u32) -> Option<Compute> {
        Some(Compute {
            bandwidth_mb_s,
            threads: 4,
        })
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn a_link_is_as_long_as_it_is_called() {
        let pairs = [
            (0, 0),
            (19_999, 19_999),
            // Never shorter than a shorter one.
            (20_001, 20_000),
            (20_713, 20_298),
            (50_000, 49_000),
            (u32::MAX, 4_209_067_949),
        ];
        for (us, wanted_us) in pairs {
            assert_eq!(round_trip(us), Duration::from_micros(wanted_us), "{us}");
        }
        let is_near = |us| round_trip(us) <= split::plan::ROUND_TRIP_MAX;
        assert!(is_near(80_100) && is_near(81_500));
        assert!(!is_near(82_000));
    }

    #[test]
    fn the_longer_of_what_both_ends_say_counts() {
        let cases = [
            ([None, None], [None, None], None),
            ([Some(900), None], [None, None], Some(900)),
            ([None, Some(900)], [None, None], Some(900)),
            ([Some(900), Some(700)], [None, None], Some(900)),
            ([None, None], [Some(40), None], Some(40)),
            ([None, None], [Some(40), Some(50)], Some(50)),
            // What is announced is newer than what the same machine said before.
            ([Some(10), None], [Some(40), None], Some(10)),
            ([Some(10), None], [Some(40), Some(20)], Some(20)),
        ];
        for (announced, told, wanted) in cases {
            assert_eq!(longer(announced, told), wanted, "{announced:?} {told:?}");
        }
    }

    /// GB/s that machines of some bandwidths (MB/s) are taken to decode with, if the first ones were measured.
    #[track_caller]
    fn check(bandwidths: &[u32], measured_gb_s: &[f64], wanted_gb_s: &[f64]) {
        let computes: Vec<_> = (0..)
            .zip(bandwidths)
            .map(|(number, mb_s)| (node(number), compute(*mb_s)))
            .collect();
        let measured = |asked: NodeId, threads: u32| {
            let place = computes.iter().position(|(node, _)| *node == asked)?;
            let gb_s = measured_gb_s.get(place).filter(|_| threads == 4)?;
            Speed::from_bandwidth(gb_s * 1e9).ok()
        };
        let guess = Guess::of(&computes, &measured).unwrap();
        let got = computes
            .iter()
            .map(|(_, compute)| guess.speed(*compute).bytes_per_s().0 / 1e9);
        for (got, wanted) in got.zip(wanted_gb_s) {
            assert!(
                (got - wanted).abs() < wanted * 1e-6,
                "{got} GB/s, not {wanted}"
            );
        }
    }

    #[test]
    fn memory_is_not_counted_twice() {
        assert_eq!(lendable(320, 130, false), 320);
        assert_eq!(lendable(0, 130, false), 130);
        assert_eq!(lendable(320, 130, true), 190);
        assert_eq!(lendable(100, 130, true), 0);
    }

    #[test]
    fn a_machine_that_was_not_measured_is_guessed_by_those_that_were() {
        check(&[100_000, 40_000], &[], &[75.0, 30.0]);
        check(&[100_000, 40_000, 0], &[50.0], &[50.0, 20.0, 50.0]);
        check(
            &[100_000, 40_000, 10_000],
            &[50.0, 30.0],
            &[75.0, 30.0, 7.5],
        );
        // Too slow to be true: as the measured one.
        check(&[100_000, 1], &[0.000_01], &[0.000_01, 0.000_01]);
    }
}
