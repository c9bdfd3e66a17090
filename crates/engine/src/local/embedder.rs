//! Embeddings: a context of its own, one thread, one bounded queue.
//!
//! Owns the thread: it ends with the handle or with [`Embedder::shutdown`], which wait for it.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use llama::{Batch, Context, Pooling};
use tokio::sync::oneshot;

use crate::{Embeddings, Error, TokenId};

/// Requests that may wait; one more is told to come back later.
const QUEUE_MAX: usize = 64;
/// Suggested wait when the queue is full, s.
const RETRY_AFTER_S: u32 = 1;

struct Job {
    inputs: Vec<Vec<TokenId>>,
    answer: oneshot::Sender<Result<Embeddings, Error>>,
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
    ) -> Result<Self, Error> {
        let (commands, queue) = sync_channel(QUEUE_MAX);
        let deadline: Arc<Mutex<Option<Instant>>> = Arc::default();
        let stop = Arc::clone(&deadline);
        let thread = std::thread::Builder::new()
            .name(format!("embed {name}"))
            .spawn(move || run(context, &queue, input_tokens_max, sequences, &stop))
            .map_err(|e| Error::Load(format!("no thread for embeddings: {e}")))?;
        Ok(Self {
            commands,
            input_tokens_max,
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
        self.commands
            .try_send(Command::Embed(Job { inputs, answer }))
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

fn run(
    mut context: Context,
    queue: &Receiver<Command>,
    batch_tokens: usize,
    sequences: usize,
    deadline: &Mutex<Option<Instant>>,
) {
    while let Ok(Command::Embed(job)) = queue.recv() {
        // Asked before each group of inputs.
        let check = || {
            let deadline = *lock(deadline);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                Err(Error::ShuttingDown)
            } else if job.answer.is_closed() {
                Err(Error::Inference(
                    "nobody waits for these embeddings any more".into(),
                ))
            } else {
                Ok(())
            }
        };
        let result = embed(&mut context, &job.inputs, batch_tokens, sequences, check);
        // Whoever asked may be gone by now.
        let _ = job.answer.send(result);
    }
}

fn embed(
    context: &mut Context,
    inputs: &[Vec<TokenId>],
    batch_tokens: usize,
    sequences: usize,
    check: impl Fn() -> Result<(), Error>,
) -> Result<Embeddings, Error> {
    let mut vectors = Vec::with_capacity(inputs.len());
    let mut batch = Batch::new();
    let mut rest = inputs;
    while !rest.is_empty() {
        check()?;
        let (count, _) = rest
            .iter()
            .take(sequences)
            .fold((0, 0), |(count, tokens), input| {
                let tokens = tokens + input.len();
                if tokens <= batch_tokens {
                    (count + 1, tokens)
                } else {
                    (count, usize::MAX / 2)
                }
            });
        let (group, later) = rest.split_at(count.max(1));
        rest = later;
        batch.clear();
        let mut last_rows = Vec::with_capacity(group.len());
        for (sequence, input) in group.iter().enumerate() {
            for (position, token) in input.iter().enumerate() {
                batch.push(*token, position as i32, sequence as i32, true);
            }
            last_rows.push(batch.len() - 1);
        }
        context.clear();
        context
            .decode(&mut batch)
            .map_err(|e| Error::Inference(e.to_string()))?;
        for (sequence, last_row) in last_rows.into_iter().enumerate() {
            let vector = if context.pooling() == Pooling::None {
                context.embedding_of_row(last_row)
            } else {
                context.embedding_of_sequence(sequence as i32)
            };
            let vector = vector.ok_or_else(|| Error::Inference("no embedding was made".into()))?;
            vectors.push(unit(vector));
        }
    }
    let prompt_tokens = inputs.iter().map(Vec::len).sum::<usize>() as u32;
    Ok(Embeddings {
        vectors,
        prompt_tokens,
    })
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
