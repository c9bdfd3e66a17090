//! Why the search found nothing: looks for the first thing that, were it otherwise, might have helped.

use std::fmt::{Debug, Display};
use std::time::Duration;

use super::ROUND_TRIP_MAX;
use super::candidate::Pool;
use super::memory::TENTHS;
use super::refusal::Refusal;
use super::search::{Request, STAGES_MAX};
use super::shape::ModelShape;
use super::track::{Track, bytes};

/// The reason. Only asked when there is no plan.
pub(super) fn explain<I: Copy + Ord + Debug + Display>(
    model: &ModelShape,
    pool: &Pool<I>,
    track: &Track,
    request: &Request<I>,
) -> Refusal<I> {
    let needed_bytes = bytes(track.needed());
    let mut memory: Vec<u64> = pool.candidates().iter().map(|c| c.memory_bytes).collect();
    memory.sort_unstable_by(|a, b| b.cmp(a));
    let Some(&largest_bytes) = memory.first() else {
        return Refusal::NoMachines;
    };
    let available_bytes = sum(memory.iter().copied());
    if model.parts().cuts.is_empty() {
        return Refusal::Unsplittable {
            architecture: model.parts().architecture.clone(),
            needed_bytes,
            largest_bytes,
            is_asked: request.force_split,
        };
    }
    if available_bytes < needed_bytes {
        return Refusal::Memory {
            needed_bytes,
            available_bytes,
            missing_bytes: needed_bytes - available_bytes,
        };
    }
    if let Some(refusal) = host_too_small(pool, track, request) {
        return refusal;
    }
    if memory.len() == 1 {
        return Refusal::Alone {
            is_asked: request.force_split,
        };
    }
    if let Some(refusal) = distance(pool, needed_bytes) {
        return refusal;
    }
    if sum(memory.into_iter().take(STAGES_MAX)) < needed_bytes {
        return Refusal::TooManyStages { needed_bytes };
    }
    let pieces = (0..track.pieces()).map(|piece| track.tenths(piece..piece + 1));
    Refusal::NoShare {
        needed_bytes,
        available_bytes,
        piece_bytes: bytes(pieces.max().unwrap_or(0)),
    }
}

fn sum(memory: impl Iterator<Item = u64>) -> u64 {
    memory.fold(0, u64::saturating_add)
}

fn host_too_small<I: Copy + Ord + Debug + Display>(
    pool: &Pool<I>,
    track: &Track,
    request: &Request<I>,
) -> Option<Refusal<I>> {
    let host = request.host?;
    let available_bytes = pool.candidates()[pool.place(host)?].memory_bytes;
    let last = track.pieces() - 1..track.pieces();
    let needed = track.tenths(last) + track.host_tenths();
    (u128::from(available_bytes) * TENTHS < needed).then(|| Refusal::Host {
        host,
        needed_bytes: bytes(needed),
        available_bytes,
    })
}

/// Whether distances are the reason, and which of them.
fn distance<I: Copy + Ord + Debug + Display>(
    pool: &Pool<I>,
    needed_bytes: u64,
) -> Option<Refusal<I>> {
    let near = |round_trip: Option<Duration>| round_trip.is_some_and(|rtt| rtt <= ROUND_TRIP_MAX);
    let near_bytes = around(pool, near);
    let candidates = pool.candidates();
    let count = candidates.len();
    let pairs = || (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
    let all_near = pairs().all(|(a, b)| near(pool.between(a, b)));
    // Machines may all be near one of them, but not near each other.
    if all_near {
        return None;
    }
    let unknown = pairs().find(|&(a, b)| pool.between(a, b).is_none());
    let with_unknown = around(pool, |round_trip| round_trip.is_none() || near(round_trip));
    if let Some((a, b)) = unknown.filter(|_| with_unknown >= needed_bytes) {
        return Some(Refusal::UnknownRoundTrip {
            needed_bytes,
            near_bytes,
            from: candidates[a].id,
            to: candidates[b].id,
        });
    }
    let far = pairs().filter_map(|(a, b)| Some((pool.between(a, b)?, a, b)));
    let (round_trip, a, b) = far.filter(|&(rtt, _, _)| rtt > ROUND_TRIP_MAX).min()?;
    Some(Refusal::TooFar {
        needed_bytes,
        near_bytes,
        from: candidates[a].id,
        to: candidates[b].id,
        round_trip,
    })
}

/// Most memory of a machine together with those that count as near it.
fn around<I: Copy + Ord + Debug + Display>(
    pool: &Pool<I>,
    near: impl Fn(Option<Duration>) -> bool,
) -> u64 {
    let candidates = pool.candidates();
    let groups = (0..candidates.len()).map(|centre| {
        let members = candidates.iter().enumerate();
        let members =
            members.filter(|(other, _)| *other == centre || near(pool.between(centre, *other)));
        sum(members.map(|(_, candidate)| candidate.memory_bytes))
    });
    groups.max().unwrap_or(0)
}
