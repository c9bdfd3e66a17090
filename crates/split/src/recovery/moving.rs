//! From a ring that runs to another one: because a machine leaves, or another ring is faster.
//!
//! Where there is room for both, the new ring comes up while the old one runs, and streams lose the time of
//! a refill only. Else the old one is let go first. Whatever goes wrong with the new one, the old one runs on;
//! and when the old one breaks, the new one is what comes next.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use super::{Effect, PLAN_MAX, Recovery, State};

/// Shortest time between two moves for the sake of speed: a move costs streams a refill, and what was
/// measured before says little about what comes after it.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(120);

/// The interval doubles with each such move, up to this: machines that are fast and slow in turns.
pub const MOVE_INTERVAL_MAX: Duration = Duration::from_secs(1_800);

/// A ring that was moved no more for so long is where it belongs: intervals begin anew.
const SETTLED: Duration = Duration::from_secs(3_600);

/// Pause before the next attempt to leave a machine that leaves: it waits for some seconds only.
const RETRY: Duration = Duration::from_secs(2);

/// A machine that says it leaves is gone before, or has thought better of it.
const LEAVING_MAX: Duration = Duration::from_secs(120);

/// Why a ring is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Leaving,
    Speed,
}

/// A move that is under way.
#[derive(Debug, Clone)]
pub(super) struct Moving<I> {
    epoch: u32,
    /// Once they are known.
    workers: Option<Vec<I>>,
    deadline: Duration,
    reason: Reason,
}

/// Moves so far.
#[derive(Debug, Clone)]
pub(super) struct Moves<I> {
    /// Machines that are about to stop, and until when they are left out at most.
    pub(super) leaving: BTreeMap<I, Duration>,
    /// No attempt to leave them before.
    retry_at: Duration,
    /// Last attempt for the sake of speed, and how many there were of late.
    last: Option<Duration>,
    count: u32,
}

impl<I> Default for Moves<I> {
    fn default() -> Self {
        Self {
            leaving: BTreeMap::new(),
            retry_at: Duration::ZERO,
            last: None,
            count: 0,
        }
    }
}

impl<I> Moves<I> {
    fn is_due(&self, now: Duration) -> bool {
        self.last.is_none_or(|last| {
            let doublings = self.count.saturating_sub(1).min(6);
            let interval = MOVE_INTERVAL.saturating_mul(1 << doublings);
            now.saturating_sub(last) >= interval.min(MOVE_INTERVAL_MAX)
        })
    }
}

impl<I: Copy + Ord + Debug> Recovery<I> {
    /// Whether another ring is on its way while one runs.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// Whether [`Event::Better`](super::Event::Better) would do something.
    #[must_use]
    pub fn may_move(&self, now: Duration) -> bool {
        let is_running = matches!(self.state, State::Running { .. });
        is_running && self.moving.is_none() && self.moves.is_due(now)
    }

    pub(super) fn is_moving_to(&self, epoch: u32) -> bool {
        let moving = self.moving.as_ref();
        moving.is_some_and(|moving| moving.epoch == epoch)
    }

    /// A machine is about to stop.
    pub(super) fn leaves(&mut self, node: I, now: Duration, effects: &mut Vec<Effect<I>>) {
        if self.moves.leaving.insert(node, now + LEAVING_MAX).is_some() {
            return;
        }
        let goes = |moving: &Moving<I>| moving.workers.as_ref().is_some_and(|w| w.contains(&node));
        // A plan that is made may have it still.
        let is_planned = |moving: &Moving<I>| moving.workers.is_none();
        if self
            .moving
            .as_ref()
            .is_some_and(|m| goes(m) || is_planned(m))
        {
            self.give_move_up(effects);
        }
        self.moves.retry_at = now;
        self.look_for_leavers(now, effects);
    }

    pub(super) fn better(&mut self, now: Duration, effects: &mut Vec<Effect<I>>) {
        if !self.may_move(now) {
            return;
        }
        let last = self.moves.last.replace(now);
        if last.is_none_or(|last| now.saturating_sub(last) >= SETTLED) {
            self.moves.count = 0;
        }
        self.moves.count = self.moves.count.saturating_add(1);
        self.plan_move(Reason::Speed, now, effects);
    }

    /// Whether the ring that runs has a machine that is about to stop.
    fn has_leavers(&self) -> bool {
        let State::Running { workers, .. } = &self.state else {
            return false;
        };
        workers.iter().any(|w| self.moves.leaving.contains_key(w))
    }

    fn look_for_leavers(&mut self, now: Duration, effects: &mut Vec<Effect<I>>) {
        if self.moving.is_none() && self.has_leavers() && self.moves.retry_at <= now {
            self.plan_move(Reason::Leaving, now, effects);
        }
    }

    fn plan_move(&mut self, reason: Reason, now: Duration, effects: &mut Vec<Effect<I>>) {
        self.epoch = self.epoch.saturating_add(1);
        let epoch = self.epoch;
        self.moving = Some(Moving {
            epoch,
            workers: None,
            deadline: now + PLAN_MAX,
            reason,
        });
        effects.push(Effect::Plan {
            epoch,
            without: self.left_out(now),
            is_move: true,
        });
    }

    pub(super) fn move_planned(
        &mut self,
        epoch: u32,
        workers: Vec<I>,
        beside: bool,
        now: Duration,
        effects: &mut Vec<Effect<I>>,
    ) {
        let State::Running { epoch: old, .. } = self.state else {
            return;
        };
        let Some(moving) = &mut self.moving else {
            return;
        };
        if moving.workers.is_some() {
            return;
        }
        let deadline = now + self.raise_max;
        if beside {
            moving.workers = Some(workers.clone());
            moving.deadline = deadline;
        } else {
            let text = match moving.reason {
                Reason::Leaving => "a machine leaves, and another one takes its layers",
                Reason::Speed => "the layers move to where they are computed faster",
            };
            self.moving = None;
            effects.push(Effect::Release { epoch: old });
            effects.push(Effect::Suspend { text: text.into() });
            self.waiting_since = Some(now);
            self.stands_since = None;
            self.deadline = Some(deadline);
            self.state = State::Raising {
                epoch,
                workers: workers.clone(),
            };
        }
        effects.push(Effect::Raise {
            epoch,
            workers,
            beside,
        });
    }

    /// The new ring stands: streams go there.
    pub(super) fn moved(&mut self, now: Duration, effects: &mut Vec<Effect<I>>) {
        let State::Running { epoch: old, .. } = self.state else {
            return;
        };
        let Some(Moving {
            epoch,
            workers: Some(workers),
            ..
        }) = self.moving.take()
        else {
            return;
        };
        self.state = State::Running { epoch, workers };
        self.stands_since = Some(now);
        self.bench.stands(now);
        effects.push(Effect::Resume { epoch });
        effects.push(Effect::Release { epoch: old });
    }

    /// It did not come to be; what runs goes on.
    pub(super) fn move_failed(&mut self, now: Duration) {
        self.moving = None;
        self.moves.retry_at = now + RETRY;
    }

    /// Lets go what there is of a move.
    pub(super) fn give_move_up(&mut self, effects: &mut Vec<Effect<I>>) {
        if let Some(Moving {
            epoch,
            workers: Some(_),
            ..
        }) = self.moving.take()
        {
            effects.push(Effect::Release { epoch });
        }
    }

    /// The ring that ran is lost: true if the one that is on its way takes its place.
    pub(super) fn take_over(&mut self, suspect: Option<I>, effects: &mut Vec<Effect<I>>) -> bool {
        let Some(moving) = self.moving.take() else {
            return false;
        };
        let Some(workers) = moving.workers else {
            return false;
        };
        let epoch = moving.epoch;
        if suspect.is_some_and(|suspect| workers.contains(&suspect)) {
            effects.push(Effect::Release { epoch });
            return false;
        }
        self.state = State::Raising { epoch, workers };
        self.deadline = Some(moving.deadline);
        true
    }

    pub(super) fn next_move(&self) -> Option<Duration> {
        match &self.moving {
            Some(moving) => Some(moving.deadline),
            None => self.has_leavers().then_some(self.moves.retry_at),
        }
    }

    pub(super) fn expire_move(&mut self, now: Duration, effects: &mut Vec<Effect<I>>) {
        if self.moving.as_ref().is_some_and(|m| m.deadline <= now) {
            self.give_move_up(effects);
            self.moves.retry_at = now + RETRY;
        }
        self.moves.leaving.retain(|_, until| *until > now);
        self.look_for_leavers(now, effects);
    }
}
