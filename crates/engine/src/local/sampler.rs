//! From a row of logits to one token: bias, constraint, llama.cpp's chain, log-probabilities.

use llama::{DryParams, PenaltyParams, Sampler, SamplerStage};

use crate::text::ConstraintState;
use crate::{Error, Sampling, TokenId, TokenLogprob};

/// Draws the tokens of one choice.
pub(super) struct TokenSampler {
    /// `None`: plain greedy, for which no candidate list is needed.
    chain: Option<Sampler>,
    constraint: Option<ConstraintState>,
    bias: Vec<(TokenId, f32)>,
    logprobs: Option<u32>,
}

/// One drawn token.
pub(super) struct Drawn {
    pub(super) token: TokenId,
    pub(super) logprob: Option<TokenLogprob>,
}

impl TokenSampler {
    /// Draws as `sampling` says, in a context of so many tokens, behind `prompt`: penalties look back
    /// on it, a constraint does not.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if llama.cpp can't take a setting.
    pub(super) fn new(
        vocabulary: &llama::Vocabulary,
        sampling: &Sampling,
        seed: u32,
        constraint: Option<ConstraintState>,
        logprobs: Option<u32>,
        context_tokens: u32,
        prompt: &[TokenId],
    ) -> Result<Self, Error> {
        let stages = stages(sampling, seed, context_tokens);
        let chain = if stages == [SamplerStage::Greedy] {
            None
        } else {
            let chain = Sampler::new(vocabulary, &stages);
            let mut chain = chain.map_err(|e| Error::invalid("sampling", e.to_string()))?;
            let seen = prompt.len().min(window(sampling));
            for token in &prompt[prompt.len() - seen..] {
                chain.accept(*token);
            }
            Some(chain)
        };
        Ok(Self {
            chain,
            constraint,
            bias: sampling.logit_bias.clone(),
            logprobs,
        })
    }

    /// Draws token number `draw` of the answer; `banned` ones (end-of-text tokens that may not come
    /// yet) are left out.
    ///
    /// # Errors
    /// [`Error::Inference`] when no token is possible.
    pub(super) fn draw(
        &mut self,
        vocabulary: &llama::Vocabulary,
        logits: &mut [f32],
        draw: u32,
        banned: &[TokenId],
    ) -> Result<Drawn, Error> {
        // Taken before anything changes the logits: they are to be the model's own.
        let report = self.logprobs.map(|top| Report::new(logits, top as usize));
        for (token, bias) in &self.bias {
            if let Some(logit) = usize::try_from(*token).ok().and_then(|t| logits.get_mut(t)) {
                *logit += bias;
            }
        }
        for token in banned {
            if let Some(logit) = usize::try_from(*token).ok().and_then(|t| logits.get_mut(t)) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(logits)?;
        }
        let token = match &mut self.chain {
            None => argmax(logits),
            Some(chain) => chain.sample(logits, draw),
        };
        let token = token.ok_or_else(|| {
            Error::Inference("no token is possible here (the logits are not finite)".into())
        })?;
        let logprob = report.map(|r| r.of(token, |t| vocabulary.token_bytes(t, true)));
        Ok(Drawn { token, logprob })
    }

    /// Moves on past `token`.
    pub(super) fn accept(&mut self, token: TokenId) -> Result<(), Error> {
        if let Some(chain) = &mut self.chain {
            chain.accept(token);
        }
        match &mut self.constraint {
            Some(constraint) => constraint.accept(token),
            None => Ok(()),
        }
    }

    /// Whether the constraint lets nothing follow.
    pub(super) fn is_finished(&mut self) -> bool {
        self.constraint.as_mut().is_some_and(|c| c.is_finished())
    }
}

/// How many tokens penalties look back on; 0 without any.
pub(super) fn window(sampling: &Sampling) -> usize {
    let penalties = match penalises(sampling) {
        true => sampling.penalty_last_n,
        false => 0,
    };
    let dry = match sampling.dry_multiplier > 0.0 {
        true => sampling.dry_penalty_last_n,
        false => 0,
    };
    penalties.max(dry) as usize
}

fn penalises(sampling: &Sampling) -> bool {
    sampling.repeat_penalty != 1.0
        || sampling.frequency_penalty != 0.0
        || sampling.presence_penalty != 0.0
}

/// The chain for `sampling`, in llama.cpp's customary order. Windows are cut to the context: longer
/// ones change nothing, and llama.cpp allocates them.
fn stages(sampling: &Sampling, seed: u32, context_tokens: u32) -> Vec<SamplerStage> {
    let mut stages = Vec::new();
    if penalises(sampling) {
        stages.push(SamplerStage::Penalties(PenaltyParams {
            last_n: sampling.penalty_last_n.min(context_tokens),
            repeat: sampling.repeat_penalty,
            frequency: sampling.frequency_penalty,
            presence: sampling.presence_penalty,
        }));
    }
    if sampling.dry_multiplier > 0.0 {
        stages.push(SamplerStage::Dry(DryParams {
            multiplier: sampling.dry_multiplier,
            base: sampling.dry_base,
            allowed_length: sampling.dry_allowed_length,
            last_n: sampling.dry_penalty_last_n.min(context_tokens),
            breakers: sampling.dry_sequence_breakers.clone(),
        }));
    }
    if sampling.temperature <= 0.0 {
        stages.push(SamplerStage::Greedy);
        return stages;
    }
    if let Some(m) = sampling.mirostat {
        stages.push(SamplerStage::Temperature(sampling.temperature));
        let (tau, eta) = (m.tau, m.eta);
        stages.push(if m.version == 1 {
            SamplerStage::Mirostat1 { seed, tau, eta }
        } else {
            SamplerStage::Mirostat2 { seed, tau, eta }
        });
        return stages;
    }
    if sampling.top_k > 0 {
        stages.push(SamplerStage::TopK(sampling.top_k));
    }
    if sampling.typical_p < 1.0 {
        stages.push(SamplerStage::Typical(sampling.typical_p));
    }
    if sampling.top_p < 1.0 {
        stages.push(SamplerStage::TopP(sampling.top_p));
    }
    if sampling.min_p > 0.0 {
        stages.push(SamplerStage::MinP(sampling.min_p));
    }
    stages.push(SamplerStage::Temperature(sampling.temperature));
    stages.push(SamplerStage::Draw { seed });
    stages
}

/// The likeliest token, the first among equals; `None` if none is possible.
pub(super) fn argmax(logits: &[f32]) -> Option<TokenId> {
    // Several independent maxima, so that the compiler can use vector instructions: vocabularies
    // have 150,000 tokens, and the other streams wait.
    const LANES: usize = 16;
    let mut highest = [f32::NEG_INFINITY; LANES];
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (high, logit) in highest.iter_mut().zip(chunk) {
            // False for NaN, which is never the likeliest.
            *high = if *logit > *high { *logit } else { *high };
        }
    }
    let highest = highest
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY {
        return None;
    }
    logits
        .iter()
        .position(|l| *l == highest)
        .and_then(|i| TokenId::try_from(i).ok())
}

/// Log-probabilities of a row before any sampling setting.
struct Report {
    log_sum: f32,
    logits: Vec<f32>,
    top: Vec<TokenId>,
}

impl Report {
    fn new(logits: &[f32], top: usize) -> Self {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|l| f64::from(l - highest).exp()).sum();
        let log_sum = (f64::from(highest) + sum.ln()) as f32;
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit = |a: &u32, b: &u32| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        };
        let top = top.min(order.len());
        if top > 0 && top < order.len() {
            order.select_nth_unstable_by(top - 1, by_logit);
        }
        order.truncate(top);
        order.sort_unstable_by(by_logit);
        let top = order.into_iter().map(|t| t as TokenId).collect();
        Self {
            log_sum,
            logits: logits.to_vec(),
            top,
        }
    }

    fn of(&self, token: TokenId, bytes: impl Fn(TokenId) -> Vec<u8>) -> TokenLogprob {
        let logprob = |t: TokenId| {
            usize::try_from(t)
                .ok()
                .and_then(|t| self.logits.get(t))
                .map_or(f32::MIN, |l| {
                    // JSON has no infinity: impossible tokens get the smallest number.
                    (l - self.log_sum).max(f32::MIN)
                })
        };
        TokenLogprob {
            token,
            bytes: bytes(token),
            logprob: logprob(token),
            top: self
                .top
                .iter()
                .map(|t| (*t, bytes(*t), logprob(*t)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
