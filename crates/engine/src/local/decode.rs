//! The decode thread of one model: schedule, evaluate, sample; nothing else. Here are its requests and what
//! it is told; what it does in a step is in `step`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use llama::Batch;
use tokio::sync::mpsc;

use super::choice::{Choice, Piece, Submission};
use super::drafter::Drafter;
use super::forward::Forward;
use super::pace::Pace;
use super::shared::Shared;
use super::step::Flight;
use crate::scheduler::{JobKey, RecallId, Scheduler, Stall, StoreId};
use crate::{Error, TokenId};

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
/// Messages to the decode thread.
pub(super) enum Command {
    Submit(Box<Submission>),
    /// End what still runs at the deadline, then end the thread.
    Shutdown {
        deadline: Instant,
    },
}

/// One request whose choices run or wait.
pub(super) struct Running {
    pub(super) pieces: mpsc::Sender<Piece>,
    pub(super) submitted: Instant,
    pub(super) open_choices: usize,
    pub(super) announced: bool,
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
    pub(super) pace: Pace,
    pub(super) state: State,
}

#[derive(Default)]
pub(super) struct State {
    /// Steps in flight, oldest first; no more than the forward pass takes.
    pub(super) flights: VecDeque<Flight>,
    /// Kept so that a step allocates nothing.
    pub(super) batches: Vec<Batch>,
    pub(super) choices: BTreeMap<JobKey, (u64, Choice)>,
    /// Prefixes outside the KV cache.
    pub(super) saved: BTreeMap<StoreId, Vec<u8>>,
    /// Of the last tokens of prompts that may come again.
    pub(super) logits: BTreeMap<RecallId, Vec<f32>>,
    pub(super) requests: BTreeMap<u64, Running>,
    next_key: JobKey,
    next_request: u64,
    pub(super) failures: u32,
    /// The last step had no rows, and none is in flight.
    pub(super) nothing_to_do: bool,
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
            pace: Pace::default(),
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
                // Nobody waits for what is in flight.
                self.state.flights.clear();
            }
            self.look_for_stalls();
            self.step();
            self.publish();
        }
    }

    /// Whether there is nothing to do. Steps whose jobs have ended must come back nevertheless.
    fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.state.flights.is_empty()
    }

    /// Takes in what has arrived; waits if there is nothing to do. False: the end.
    fn receive(&mut self, commands: &Receiver<Command>) -> bool {
        loop {
            let next = if !self.is_idle() {
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
                Err(true) if self.is_idle() => return false,
                Err(_) => break,
            }
        }
        if self.state.nothing_to_do && !self.is_idle() {
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
    pub(super) fn end_request(&mut self, request: u64, error: Option<Error>) {
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

    pub(super) fn end_choice(&mut self, key: JobKey) {
        self.state.choices.remove(&key);
        if let Some(op) = self.scheduler.finish(key) {
            self.apply(op);
        }
    }

    pub(super) fn fail_all(&mut self, error: &Error) {
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

    pub(super) fn publish(&self) {
        let running = self.scheduler.running() + self.scheduler.parked();
        self.shared.running.store(running as u32, Relaxed);
        self.shared
            .kv_used
            .store(self.scheduler.kv_used() as u32, Relaxed);
    }
}
