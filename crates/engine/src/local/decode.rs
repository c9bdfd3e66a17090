//! The decode thread of one model: schedule, evaluate, sample; nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use llama::Batch;
use tokio::sync::mpsc;

use super::choice::{Choice, Piece, Submission, Verdict};
use super::drafter::Drafter;
use super::forward::{Forward, ForwardError};
use super::shared::Shared;
use crate::scheduler::cost::StepCost;
use crate::scheduler::{CacheOp, JobKey, PrefillBudget, Row, Scheduler, Stall, Step, StoreId};
use crate::{Error, TokenId};

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
/// Messages that a request's channel must have room for, per choice, before its job gets a step:
/// a full draft, its bonus token, and the end.
pub(super) const PIECES_PER_STEP: usize = crate::speculation::DRAFT_TOKENS_MAX + 3;
/// A consumer that reads nothing for so long loses its slot to whoever waits for one. Long enough for
/// a network that stutters.
const GIVE_WAY_AFTER: Duration = Duration::from_secs(2);
/// A consumer that reads nothing for so long is cut off.
const STALLED_MAX: Duration = Duration::from_secs(300);
/// Pause between looks when no job can go on, because their consumers read nothing.
const STALLED_POLL: Duration = Duration::from_millis(5);
/// Failed evaluations in a row after which the running requests are given up.
const FAILURES_MAX: u32 = 3;

/// Messages to the decode thread.
pub(super) enum Command {
    Submit(Box<Submission>),
    /// End what still runs at the deadline, then end the thread.
    Shutdown {
        deadline: Instant,
    },
}

/// One request whose choices run or wait.
struct Running {
    pieces: mpsc::Sender<Piece>,
    submitted: Instant,
    open_choices: usize,
    announced: bool,
    stalled_since: Option<Instant>,
    /// Room in the channel at the last look, and when it last grew: the consumer read something.
    room_seen: usize,
    read_at: Instant,
}

/// What the thread owns.
pub(super) struct DecodeLoop {
    pub(super) forward: Box<dyn Forward>,
    pub(super) scheduler: Scheduler,
    pub(super) drafter: Drafter,
    pub(super) shared: Arc<Shared>,
    pub(super) ends: Arc<[TokenId]>,
    pub(super) context_tokens: usize,
    pub(super) cost: StepCost,
    state: State,
}

#[derive(Default)]
struct State {
    batch: Batch,
    choices: BTreeMap<JobKey, (u64, Choice)>,
    /// Prefixes outside the KV cache.
    saved: BTreeMap<StoreId, Vec<u8>>,
    requests: BTreeMap<u64, Running>,
    next_key: JobKey,
    next_request: u64,
    failures: u32,
    /// The last step had no rows.
    nothing_to_do: bool,
    deadline: Option<Instant>,
}

impl DecodeLoop {
    pub(super) fn new(
        forward: Box<dyn Forward>,
        scheduler: Scheduler,
        drafter: Drafter,
        shared: Arc<Shared>,
        ends: Arc<[TokenId]>,
        context_tokens: usize,
    ) -> Self {
        shared.kv_total.store(forward.kv_tokens(), Relaxed);
        Self {
            forward,
            scheduler,
            drafter,
            shared,
            ends,
            context_tokens,
            cost: StepCost::default(),
            state: State::default(),
        }
    }

    /// Runs until told to shut down, or until every handle is gone and everything has ended.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            if !self.receive(commands) {
                return;
            }
            self.drop_cancelled();
            if self.state.deadline.is_some_and(|d| Instant::now() >= d) {
                self.fail_all(&Error::ShuttingDown);
            }
            self.look_for_stalls();
            self.step();
            self.publish();
        }
    }

    /// Takes in what has arrived; waits if there is nothing to do. False: the end.
    fn receive(&mut self, commands: &Receiver<Command>) -> bool {
        loop {
            let next = if !self.scheduler.is_idle() {
                commands
                    .try_recv()
                    .map_err(|e| e == TryRecvError::Disconnected)
            } else if self.state.deadline.is_some() {
                self.refuse_late(commands);
                return false;
            } else {
                commands.recv().map_err(|_| true)
            };
            match next {
                Ok(Command::Submit(submission)) => self.submit(*submission),
                Ok(Command::Shutdown { deadline }) => self.state.deadline = Some(deadline),
                Err(true) if self.scheduler.is_idle() => return false,
                Err(_) => break,
            }
        }
        if self.state.nothing_to_do && !self.scheduler.is_idle() {
            match commands.recv_timeout(STALLED_POLL) {
                Ok(Command::Submit(submission)) => self.submit(*submission),
                Ok(Command::Shutdown { deadline }) => self.state.deadline = Some(deadline),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(STALLED_POLL),
            }
        }
        true
    }

    /// Requests that were on their way when the end was decided.
    fn refuse_late(&self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.try_recv() {
            if let Command::Submit(submission) = command {
                self.shared.waiting.fetch_sub(1, Relaxed);
                let _ = submission
                    .pieces
                    .try_send(Piece::Failed(Error::ShuttingDown));
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        let Submission {
            prompt,
            choices,
            reuse,
            submitted,
            pieces,
        } = submission;
        self.state.nothing_to_do = false;
        let request = self.state.next_request;
        self.state.next_request += 1;
        let open_choices = choices.len();
        self.shared
            .prompt_tokens
            .fetch_add(prompt.len() as u64, Relaxed);
        for mut choice in choices {
            let key = self.state.next_key;
            self.state.next_key += 1;
            choice.progress.key = key;
            choice.progress.prompt_tokens = prompt.len();
            let tokens = [prompt.as_slice(), &choice.resumed].concat();
            self.scheduler.submit(key, tokens, reuse);
            self.state.choices.insert(key, (request, choice));
        }
        let running = Running {
            pieces,
            submitted,
            open_choices,
            announced: false,
            stalled_since: None,
            room_seen: 0,
            read_at: submitted,
        };
        self.state.requests.insert(request, running);
    }

    /// Ends requests whose consumer is gone.
    fn drop_cancelled(&mut self) {
        let gone: Vec<u64> = (self.state.requests.iter())
            .filter(|(_, r)| r.pieces.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for request in gone {
            self.shared.cancelled.fetch_add(1, Relaxed);
            self.end_request(request, None);
        }
    }

    /// Ends all choices of a request, with an error or silently.
    fn end_request(&mut self, request: u64, error: Option<Error>) {
        let keys: Vec<JobKey> = (self.state.choices.iter())
            .filter(|(_, (r, _))| *r == request)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.end_choice(key);
        }
        if let Some(running) = self.state.requests.remove(&request) {
            if !running.announced {
                self.shared.waiting.fetch_sub(1, Relaxed);
            }
            if let Some(error) = error {
                // No room means that the consumer does not read; the closed channel tells it.
                let _ = running.pieces.try_send(Piece::Failed(error));
            }
        }
    }

    fn end_choice(&mut self, key: JobKey) {
        self.state.choices.remove(&key);
        if let Some(op) = self.scheduler.finish(key) {
            self.apply(op);
        }
    }

    fn fail_all(&mut self, error: &Error) {
        let requests: Vec<u64> = self.state.requests.keys().copied().collect();
        for request in requests {
            self.end_request(request, Some(error.clone()));
        }
    }

    /// Back-pressure: jobs whose consumer has no room get no rows until it has.
    fn look_for_stalls(&mut self) {
        let now = Instant::now();
        let mut cut = Vec::new();
        for (id, request) in &mut self.state.requests {
            let room = request.open_choices * PIECES_PER_STEP;
            let capacity = request.pieces.capacity();
            if std::mem::replace(&mut request.room_seen, capacity) < capacity {
                request.read_at = now;
            }
            let stalled = capacity < room;
            if !stalled && request.stalled_since.is_none() {
                continue;
            }
            let since = stalled.then(|| *request.stalled_since.get_or_insert(now));
            request.stalled_since = since;
            let stall = match since.map(|since| now - since.max(request.read_at)) {
                None => Stall::None,
                Some(time) if time < GIVE_WAY_AFTER => Stall::Short,
                Some(_) => Stall::Long,
            };
            let choices = self.state.choices.iter().filter(|(_, (r, _))| r == id);
            choices.for_each(|(key, _)| self.scheduler.set_stall(*key, stall));
            if since.is_some_and(|since| now - since > STALLED_MAX) {
                cut.push(*id);
            }
        }
        for request in cut {
            tracing::warn!("a consumer read nothing for {STALLED_MAX:?}: its request is cut off");
            self.end_request(
                request,
                Some(Error::Inference("the consumer does not read".into())),
            );
        }
    }

    /// One step of the scheduler.
    fn step(&mut self) {
        self.draft();
        let rows = |ms: f64| self.cost.rows_within(ms).max(PREFILL_ROWS_MIN);
        let part = self.scheduler.longest_prefill() as f64 / PROMPT_PARTS;
        let budget = PrefillBudget {
            beside_decoding: (part.ceil() as usize).clamp(rows(STALL_MS_MIN), rows(STALL_MS_MAX)),
            alone: rows(ALONE_MS),
        };
        let step = self.scheduler.plan(budget);
        if !self.apply_all(&step.ops) {
            return;
        }
        self.announce(&step);
        self.state.nothing_to_do = step.rows.is_empty();
        if step.rows.is_empty() {
            return;
        }
        self.state.batch.clear();
        for row in &step.rows {
            let (position, sequence) = (row.position as i32, row.sequence as i32);
            self.state
                .batch
                .push(row.token, position, sequence, row.output);
        }
        let started = Instant::now();
        let result = self.forward.evaluate(&mut self.state.batch);
        match result {
            Ok(()) => {
                self.state.failures = 0;
                self.shared.steps.fetch_add(1, Relaxed);
                let decoded = started.elapsed();
                self.scheduler.commit(&step);
                self.sample(&step);
                let total = started.elapsed();
                self.cost
                    .observe(step.rows.len(), total.as_secs_f64() * 1e3);
                tracing::trace!(
                    rows = step.rows.len(),
                    prefill_rows = step.prefill_rows,
                    decode_us = decoded.as_micros() as u64,
                    sample_us = (total - decoded).as_micros() as u64,
                    "step"
                );
            }
            Err(ForwardError::NoRoom) => {
                let ops = self.scheduler.relieve();
                if ops.is_empty() {
                    self.recover("the KV cache is full with one request");
                } else {
                    self.apply_all(&ops);
                }
            }
            Err(error) => self.recover(&error.to_string()),
        }
    }

    /// After a failed evaluation the KV cache is not to be trusted: forget it and evaluate again;
    /// give up when that fails too.
    fn recover(&mut self, reason: &str) {
        self.state.failures += 1;
        tracing::error!(reason, "a step failed");
        self.forward.clear();
        self.drafter.clear();
        self.scheduler.forget_all();
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

    fn apply(&mut self, op: CacheOp) {
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
                    // Only recurrent models refuse, and those are cut at 0 only, which works.
                    tracing::error!(sequence, from, "the KV cache can't be cut");
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

    /// Proposes tokens to the jobs that decode.
    fn draft(&mut self) {
        if !self.drafter.is_on() {
            return;
        }
        let jobs: Vec<JobKey> = self.scheduler.decoding().collect();
        // While prompts are evaluated, rows are not free.
        if jobs.is_empty() || self.scheduler.is_prefilling() {
            return;
        }
        for key in &jobs {
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
            let wanted = self.drafter.tokens_wanted(rate, jobs.len(), &self.cost);
            let count = wanted.min(left.saturating_sub(1)).min(room);
            if count > 0 {
                let draft = self.drafter.propose(*key, tokens, count);
                self.scheduler.set_draft(*key, draft);
            }
        }
    }

    /// Draws from every output row and tells scheduler and consumers.
    fn sample(&mut self, step: &Step) {
        let mut index = 0;
        while index < step.rows.len() {
            let key = step.rows[index].key;
            let end = step.rows[index..].iter().position(|r| r.key != key);
            let end = end.map_or(step.rows.len(), |n| index + n);
            if step.rows[end - 1].output {
                self.sample_job(key, &step.rows[index..end], index);
            }
            index = end;
        }
    }

    /// `rows`: those of one job; `first`: index of the first of them in the batch.
    fn sample_job(&mut self, key: JobKey, rows: &[Row], first: usize) {
        let Some((request, choice)) = self.state.choices.get_mut(&key) else {
            return;
        };
        let request = *request;
        let Some(running) = self.state.requests.get_mut(&request) else {
            return;
        };
        let vocabulary = self.forward.model().clone();
        let vocabulary = vocabulary.vocabulary();
        let mut sampled = Vec::with_capacity(1);
        let mut ended = None;
        for (offset, row) in rows.iter().enumerate().filter(|(_, r)| r.output) {
            let position = row.position + 1;
            let drawn = match self.forward.logits(first + offset) {
                None => Err(Error::Inference("llama.cpp gave no logits".into())),
                Some(logits) => choice.step(
                    vocabulary,
                    &self.ends,
                    logits,
                    position,
                    self.context_tokens,
                ),
            };
            let (token, piece, verdict) = match drawn {
                Ok(drawn) => drawn,
                Err(error) => return self.end_request(request, Some(error)),
            };
            sampled.push(token);
            if let Some(piece) = piece {
                // There is room: jobs without are stalled and get no rows.
                let _ = running.pieces.try_send(piece);
            }
            if let Verdict::End { reason, text } = verdict {
                ended = Some((reason, text));
                break;
            }
            if rows.get(offset + 1).is_some_and(|next| next.token != token) {
                break;
            }
        }
        let drafted = rows.iter().filter(|r| r.output).count() - 1;
        let accepted = sampled.len().saturating_sub(1);
        choice.progress.figures.drafted += drafted as u32;
        choice.progress.figures.accepted += accepted as u32;
        choice.progress.acceptance.observe(drafted, accepted);
        self.shared
            .drafted_tokens
            .fetch_add(drafted as u64, Relaxed);
        self.shared
            .accepted_tokens
            .fetch_add(accepted as u64, Relaxed);
        self.shared
            .generated_tokens
            .fetch_add(sampled.len() as u64, Relaxed);
        let over = ended.is_some();
        if let Some((reason, text)) = ended {
            let (index, figures) = (choice.index, choice.progress.figures);
            let piece = Piece::Finished {
                choice: index,
                text,
                reason,
                figures,
            };
            let _ = running.pieces.try_send(piece);
            running.open_choices -= 1;
            if running.open_choices == 0 {
                let ms = running.submitted.elapsed().as_millis();
                self.shared
                    .request_ms
                    .store(u32::try_from(ms).unwrap_or(u32::MAX), Relaxed);
                self.shared.requests.fetch_add(1, Relaxed);
                self.state.requests.remove(&request);
            }
        }
        if let Some(op) = self.scheduler.advance(key, &sampled) {
            self.apply(op);
        }
        if over {
            self.end_choice(key);
        }
    }

    fn publish(&self) {
        let running = self.scheduler.running() + self.scheduler.parked();
        self.shared.running.store(running as u32, Relaxed);
        self.shared
            .kv_used
            .store(self.scheduler.kv_used() as u32, Relaxed);
    }
}
