//! What the decode thread does in a step: plan, send, take in, sample. Where a model is in several parts,
//! steps follow each other before the first is back, so that all parts compute at the same time. What is drawn
//! from it is in `sample`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use llama::Batch;

use super::choice::Piece;
use super::decode::DecodeLoop;
use super::forward::ForwardError;
use super::pace::{Passed, Traffic};
use crate::Error;
use crate::scheduler::round::Pipe;
use crate::scheduler::{CacheOp, Step};
use crate::speculation::{self, Steps};

/// Failed evaluations in a row after which the running requests are given up.
const FAILURES_MAX: u32 = 3;

/// A step in flight.
pub(super) struct Flight {
    step: Step,
    batch: Batch,
    sent: Instant,
    /// Nothing else was in flight meanwhile.
    alone: bool,
    /// Rows of prompts were, in other steps.
    beside_prompts: bool,
    /// How often cells had been given up when it was planned.
    releases: u64,
}

/// What became of the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It is in flight.
    Yes,
    /// There was nothing to send.
    Nothing,
    /// It was given up, or needed no rows; what follows is to be planned anew.
    Failed,
}

impl DecodeLoop {
    /// Sends as many steps as may be in flight, and takes in the oldest.
    pub(super) fn step(&mut self) {
        let mut sent = Sent::Yes;
        while sent == Sent::Yes && self.state.flights.len() < self.forward.pipe().depth.max(1) {
            sent = self.send();
        }
        match self.state.flights.pop_front() {
            Some(flight) => {
                // Parts elsewhere may take long, or for ever: who runs is seen meanwhile.
                self.publish();
                self.take_in(flight);
            }
            None => self.state.nothing_to_do = sent == Sent::Nothing,
        }
    }

    /// Plans a step and sends it.
    fn send(&mut self) -> Sent {
        let traffic = Traffic::of(self.state.flights.iter().map(|flight| &flight.step));
        let pipe = self.pace.pipe(self.forward.pipe());
        let budget = self.pace.budget(&pipe, &self.scheduler, traffic);
        self.draft(pipe, budget.jobs);
        let mut step = self.scheduler.plan(budget);
        if !self.apply_all(&step.ops) {
            return Sent::Failed;
        }
        self.announce(&step);
        let recalled = std::mem::take(&mut step.recalled);
        if step.rows.is_empty() {
            let sent = if recalled.is_empty() {
                Sent::Nothing
            } else {
                Sent::Failed
            };
            self.sample_recalled(recalled);
            return sent;
        }
        let mut batch = self.state.batches.pop().unwrap_or_default();
        batch.clear();
        for row in &step.rows {
            let (position, sequence) = (row.position as i32, row.sequence as i32);
            batch.push(row.token, position, sequence, row.output);
        }
        let sent = Instant::now();
        let submitted = self.forward.submit(&batch);
        let flight = Flight {
            step,
            batch,
            sent,
            alone: self.state.flights.is_empty(),
            beside_prompts: traffic.has_prompts(),
            releases: self.scheduler.releases(),
        };
        // Behind the rows: who ends by it may have some among them.
        let draw = |this: &mut Self| this.sample_recalled(recalled);
        match submitted {
            Ok(()) => {
                if let Some(before) = self.state.flights.back_mut() {
                    before.alone = false;
                }
                if flight.step.prefill_rows > 0 {
                    let flights = self.state.flights.iter_mut();
                    flights.for_each(|other| other.beside_prompts = true);
                }
                self.state.flights.push_back(flight);
                draw(self);
                Sent::Yes
            }
            Err(error) => {
                draw(self);
                self.failed(&flight, error);
                Sent::Failed
            }
        }
    }

    /// Waits for the oldest step, which is out of the list by now.
    fn take_in(&mut self, mut flight: Flight) {
        self.state.nothing_to_do = false;
        match self.forward.receive(&mut flight.batch) {
            Ok(()) => self.passed(flight),
            Err(error) => self.failed(&flight, error),
        }
    }

    /// A step was evaluated.
    fn passed(&mut self, flight: Flight) {
        let Flight {
            step,
            batch,
            sent,
            alone,
            beside_prompts,
            ..
        } = flight;
        self.state.failures = 0;
        self.shared.steps.fetch_add(1, Relaxed);
        let decoded = sent.elapsed();
        self.scheduler.commit(&step);
        self.sample(&step);
        let total = sent.elapsed();
        let passed = Passed {
            total,
            sampling: total - decoded,
            trip: self.forward.trip(),
            alone,
            beside_prompts,
        };
        self.pace.observe(&step, &passed);
        self.state.batches.push(batch);
        let trip = passed.trip.unwrap_or_default();
        tracing::trace!(
            rows = step.rows.len(),
            prefill_rows = step.prefill_rows,
            in_flight = self.state.flights.len(),
            decode_us = decoded.as_micros() as u64,
            sample_us = passed.sampling.as_micros() as u64,
            computing_us = trip.computing.as_micros() as u64,
            link_us = trip.total.saturating_sub(trip.computing).as_micros() as u64,
            groups = self.pace.groups(),
            "step"
        );
    }

    fn failed(&mut self, flight: &Flight, error: ForwardError) {
        match error {
            ForwardError::NoRoom => self.make_room(flight),
            // Whoever waits goes on waiting: the rows are evaluated again when there is somebody to do it.
            ForwardError::Waiting => self.wait(),
            error @ ForwardError::Failed(_) => self.recover(&error.to_string()),
        }
    }

    /// A step found no room. Those behind it may have found some, and their tokens count.
    fn make_room(&mut self, flight: &Flight) {
        let ops = self.scheduler.take_back(&flight.step);
        self.apply_all(&ops);
        while let Some(mut other) = self.state.flights.pop_front() {
            match self.forward.receive(&mut other.batch) {
                Ok(()) => self.passed(other),
                Err(ForwardError::NoRoom) => {
                    let ops = self.scheduler.take_back(&other.step);
                    self.apply_all(&ops);
                }
                Err(error) => return self.failed(&other, error),
            }
        }
        if self.scheduler.releases() != flight.releases {
            // Somebody has ended meanwhile; perhaps that is enough.
            return;
        }
        let ops = self.scheduler.relieve();
        if ops.is_empty() {
            self.recover("the KV cache is full with one request");
        } else {
            self.apply_all(&ops);
        }
    }

    /// Some of the parts are elsewhere by now, or nowhere: what all of them still hold need not be evaluated
    /// again.
    fn wait(&mut self) {
        self.state.flights.clear();
        self.drafter.clear();
        let mut held = self.scheduler.held();
        self.forward.hold(&mut held);
        self.scheduler.forget_but(&held);
    }

    fn forget(&mut self) {
        self.state.flights.clear();
        self.forward.clear();
        self.drafter.clear();
        self.scheduler.forget_all();
    }

    /// After a failed evaluation the KV cache is not to be trusted: forget it and evaluate again;
    /// give up when that fails too.
    fn recover(&mut self, reason: &str) {
        self.state.failures += 1;
        tracing::error!(reason, "a step failed");
        self.forget();
        if self.state.failures >= FAILURES_MAX {
            self.state.failures = 0;
            self.fail_all(&Error::Inference(reason.to_owned()));
        }
    }

    /// False: a stored prefix found no room, and the plan does not hold any more.
    fn apply_all(&mut self, ops: &[CacheOp]) -> bool {
        for op in ops {
            if let CacheOp::Load { from, to } = *op {
                let saved = self.state.saved.get(&from);
                if !saved.is_some_and(|bytes| self.forward.load(to as i32, bytes)) {
                    tracing::warn!("a stored prefix found no room in the KV cache");
                    self.state.saved.clear();
                    self.state.flights.clear();
                    self.forward.clear();
                    self.drafter.clear();
                    self.scheduler.load_failed();
                    return false;
                }
            } else {
                self.apply(*op);
            }
        }
        true
    }

    pub(super) fn apply(&mut self, op: CacheOp) {
        match op {
            CacheOp::Save { from, to } => {
                let bytes = self.forward.save(from as i32);
                self.state.saved.insert(to, bytes);
            }
            CacheOp::Drop { store } => {
                self.state.saved.remove(&store);
            }
            // See `apply_all`.
            CacheOp::Load { .. } => {}
            CacheOp::Copy { from, to, tokens } => {
                self.forward.copy(from as i32, to as i32, tokens as i32);
            }
            CacheOp::Cut { sequence, from } => {
                if !self.forward.cut(sequence as i32, from as i32) {
                    // Only recurrent models in parts refuse, when a step found no room: the next step fails.
                    tracing::warn!(sequence, from, "the KV cache can't be cut");
                }
            }
        }
    }

    /// Tells requests that their evaluation begins.
    fn announce(&mut self, step: &Step) {
        let now = Instant::now();
        for (key, cached) in &step.started {
            let Some((request, choice)) = self.state.choices.get_mut(key) else {
                continue;
            };
            choice.progress.started.get_or_insert(now);
            let Some(running) = self.state.requests.get_mut(request) else {
                continue;
            };
            if !running.announced {
                running.announced = true;
                // Once per request, as its prompt tokens are counted.
                self.shared.cached_tokens.fetch_add(*cached as u64, Relaxed);
                self.shared.waiting.fetch_sub(1, Relaxed);
                let queue_ms = (now - running.submitted).as_secs_f64() * 1e3;
                let cached_tokens = *cached as u32;
                let _ = running.pieces.try_send(Piece::Started {
                    cached_tokens,
                    queue_ms,
                });
            }
        }
    }

    /// Proposes tokens to the jobs that the next step decodes, if it may decode `jobs`.
    fn draft(&mut self, pipe: Pipe, jobs: usize) {
        // While prompts are evaluated, rows are not free.
        if !self.drafter.is_on() || jobs == 0 || self.scheduler.is_prefilling() {
            return;
        }
        let due = self.scheduler.due(jobs);
        for key in &due {
            let Some((_, choice)) = self.state.choices.get(key) else {
                continue;
            };
            if !choice.speculate {
                continue;
            }
            let Some(tokens) = self.scheduler.tokens(*key) else {
                continue;
            };
            let left = (choice.max_tokens - choice.progress.figures.generated) as usize;
            let room = self.context_tokens.saturating_sub(tokens.len() + 1);
            let rate = choice.progress.acceptance.rate();
            let steps = Steps {
                jobs: due.len(),
                groups: self.pace.groups(),
                pipe,
                cost: self.pace.cost(due.len()),
                draft_ms: self.drafter.token_ms() * due.len() as f64,
            };
            let wanted = speculation::draft_tokens(rate, &steps);
            let count = wanted.min(left.saturating_sub(1)).min(room);
            if count > 0 {
                let draft = self.drafter.propose(*key, tokens, count);
                self.scheduler.set_draft(*key, draft);
            }
        }
    }
}
