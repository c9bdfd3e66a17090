//! Embeddings: a context of its own, one thread, one bounded queue.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

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

/// Handle to the embedding thread; the thread ends with the last handle.
#[derive(Debug, Clone)]
pub(super) struct Embedder {
    jobs: SyncSender<Job>,
    input_tokens_max: usize,
}

impl Embedder {
    /// Starts the thread. Inputs may have `input_tokens_max` tokens: what one batch holds.
    pub(super) fn start(
        context: Context,
        input_tokens_max: usize,
        sequences: usize,
        name: &str,
    ) -> Result<Self, Error> {
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name(format!("embed {name}"))
            .spawn(move || run(context, &queue, input_tokens_max, sequences))
            .map_err(|e| Error::Load(format!("no thread for embeddings: {e}")))?;
        Ok(Self {
            jobs,
            input_tokens_max,
        })
    }

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
        self.jobs
            .try_send(Job { inputs, answer })
            .map_err(|e| match e {
                TrySendError::Full(_) => Error::QueueFull {
                    waiting: QUEUE_MAX as u32,
                    retry_after_s: RETRY_AFTER_S,
                },
                TrySendError::Disconnected(_) => Error::ShuttingDown,
            })?;
        result.await.unwrap_or(Err(Error::ShuttingDown))
    }
}

fn run(mut context: Context, queue: &Receiver<Job>, batch_tokens: usize, sequences: usize) {
    while let Ok(job) = queue.recv() {
        if job.answer.is_closed() {
            continue;
        }
        let wanted = || !job.answer.is_closed();
        let result = embed(&mut context, &job.inputs, batch_tokens, sequences, wanted);
        // Whoever asked may be gone by now.
        let _ = job.answer.send(result);
    }
}

fn embed(
    context: &mut Context,
    inputs: &[Vec<TokenId>],
    batch_tokens: usize,
    sequences: usize,
    wanted: impl Fn() -> bool,
) -> Result<Embeddings, Error> {
    let mut vectors = Vec::with_capacity(inputs.len());
    let mut batch = Batch::new();
    let mut rest = inputs;
    while !rest.is_empty() {
        if !wanted() {
            return Err(Error::Inference(
                "nobody waits for these embeddings any more".into(),
            ));
        }
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
