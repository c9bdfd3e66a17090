//! What steps cost here, and with that how large the next one may be, and how many are in flight.

use std::time::Duration;

use crate::scheduler::cost::{LinkCost, StepCost};
use crate::scheduler::round::{Costs, Pipe};
use crate::scheduler::{Budget, Scheduler, Step};
use crate::stage::Trip;

/// Beside decoding jobs a prompt is evaluated in about so many parts: their streams stall for a
/// part at a time, and between the parts the prompt waits for a decoding step.
const PROMPT_PARTS: f64 = 5.0;
/// A part takes no less, ms: shorter stalls go unnoticed and cost the prompt time.
const STALL_MS_MIN: f64 = 130.0;
/// A part takes no more, ms: long prompts are evaluated in more parts.
const STALL_MS_MAX: f64 = 500.0;
/// Prompt rows take about so long when nobody decodes: a newcomer or a cancellation waits no
/// longer.
const ALONE_MS: f64 = 1000.0;
/// Fewest prompt rows per step, so that a wrong estimate can't starve prompts.
const PREFILL_ROWS_MIN: usize = 16;
/// A prompt alone is evaluated in so many steps for each part of the model: with `k` of them a prompt takes
/// `1 + 1/k` times as long as if all parts had worked all the time.
const PREFILL_STEPS_PER_PART: usize = 2;
/// Fewest rows of such a step: fewer cost nearly as much.
const OVERLAP_ROWS_MIN: usize = 64;
/// Weight of a new step in the running number of rows per job.
const LEARNING_RATE: f64 = 0.1;

/// Steps in flight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    /// With rows of jobs that decode.
    decoding: usize,
    /// With rows of prompts.
    prefilling: usize,
}

impl Traffic {
    pub(super) fn has_prompts(&self) -> bool {
        self.prefilling > 0
    }

    pub(super) fn of<'a>(steps: impl Iterator<Item = &'a Step>) -> Self {
        steps.fold(Self::default(), |sum, step| Self {
            decoding: sum.decoding + usize::from(step.decode_rows() > 0),
            prefilling: sum.prefilling + usize::from(step.prefill_rows > 0),
        })
    }
}

/// How a step went.
pub(super) struct Passed {
    /// From the moment it was sent until its tokens were drawn.
    pub(super) total: Duration,
    /// Of that, drawing tokens.
    pub(super) sampling: Duration,
    pub(super) trip: Option<Trip>,
    /// Nothing else was in flight meanwhile.
    pub(super) alone: bool,
    /// Rows of prompts were, in other steps.
    pub(super) beside_prompts: bool,
}

/// Running means of what steps cost, and what follows from them.
#[derive(Default)]
pub(super) struct Pace {
    /// Of steps alone, and beside others in flight.
    alone: StepCost,
    beside: StepCost,
    link: LinkCost,
    /// Steps with decoding jobs that are wanted in flight.
    groups: usize,
    /// Rows of a decoding job in a step, drafts among them.
    job_rows: Option<f64>,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Pace {
    /// What a step of `jobs` rows or more costs as things are.
    pub(super) fn cost(&self, jobs: usize) -> &StepCost {
        match self.groups {
            2.. if self.beside.step_ms(jobs).is_some() => &self.beside,
            _ => &self.alone,
        }
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.max(1)
    }

    /// `pipe` with what was measured.
    pub(super) fn pipe(&self, pipe: Pipe) -> Pipe {
        Pipe {
            link_ms: self.link.ms(),
            ..pipe
        }
    }

    /// Room for the next step.
    pub(super) fn budget(
        &mut self,
        pipe: &Pipe,
        scheduler: &Scheduler,
        traffic: Traffic,
    ) -> Budget {
        let jobs = scheduler.decoding().count();
        let is_beside = jobs > 0;
        let rows = self.job_rows.unwrap_or(1.0);
        let costs = Costs {
            alone: &self.alone,
            beside: &self.beside,
        };
        self.groups = pipe.groups(jobs, rows, &costs, self.groups);
        let jobs = match self.groups {
            groups if traffic.decoding >= groups => 0,
            1 => usize::MAX,
            groups => jobs.div_ceil(groups),
        };
        let longest = scheduler.longest_prefill();
        // One for each part; alone one more, on its way to the first.
        let parts = pipe.parts.max(1);
        let steps_max = (parts + usize::from(!is_beside)).min(pipe.depth).max(1);
        if traffic.prefilling >= steps_max {
            return Budget {
                jobs,
                beside_decoding: 0,
                alone: 0,
            };
        }
        // Prompts in several steps are never alone.
        let cost = match self.beside.knows_rows() {
            true => &self.beside,
            false => &self.alone,
        };
        let rows = |ms: f64| cost.rows_within(ms).max(PREFILL_ROWS_MIN);
        // At worst a stream's row is sent behind as many steps as may be in flight, of which none has
        // left the first part: it waits for the way of one, and for a part's work on each of the others.
        let share = parts as f64 / (2 * parts - 1) as f64;
        let part = (longest as f64 / PROMPT_PARTS).ceil() as usize;
        let alone = rows(ALONE_MS);
        Budget {
            jobs,
            beside_decoding: part.clamp(rows(STALL_MS_MIN * share), rows(STALL_MS_MAX * share)),
            alone: match pipe.depth {
                0 | 1 => alone,
                _ => longest
                    .div_ceil(PREFILL_STEPS_PER_PART * parts)
                    .max(OVERLAP_ROWS_MIN)
                    .min(alone),
            },
        }
    }

    /// Learns from a step.
    pub(super) fn observe(&mut self, step: &Step, passed: &Passed) {
        let rows = step.rows.len();
        // Prompts take what the machines have: what small steps cost beside them is not what they cost later.
        let mut passing = StepCost::default();
        let cost = match (passed.alone, step.prefill_rows) {
            (true, _) => &mut self.alone,
            (false, 0) if passed.beside_prompts => &mut passing,
            (false, _) => &mut self.beside,
        };
        match passed.trip {
            None => cost.observe(rows, ms(passed.total)),
            Some(trip) => {
                cost.observe(rows, ms(trip.computing + passed.sampling));
                // Large steps take longer on links too.
                if step.prefill_rows == 0 {
                    let link = trip.total.saturating_sub(trip.computing);
                    self.link.observe(ms(link), passed.alone);
                }
            }
        }
        if step.prefill_rows == 0 {
            let rows = rows as f64 / step.jobs().count().max(1) as f64;
            let old = *self.job_rows.get_or_insert(rows);
            self.job_rows = Some(old + LEARNING_RATE * (rows - old));
        }
    }
}
