//! The search for the best machines: whole on one if it fits; otherwise the fewest that suffice, and
//! of those the set, order and share that give the most tokens a second.
//!
//! Sets are enumerated from the fastest machines on. A set is left out as soon as its memory can't suffice,
//! two of its members are too far apart, or the least time that it could take is no better than what is known.
//! For up to seven machines in up to four stages that is an exact search; beyond, budgets bound it, and sets of
//! near neighbours, which are tried first, make sure that something good is known by then.

use std::fmt::{Debug, Display};

use super::candidate::Pool;
use super::diagnosis::explain;
use super::memory::Room;
use super::outcome::{Outcome, Plan};
use super::problem::Problem;
use super::refusal::Refusal;
use super::ring::{Ring, rings};
use super::shape::ModelShape;
use super::share::{Share, balanced, fastest};
use super::track::Track;

/// Most machines of one plan. Each hop costs time, and each machine may fail.
pub const STAGES_MAX: usize = 8;

/// When several streams are wanted, a single one may get so many percent slower if that makes the slowest
/// stage faster: that stage bounds them all.
pub const BALANCE_PERCENT: u32 = 10;

/// A machine that must fetch a whole model counts as so many percent slower than one that has it.
pub const FETCH_PERCENT: u32 = 25;

/// Sets, also incomplete ones, that are looked at for one number of machines. Looking takes a fraction of a
/// microsecond.
const SETS_MAX: u32 = 10_000;

/// Complete sets whose orders are listed, for one number of machines: all sets of 5 out of 10. Listing takes
/// some 20 µs.
const TRIES_MAX: u32 = 300;

/// Orders for which layers are shared out, for one number of machines: all orders of 4 out of 7. Sharing takes a
/// few microseconds.
const SHARES_MAX: u32 = 1_000;

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
        if let Some(found) = best(&problem, count) {
            let (ring, share) = settle(&problem, found, request.sequences);
            return Ok(outcome.ring(&ring, &share));
        }
    }
    Err(explain(model, pool, &track, request))
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

/// The fastest ring of `count` machines, or `None` when no such ring holds the model.
fn best(problem: &Problem<'_>, count: usize) -> Option<Found> {
    let mut search = Search {
        problem,
        richest: problem.richest(count),
        best: None,
        sets_left: SETS_MAX,
        tries_left: TRIES_MAX,
        shares_left: SHARES_MAX,
    };
    for &centre in &problem.machines {
        if let Some(members) = problem.neighbours(centre, count) {
            search.try_set(&members);
        }
    }
    match problem.host {
        Some(host) => search.extend(0, &mut vec![host], count - 1),
        None => search.extend(0, &mut Vec::with_capacity(count), count),
    }
    search.best
}

/// The chosen ring with its final share: the fastest, or where several streams are wanted the most
/// balanced among those about as fast.
fn settle(problem: &Problem<'_>, found: Found, sequences: u32) -> (Ring, Share) {
    let total = found.ring.delay + found.share.time;
    let give = if sequences > 1 {
        total * u128::from(BALANCE_PERCENT) / 100
    } else {
        0
    };
    let share = problem
        .seats(&found.ring.order)
        .and_then(|seats| balanced(problem.track, &seats, found.share.time + give));
    (found.ring, share.unwrap_or(found.share))
}

/// One search for the best set of a given size.
struct Search<'p, 'a> {
    problem: &'p Problem<'a>,
    richest: Vec<Vec<u128>>,
    best: Option<Found>,
    sets_left: u32,
    tries_left: u32,
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
            if self.sets_left == 0 || self.tries_left == 0 || self.shares_left == 0 {
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
        if !self.may_win(members, None) || self.tries_left == 0 {
            return;
        }
        self.tries_left -= 1;
        let compute = problem.least_compute(members, None).unwrap_or(0);
        // Members are near each other, or they would not be a set.
        let hop = |from: usize, to: usize| problem.hop(from, to).unwrap_or(u128::MAX >> 8);
        for ring in rings(members, problem.host, &hop) {
            let best = self.best.as_ref().map(Found::rank);
            // Rings come nearest first.
            let hopeless = best.is_some_and(|(time, _)| compute + ring.delay > time);
            if hopeless || self.shares_left == 0 {
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
