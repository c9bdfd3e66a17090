//! Proposes tokens: by prompt lookup, or with a draft model of the same vocabulary.

use std::collections::BTreeMap;
use std::time::Instant;

use llama::{Batch, Context};

use super::sampler::argmax;
use crate::scheduler::JobKey;
use crate::speculation::{self, DRAFT_TOKENS_MAX};
use crate::{Error, TokenId};

/// Tokens that a draft model catches up on per proposal: bounds the pause that a long prompt
/// causes; until it has caught up it proposes nothing.
const CATCH_UP_TOKENS_MAX: usize = 256;
/// Weight of a new measurement in the running time per drafted token.
const LEARNING_RATE: f64 = 0.2;

/// Where drafts come from.
pub(super) enum Drafter {
    /// Nowhere.
    Off,
    /// The text so far.
    Lookup,
    /// A small model.
    Model(Box<ModelDrafter>),
}

/// A draft model and what its KV sequences hold.
pub(super) struct ModelDrafter {
    context: Context,
    batch: Batch,
    /// Per job: its sequence, what that holds, and when it was last of use.
    jobs: BTreeMap<JobKey, Held>,
    sequences: usize,
    batch_tokens: usize,
    clock: u64,
    /// `None` until measured: the first drafts find out.
    token_ms: Option<f64>,
}

struct Held {
    sequence: usize,
    tokens: Vec<TokenId>,
    used_at: u64,
}

impl Drafter {
    pub(super) fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Time that a drafted token costs, ms; 0 until measured.
    pub(super) fn token_ms(&self) -> f64 {
        match self {
            Self::Off | Self::Lookup => 0.0,
            Self::Model(model) => model.token_ms.unwrap_or(0.0),
        }
    }

    /// At most `count` tokens that may follow `tokens`; none if nothing is known.
    pub(super) fn propose(
        &mut self,
        key: JobKey,
        tokens: &[TokenId],
        count: usize,
    ) -> Vec<TokenId> {
        let count = count.min(DRAFT_TOKENS_MAX);
        match self {
            Self::Off => Vec::new(),
            Self::Lookup => speculation::lookup(tokens, count),
            Self::Model(model) => model.propose(key, tokens, count),
        }
    }

    /// Forgets everything known of earlier texts.
    pub(super) fn clear(&mut self) {
        if let Self::Model(model) = self {
            model.context.clear();
            model.jobs.clear();
        }
    }
}

impl ModelDrafter {
    /// Drafts with `context`, which has `sequences` KV sequences and takes `batch_tokens` rows.
    pub(super) fn new(context: Context, sequences: usize, batch_tokens: usize) -> Self {
        Self {
            context,
            batch: Batch::new(),
            jobs: BTreeMap::new(),
            sequences: sequences.max(1),
            batch_tokens: batch_tokens.max(1),
            clock: 0,
            token_ms: None,
        }
    }

    fn propose(&mut self, key: JobKey, tokens: &[TokenId], count: usize) -> Vec<TokenId> {
        match self.try_propose(key, tokens, count) {
            Some(draft) => draft,
            None => {
                // A draft model that fails costs speed, never the answer.
                tracing::debug!("the draft model failed; its memory is cleared");
                self.context.clear();
                self.jobs.clear();
                Vec::new()
            }
        }
    }

    /// `None`: the context failed.
    fn try_propose(
        &mut self,
        key: JobKey,
        tokens: &[TokenId],
        count: usize,
    ) -> Option<Vec<TokenId>> {
        self.clock += 1;
        let mut held = self.take_held(key);
        held.used_at = self.clock;
        // The last token is always evaluated: its logits are needed.
        let wanted = &tokens[..tokens.len().saturating_sub(1)];
        let common = wanted
            .iter()
            .zip(&held.tokens)
            .take_while(|(a, b)| a == b)
            .count();
        if common < held.tokens.len() {
            self.context
                .sequence_remove(held.sequence as i32, common as i32, None);
            held.tokens.truncate(common);
        }
        let behind = tokens.len() - common;
        let end = common + behind.min(CATCH_UP_TOKENS_MAX);
        self.evaluate(&mut held, &tokens[common..end])?;
        let mut draft = Vec::new();
        if end == tokens.len() {
            let started = Instant::now();
            while let Some(token) = self.next() {
                draft.push(token);
                if draft.len() >= count {
                    break;
                }
                self.evaluate(&mut held, &[token])?;
            }
            let ms = started.elapsed().as_secs_f64() * 1e3 / draft.len().max(1) as f64;
            self.token_ms = Some(
                self.token_ms
                    .map_or(ms, |old| old + LEARNING_RATE * (ms - old)),
            );
        }
        self.jobs.insert(key, held);
        Some(draft)
    }

    /// The likeliest token after the last evaluation, unless it ends the text.
    fn next(&mut self) -> Option<TokenId> {
        let row = self.batch.len().checked_sub(1)?;
        let token = argmax(self.context.logits(row)?)?;
        (!self.context.model().vocabulary().is_end(token)).then_some(token)
    }

    fn evaluate(&mut self, held: &mut Held, tokens: &[TokenId]) -> Option<()> {
        for part in tokens.chunks(self.batch_tokens) {
            self.batch.clear();
            for (offset, token) in part.iter().enumerate() {
                let position = (held.tokens.len() + offset) as i32;
                let last = offset + 1 == part.len();
                self.batch
                    .push(*token, position, held.sequence as i32, last);
            }
            self.context.decode(&mut self.batch).ok()?;
            held.tokens.extend_from_slice(part);
        }
        Some(())
    }

    /// The job's sequence, or a free one, or the one used longest ago, emptied.
    fn take_held(&mut self, key: JobKey) -> Held {
        if let Some(held) = self.jobs.remove(&key) {
            return held;
        }
        let free = (0..self.sequences).find(|s| self.jobs.values().all(|h| h.sequence != *s));
        let sequence = free.unwrap_or_else(|| {
            let oldest = self
                .jobs
                .iter()
                .min_by_key(|(_, h)| h.used_at)
                .map(|(k, _)| *k);
            oldest
                .and_then(|k| self.jobs.remove(&k))
                .map_or(0, |h| h.sequence)
        });
        self.context.sequence_remove(sequence as i32, 0, None);
        Held {
            sequence,
            tokens: Vec::new(),
            used_at: 0,
        }
    }
}

/// Whether a draft model speaks the same tokens.
///
/// # Errors
/// [`Error::Load`] names the first difference.
pub(super) fn check_vocabulary(
    model: &llama::Vocabulary,
    draft: &llama::Vocabulary,
) -> Result<(), Error> {
    let refuse = |what: String| {
        Err(Error::Load(format!(
            "the draft model has another vocabulary: {what}; hint: take a smaller model of the \
             same family, or --no-draft"
        )))
    };
    if model.len() != draft.len() {
        return refuse(format!(
            "{} tokens, the model has {}",
            draft.len(),
            model.len()
        ));
    }
    let tokens = 0..TokenId::try_from(model.len()).unwrap_or(TokenId::MAX);
    let differs = |t: &TokenId| model.token_bytes(*t, true) != draft.token_bytes(*t, true);
    match tokens.into_iter().find(differs) {
        Some(token) => refuse(format!("token {token} is another text")),
        None => Ok(()),
    }
}
