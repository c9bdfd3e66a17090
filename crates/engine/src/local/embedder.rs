//! Embeddings: a context of its own, one thread, one bounded queue.
//!
//! Owns the thread: it ends with the handle or with [`Embedder::shutdown`], which wait for it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use llama::{Batch, Context};
use tokio::sync::oneshot;

use super::shared::Shared;
use crate::{Embeddings, Error, TokenId};

/// Requests that may wait; one more is told to come back later.
const QUEUE_MAX: usize = 64;
/// Suggested wait when the queue is full, s.
const RETRY_AFTER_S: u32 = 1;

struct Job {
    inputs: Vec<Vec<TokenId>>,
    answer: oneshot::Sender<Result<Embeddings, Error>>,
    place: Place,
}

/// A place in the queue: counted until it is dropped, in whatever way the job leaves the queue.
struct Place {
    shared: Arc<Shared>,
}

impl Place {
    fn take(shared: &Arc<Shared>) -> Self {
        shared.waiting.fetch_add(1, Relaxed);
        Self {
            shared: Arc::clone(shared),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.waiting.fetch_sub(1, Relaxed);
    }
}

/// What the thread is told.
enum Command {
    Embed(Job),
    /// Nothing comes after it.
    Stop,
}

/// Handle to the embedding thread.
#[derive(Debug)]
pub(super) struct Embedder {
    commands: SyncSender<Command>,
    input_tokens_max: usize,
    shared: Arc<Shared>,
    /// When to end work that was taken; set at the stop.
    deadline: Arc<Mutex<Option<Instant>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Embedder {
    /// Starts the thread. Inputs may have `input_tokens_max` tokens: what one batch holds.
    pub(super) fn start(
        context: Context,
        input_tokens_max: usize,
        sequences: usize,
        name: &str,
        shared: Arc<Shared>,
    ) -> Result<Self, Error> {
        let (commands, queue) = sync_channel(QUEUE_MAX);
        let deadline: Arc<Mutex<Option<Instant>>> = Arc::default();
        let worker = Worker {
            context,
            batch_tokens: input_tokens_max,
            sequences,
            shared: Arc::clone(&shared),
            deadline: Arc::clone(&deadline),
        };
        let thread = std::thread::Builder::new()
            .name(format!("embed {name}"))
            .spawn(move || worker.run(&queue))
            .map_err(|e| Error::Load(format!("no thread for embeddings: {e}")))?;
        Ok(Self {
            commands,
            input_tokens_max,
            shared,
            deadline,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Lets requests that were taken go on until `deadline`, ends the rest, and waits for the
    /// thread. Blocks.
    pub(super) fn shutdown(&self, deadline: Instant) {
        *lock(&self.deadline) = Some(deadline);
        let Some(thread) = lock(&self.thread).take() else {
            return;
        };
        // Waits while the queue is full; the thread empties it.
        let _ = self.commands.send(Command::Stop);
        // A panic in it has been told already.
        let _ = thread.join();
    }

    /// Embeds `inputs` in order.
    pub(super) async fn embed(&self, inputs: Vec<Vec<TokenId>>) -> Result<Embeddings, Error> {
        for (index, input) in inputs.iter().enumerate() {
            if input.is_empty() {
                return Err(Error::invalid(format!("input[{index}]"), "is empty"));
            }
            if input.len() > self.input_tokens_max {
                return Err(Error::ContextLengthExceeded {
                    prompt_tokens: input.len() as u32,
                    context_tokens: self.input_tokens_max as u32,
                });
            }
        }
        let (answer, result) = oneshot::channel();
        let place = Place::take(&self.shared);
        let job = Job {
            inputs,
            answer,
            place,
        };
        self.commands
            .try_send(Command::Embed(job))
            .map_err(|e| match e {
                TrySendError::Full(_) => Error::QueueFull {
                    waiting: QUEUE_MAX as u32,
                    retry_after_s: RETRY_AFTER_S,
                },
                TrySendError::Disconnected(_) => Error::ShuttingDown,
            })?;
        // The thread drops what it does not get to.
        result.await.unwrap_or(Err(Error::ShuttingDown))
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        self.shutdown(Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread owns.
struct Worker {
    context: Context,
    /// Rows of one batch.
    batch_tokens: usize,
    /// Inputs of one batch.
    sequences: usize,
    shared: Arc<Shared>,
    deadline: Arc<Mutex<Option<Instant>>>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Command>) {
        while let Ok(Command::Embed(job)) = queue.recv() {
            let Job {
                inputs,
                answer,
                place,
            } = job;
            let running = inputs.len().min(self.sequences);
            self.shared.running.store(running as u32, Relaxed);
            drop(place);
            let result = self.embed(&inputs, &answer);
            self.shared.running.store(0, Relaxed);
            let counter = match &result {
                Ok(_) => Some(&self.shared.requests),
                Err(_) if answer.is_closed() => Some(&self.shared.cancelled),
                Err(_) => None,
            };
            if let Some(counter) = counter {
                counter.fetch_add(1, Relaxed);
            }
            // Whoever asked may be gone by now.
            let _ = answer.send(result);
        }
    }

    /// Whether to go on; asked before each batch.
    fn check(&self, answer: &oneshot::Sender<Result<Embeddings, Error>>) -> Result<(), Error> {
        let deadline = *lock(&self.deadline);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Err(Error::ShuttingDown)
        } else if answer.is_closed() {
            Err(Error::Inference(
                "nobody waits for these embeddings any more".into(),
            ))
        } else {
            Ok(())
        }
    }

    fn embed(
        &mut self,
        inputs: &[Vec<TokenId>],
        answer: &oneshot::Sender<Result<Embeddings, Error>>,
    ) -> Result<Embeddings, Error> {
        let mut vectors = Vec::with_capacity(inputs.len());
        let mut batch = Batch::new();
        let mut rest = inputs;
        while !rest.is_empty() {
            self.check(answer)?;
            let (group, later) = rest.split_at(self.group(rest));
            rest = later;
            batch.clear();
            for (sequence, input) in group.iter().enumerate() {
                for (position, token) in input.iter().enumerate() {
                    batch.push(*token, position as i32, sequence as i32, true);
                }
            }
            self.context.clear();
            self.context
                .decode(&mut batch)
                .map_err(|e| Error::Inference(e.to_string()))?;
            self.shared.steps.fetch_add(1, Relaxed);
            let tokens = batch.len() as u64;
            self.shared.prompt_tokens.fetch_add(tokens, Relaxed);
            for sequence in 0..group.len() {
                let vector = self.context.embedding_of_sequence(sequence as i32);
                let vector =
                    vector.ok_or_else(|| Error::Inference("no embedding was made".into()))?;
                vectors.push(unit(vector));
            }
        }
        let prompt_tokens = inputs.iter().map(Vec::len).sum::<usize>() as u32;
        Ok(Embeddings {
            vectors,
            prompt_tokens,
        })
    }

    /// How many of `inputs`, at least one, go into the next batch.
    fn group(&self, inputs: &[Vec<TokenId>]) -> usize {
        let mut tokens = 0;
        let fits = |input: &&Vec<TokenId>| {
            tokens += input.len();
            tokens <= self.batch_tokens
        };
        let count = inputs.iter().take(self.sequences).take_while(fits).count();
        count.max(1)
    }
}

/// The vector scaled to length 1; a zero vector stays.
fn unit(vector: &[f32]) -> Vec<f32> {
    let norm = vector
        .iter()
        .map(|v| f64::from(*v) * f64::from(*v))
        .sum::<f64>()
        .sqrt();
    if norm == 0.0 || !norm.is_finite() {
        return vector.to_vec();
    }
    vector
        .iter()
        .map(|v| (f64::from(*v) / norm) as f32)
        .collect()
}
