//! What a host does when a machine of its ring is lost. Pure: events and the time go in, effects come
//! out, so that thousands of bad days can be simulated.
//!
//! ```text
//!            ┌──────────────── a change, or time ───────────────┐
//!            ▼                                                  │
//! begin ─▶ planning ── no plan ─────────────────────────────▶ waiting
//!            │  ▲                                               ▲
//!            ▼  └── not raised, somebody to leave out ──┐       │
//!          raising ─────────────────────────────────────┴───────┘ nobody to blame
//!            │  ▲
//!            ▼  └── (planning) ◀── lost
//!          running ◀─┐
//!            └───────┘ move: planned and raised while the old ring runs, if there is room for both
//! ```
//!
//! Each plan begins a new epoch, and whatever still comes from an older one counts for nothing. Streams
//! wait from a loss until the next ring stands; after [`PATIENCE`] they are told that it has not worked, and after
//! [`NOTHING_FITS_MAX`] if there is nobody to try it with.
//! Whoever is suspected is left out for a while, longer each time. A worker that accuses others is believed
//! once: nobody can prove an accusation, and a liar would otherwise empty the mesh.

mod advantage;
mod bench;
mod moving;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

pub use advantage::{Advantage, Sight};
use bench::Bench;
pub use moving::{MOVE_INTERVAL, MOVE_INTERVAL_MAX};
use moving::{Moves, Moving};

/// How long streams wait for a new ring. A person waits no longer; loading a stage from a slow disk
/// takes one minute of it.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How long they wait for machines that would have room, when those that are there have none. A machine that
/// falls silent is missed after five seconds and some, so that all of it takes ten.
pub const NOTHING_FITS_MAX: Duration = Duration::from_secs(4);

/// How long making a plan may take: it is computed, but it may need a header from a peer.
const PLAN_MAX: Duration = Duration::from_secs(60);

/// First wait after an attempt that failed without anybody to blame.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Attempts that follow a loss at once; after so many in a row each one waits.
const AT_ONCE_MAX: u32 = 4;

/// A ring that stood for so long was of use.
const STEADY: Duration = Duration::from_secs(60);

/// Longest wait before the next attempt, whatever happens.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<I> {
    /// A ring is wanted.
    Begin,
    /// There is a plan; these are its workers, in their order.
    Planned {
        /// Which plan.
        epoch: u32,
        /// Its workers.
        workers: Vec<I>,
        /// For a move: whether there is room for the new ring beside the one that runs.
        beside: bool,
    },
    /// The model does not fit on who is there.
    NoPlan {
        /// Which plan.
        epoch: u32,
        /// Why, for people.
        text: String,
    },
    /// The ring stands.
    Raised {
        /// Which one.
        epoch: u32,
    },
    /// The ring did not come to be, or it is broken.
    Lost {
        /// Which one.
        epoch: u32,
        /// Who is the most likely cause.
        suspect: Option<I>,
        /// Who says so, if the host did not see it itself.
        accuser: Option<I>,
        /// What happened, for people.
        text: String,
    },
    /// Machines came or went, or some memory is free again.
    Changed,
    /// A machine is there again, started anew.
    Returned(I),
    /// A machine is about to stop, and waits for its rings to go elsewhere.
    Leaves(I),
    /// Another ring would be so much faster that going there pays.
    Better,
    /// A stream waits for the ring.
    Waits,
    /// Time has passed.
    Time,
    /// The ring is no longer wanted.
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<I> {
    /// Make a plan.
    Plan {
        /// Number of the plan, and of the ring that comes of it.
        epoch: u32,
        /// Machines that it must do without.
        without: BTreeSet<I>,
        /// A ring runs meanwhile.
        is_move: bool,
    },
    /// Lease, load and connect what was planned.
    Raise {
        /// Which plan.
        epoch: u32,
        /// Its workers.
        workers: Vec<I>,
        /// The ring that runs must not be disturbed: its leases are not those of this one.
        beside: bool,
    },
    /// Let go whatever there is of this epoch: the ring, or the attempt to raise it.
    Release {
        /// Which.
        epoch: u32,
    },
    /// Streams wait. Nothing more comes of the steps that were under way.
    Suspend {
        /// Why, for people.
        text: String,
    },
    /// Fill the KV caches again with what the streams have, and go on.
    Resume {
        /// The ring.
        epoch: u32,
    },
    /// All streams that wait end with this error.
    Fail {
        /// What to tell.
        text: String,
    },
    /// Tell people that the model waits for machines or memory.
    Waiting {
        /// Why.
        text: String,
    },
}

/// Where the machine stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State<I> {
    /// Nobody wants a ring.
    Idle,
    /// A plan is made.
    Planning {
        /// Its number.
        epoch: u32,
    },
    /// Stages are leased, loaded and connected.
    Raising {
        /// Which ring.
        epoch: u32,
        /// Its workers.
        workers: Vec<I>,
    },
    /// The ring stands.
    Running {
        /// Which ring.
        epoch: u32,
        /// Its workers.
        workers: Vec<I>,
    },
    /// There is nothing to be done at the moment.
    Waiting {
        /// Why, for people.
        text: String,
    },
    /// It is over.
    Stopped,
}

/// The state machine of one ring.
#[derive(Debug, Clone)]
pub struct Recovery<I> {
    state: State<I>,
    epoch: u32,
    /// When the state has lasted too long.
    deadline: Option<Duration>,
    bench: Bench<I>,
    /// Attempts since the last ring that stood for long.
    attempts: u32,
    stands_since: Option<Duration>,
    /// Since when streams wait.
    waiting_since: Option<Duration>,
    /// Since when there has been no plan, or streams were told so, and why.
    nothing_fits: Option<(Duration, String)>,
    raise_max: Duration,
    /// On the way to another ring while this one runs.
    moving: Option<Moving<I>>,
    moves: Moves<I>,
}

impl<I: Copy + Ord + Debug> Recovery<I> {
    /// A ring that may take `raise_max` to come up. Epochs begin behind `epoch`: it must be as high as any
    /// that this ring's number was used with.
    #[must_use]
    pub fn new(epoch: u32, raise_max: Duration) -> Self {
        Self {
            state: State::Idle,
            epoch,
            deadline: None,
            bench: Bench::default(),
            attempts: 0,
            stands_since: None,
            waiting_since: None,
            nothing_fits: None,
            raise_max,
            moving: None,
            moves: Moves::default(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> &State<I> {
        &self.state
    }

    /// When [`Event::Time`] is due.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let patience = self.waiting_since.map(|since| since + PATIENCE);
        let nothing_fits = self.nothing_fits.as_ref();
        let nothing_fits = nothing_fits.map(|(since, _)| *since + NOTHING_FITS_MAX);
        let ends = [self.deadline, patience, nothing_fits, self.next_move()];
        ends.into_iter().flatten().min()
    }

    /// Takes an event in.
    pub fn handle(&mut self, event: Event<I>, now: Duration) -> Vec<Effect<I>> {
        let mut effects = Vec::new();
        if self.state == State::Stopped {
            // What was still under way when it stopped must not stay.
            if let Event::Raised { epoch } = event {
                effects.push(Effect::Release { epoch });
            }
            return effects;
        }
        match event {
            Event::Begin => {
                if self.state == State::Idle {
                    self.plan(now, &mut effects);
                }
            }
            Event::Planned {
                epoch,
                workers,
                beside,
            } => match self.is_moving_to(epoch) {
                true => self.move_planned(epoch, workers, beside, now, &mut effects),
                false => self.planned(epoch, workers, now, &mut effects),
            },
            Event::NoPlan { epoch, text } => {
                if self.is_moving_to(epoch) {
                    self.move_failed(now);
                } else if self.state == (State::Planning { epoch }) {
                    let since = self.nothing_fits.take().map_or(now, |(since, _)| since);
                    self.nothing_fits = Some((since, text.clone()));
                    self.wait(text, RETRY_MAX, now, &mut effects);
                }
            }
            Event::Raised { epoch } => match self.is_moving_to(epoch) {
                true => self.moved(now, &mut effects),
                false => self.raised(epoch, now, &mut effects),
            },
            Event::Lost {
                epoch,
                suspect,
                accuser,
                ..
            } if self.is_moving_to(epoch) => {
                effects.push(Effect::Release { epoch });
                self.bench.suspect(suspect, accuser, now);
                self.move_failed(now);
            }
            Event::Lost {
                epoch,
                suspect,
                accuser,
                text,
            } => self.lost(epoch, suspect, accuser, text, now, &mut effects),
            Event::Changed => self.look_again(now, &mut effects),
            Event::Returned(node) => {
                self.bench.returned(node);
                self.moves.leaving.remove(&node);
                self.look_again(now, &mut effects);
            }
            Event::Leaves(node) => self.leaves(node, now, &mut effects),
            Event::Better => self.better(now, &mut effects),
            Event::Waits => {
                if !matches!(self.state, State::Running { .. }) {
                    self.waiting_since.get_or_insert(now);
                }
            }
            Event::Time => {}
            Event::Stop => self.stop(&mut effects),
        }
        self.expire(now, &mut effects);
        effects
    }

    fn plan(&mut self, now: Duration, effects: &mut Vec<Effect<I>>) {
        self.epoch = self.epoch.saturating_add(1);
        let epoch = self.epoch;
        self.state = State::Planning { epoch };
        self.deadline = Some(now + PLAN_MAX);
        let without = self.left_out(now);
        let is_move = false;
        effects.push(Effect::Plan {
            epoch,
            without,
            is_move,
        });
    }

    /// Machines that a plan must do without at the moment.
    #[must_use]
    pub fn without(&self, now: Duration) -> BTreeSet<I> {
        self.left_out(now)
    }

    fn left_out(&self, now: Duration) -> BTreeSet<I> {
        let mut out = self.bench.left_out(now);
        let leaving = self.moves.leaving.iter();
        out.extend(
            leaving
                .filter(|(_, until)| **until > now)
                .map(|(node, _)| *node),
        );
        out
    }

    fn planned(
        &mut self,
        epoch: u32,
        workers: Vec<I>,
        now: Duration,
        effects: &mut Vec<Effect<I>>,
    ) {
        if self.state != (State::Planning { epoch }) {
            return;
        }
        self.deadline = Some(now + self.raise_max);
        self.nothing_fits = None;
        effects.push(Effect::Raise {
            epoch,
            workers: workers.clone(),
            beside: false,
        });
        self.state = State::Raising { epoch, workers };
    }

    fn raised(&mut self, raised: u32, now: Duration, effects: &mut Vec<Effect<I>>) {
        match &self.state {
            State::Raising { epoch, workers } if *epoch == raised => {
                let (epoch, workers) = (*epoch, workers.clone());
                self.state = State::Running { epoch, workers };
                self.deadline = None;
                self.stands_since = Some(now);
                self.waiting_since = None;
                self.bench.stands(now);
                effects.push(Effect::Resume { epoch });
            }
            State::Running { epoch, .. } if *epoch == raised => {}
            // It was given up meanwhile.
            _ => effects.push(Effect::Release { epoch: raised }),
        }
    }

    fn lost(
        &mut self,
        lost: u32,
        suspect: Option<I>,
        accuser: Option<I>,
        text: String,
        now: Duration,
        effects: &mut Vec<Effect<I>>,
    ) {
        let is_running = match &self.state {
            State::Running { epoch, .. } if *epoch == lost => true,
            State::Raising { epoch, .. } if *epoch == lost => false,
            _ => return,
        };
        effects.push(Effect::Release { epoch: lost });
        if is_running {
            self.waiting_since = Some(now);
            effects.push(Effect::Suspend { text: text.clone() });
        }
        let stood = self.stands_since.take();
        if stood.is_some_and(|since| now.saturating_sub(since) >= STEADY) {
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        let is_blamed = self.bench.blame(suspect, accuser, now);
        if is_running && self.take_over(suspect, effects) {
            return;
        }
        // The next ring does without somebody, or the last one has been of use.
        if self.attempts <= AT_ONCE_MAX && (is_blamed || is_running) {
            self.plan(now, effects);
        } else {
            let doublings = self.attempts.min(6);
            let pause = RETRY_MIN.saturating_mul(1 << doublings);
            self.wait(text, pause.min(RETRY_MAX), now, effects);
        }
    }

    fn wait(&mut self, text: String, pause: Duration, now: Duration, effects: &mut Vec<Effect<I>>) {
        let next = now + pause;
        let pardon = self.bench.next_pardon(now);
        self.deadline = Some(pardon.map_or(next, |pardon| pardon.min(next)));
        // There may be streams that have never seen a ring.
        self.waiting_since.get_or_insert(now);
        effects.push(Effect::Waiting { text: text.clone() });
        self.state = State::Waiting { text };
    }

    fn look_again(&mut self, now: Duration, effects: &mut Vec<Effect<I>>) {
        if matches!(self.state, State::Waiting { .. }) {
            self.plan(now, effects);
        }
    }

    fn stop(&mut self, effects: &mut Vec<Effect<I>>) {
        if let State::Raising { epoch, .. } | State::Running { epoch, .. } = self.state {
            effects.push(Effect::Release { epoch });
        }
        self.give_move_up(effects);
        let text = "the model is no longer served here".to_owned();
        effects.push(Effect::Fail { text });
        self.state = State::Stopped;
        self.deadline = None;
        self.waiting_since = None;
        self.nothing_fits = None;
    }

    fn expire(&mut self, now: Duration, effects: &mut Vec<Effect<I>>) {
        let is_over = |end: Option<Duration>| end.is_some_and(|end| end <= now);
        if let Some((since, text)) = &mut self.nothing_fits
            && *since + NOTHING_FITS_MAX <= now
        {
            // Whoever comes meanwhile is told next time.
            *since = now;
            effects.push(Effect::Fail { text: text.clone() });
            self.waiting_since = None;
        }
        if is_over(self.waiting_since.map(|since| since + PATIENCE)) {
            self.waiting_since = None;
            let text = match &self.state {
                State::Waiting { text } => format!("the model's machines are lost: {text}"),
                _ => "the model's machines could not be brought together in time".to_owned(),
            };
            effects.push(Effect::Fail { text });
        }
        self.expire_move(now, effects);
        if !is_over(self.deadline) {
            return;
        }
        match &self.state {
            State::Planning { .. } => {
                let text = "no plan was made in time".to_owned();
                self.wait(text, RETRY_MIN, now, effects);
            }
            State::Raising { epoch, .. } => {
                let (epoch, text) = (*epoch, "the ring did not stand in time".to_owned());
                self.lost(epoch, None, None, text, now, effects);
            }
            State::Waiting { .. } => self.plan(now, effects),
            State::Idle | State::Running { .. } | State::Stopped => self.deadline = None,
        }
    }
}

#[cfg(test)]
mod tests;
