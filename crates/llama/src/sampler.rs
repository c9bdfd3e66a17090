//! llama.cpp's samplers, chained.

use std::ffi::CString;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::error::Error;
use crate::{Token, Vocabulary};

/// Repetition, frequency and presence penalties.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PenaltyParams {
    /// Window, tokens.
    pub last_n: u32,
    /// 1 is off.
    pub repeat: f32,
    /// 0 is off.
    pub frequency: f32,
    /// 0 is off.
    pub presence: f32,
}

/// "Don't repeat yourself": penalises tokens that would lengthen a repeat.
#[derive(Debug, Clone, PartialEq)]
pub struct DryParams {
    /// 0 is off.
    pub multiplier: f32,
    /// Growth per token of the repeat.
    pub base: f32,
    /// Longest repeat left alone, tokens.
    pub allowed_length: u32,
    /// Window, tokens.
    pub last_n: u32,
    /// Texts that end a repeat.
    pub breakers: Vec<String>,
}

/// One stage of a chain. Stages run in the order given.
#[derive(Debug, Clone, PartialEq)]
pub enum SamplerStage {
    /// Penalties.
    Penalties(PenaltyParams),
    /// DRY.
    Dry(DryParams),
    /// Keep the k likeliest.
    TopK(u32),
    /// Keep the smallest set of this mass.
    TopP(f32),
    /// Drop what is below this share of the likeliest.
    MinP(f32),
    /// Locally typical.
    Typical(f32),
    /// Divide the logits.
    Temperature(f32),
    /// Draw from the distribution; last stage. Which token comes out depends on the seed and on the
    /// number of the draw alone, so that an answer can be continued elsewhere.
    Draw {
        /// Seed of the draws.
        seed: u32,
    },
    /// Mirostat 1; last stage.
    Mirostat1 {
        /// Seed of the generator.
        seed: u32,
        /// Target surprise.
        tau: f32,
        /// Learning rate.
        eta: f32,
    },
    /// Mirostat 2; last stage.
    Mirostat2 {
        /// Seed of the generator.
        seed: u32,
        /// Target surprise.
        tau: f32,
        /// Learning rate.
        eta: f32,
    },
    /// Take the likeliest; last stage.
    Greedy,
}

/// Tokens over which Mirostat 1 estimates the distribution's exponent (as in its paper).
const MIROSTAT_TOKENS: i32 = 100;

/// A chain of samplers with its state.
#[derive(Debug)]
pub struct Sampler {
    raw: NonNull<sys::llama_sampler>,
    candidates: Vec<sys::llama_token_data>,
    /// Seed of the final draw, if that is ours and not a stage of the chain.
    seed: Option<u32>,
}

// SAFETY: a chain is plain heap state, used through `&mut self` only.
unsafe impl Send for Sampler {}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: made by `llama_sampler_chain_init`, freed once, with the stages it owns.
        unsafe { sys::llama_sampler_free(self.raw.as_ptr()) };
    }
}

impl Sampler {
    /// Chains `stages`.
    ///
    /// # Errors
    /// [`Error::Sampler`] names the stage that llama.cpp refused.
    pub fn new(vocabulary: &Vocabulary, stages: &[SamplerStage]) -> Result<Self, Error> {
        // SAFETY: plain data in, a new chain out.
        let raw = unsafe {
            sys::llama_sampler_chain_init(sys::llama_sampler_chain_params { no_perf: true })
        };
        let raw = NonNull::new(raw).ok_or(Error::Sampler("chain"))?;
        let mut sampler = Self {
            raw,
            candidates: Vec::new(),
            seed: None,
        };
        for stage in stages {
            if let SamplerStage::Draw { seed } = stage {
                sampler.seed = Some(*seed);
                continue;
            }
            let (name, stage) = make(vocabulary, stage)?;
            if stage.is_null() {
                return Err(Error::Sampler(name));
            }
            // SAFETY: both are alive; the chain takes over the stage.
            unsafe { sys::llama_sampler_chain_add(sampler.raw.as_ptr(), stage) };
        }
        Ok(sampler)
    }

    /// Draws the token number `draw` of an answer from `logits` (one per token of the vocabulary;
    /// `-inf` forbids). `None` when no token is possible.
    pub fn sample(&mut self, logits: &[f32], draw: u32) -> Option<Token> {
        self.candidates.clear();
        self.candidates.extend(
            logits
                .iter()
                .enumerate()
                .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
                .map(|(id, logit)| sys::llama_token_data {
                    id: id as Token,
                    logit: *logit,
                    p: 0.0,
                }),
        );
        if self.candidates.is_empty() {
            return None;
        }
        let mut array = sys::llama_token_data_array {
            data: self.candidates.as_mut_ptr(),
            size: self.candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the array views `candidates`, which outlives the call; samplers only shrink it.
        unsafe { sys::llama_sampler_apply(self.raw.as_ptr(), &mut array) };
        if let Some(seed) = self.seed {
            let left = self.candidates.get(..array.size)?;
            return pick(left, uniform(seed, draw));
        }
        let selected = usize::try_from(array.selected)
            .ok()
            .filter(|s| *s < array.size)?;
        self.candidates.get(selected).map(|c| c.id)
    }

    /// Tells the chain that `token` (of the vocabulary) came next.
    pub fn accept(&mut self, token: Token) {
        // SAFETY: the chain is alive.
        unsafe { sys::llama_sampler_accept(self.raw.as_ptr(), token) };
    }
}

/// The candidate at `point`, 0 to 1, of the distribution that the logits stand for.
fn pick(candidates: &[sys::llama_token_data], point: f64) -> Option<Token> {
    let highest = (candidates.iter().map(|c| c.logit)).fold(f32::NEG_INFINITY, f32::max);
    let weight = |c: &sys::llama_token_data| f64::from((c.logit - highest).exp());
    let mut left = point * candidates.iter().map(weight).sum::<f64>();
    for candidate in candidates {
        left -= weight(candidate);
        if left < 0.0 {
            return Some(candidate.id);
        }
    }
    // Rounding may leave a rest behind the last one; then it is the last that is possible at all.
    let possible = |c: &&sys::llama_token_data| weight(c) > 0.0;
    candidates.iter().rev().find(possible).map(|c| c.id)
}

/// A number in [0, 1) for each seed and draw: two rounds of SplitMix64 (Steele et al., 2014).
fn uniform(seed: u32, draw: u32) -> f64 {
    let mix = |mut z: u64| {
        z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let bits = mix(mix(u64::from(seed)) ^ u64::from(draw)) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

/// Makes one stage; the pointer is the caller's.
fn make(
    vocabulary: &Vocabulary,
    stage: &SamplerStage,
) -> Result<(&'static str, *mut sys::llama_sampler), Error> {
    let tokens = i32::try_from(vocabulary.len()).unwrap_or(i32::MAX);
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    // SAFETY: every constructor takes plain values, and the vocabulary is alive; the strings of
    // DRY live until its call returns, which copies them.
    Ok(unsafe {
        match stage {
            SamplerStage::Penalties(p) => (
                "penalties",
                sys::llama_sampler_init_penalties(
                    tokens,
                    int(p.last_n),
                    p.repeat,
                    p.frequency,
                    p.presence,
                ),
            ),
            SamplerStage::Dry(p) => {
                let breakers: Vec<CString> = p
                    .breakers
                    .iter()
                    .map(|b| CString::new(b.as_str()))
                    .collect::<Result<_, _>>()
                    .map_err(|_| Error::Text("a DRY breaker holds a NUL byte"))?;
                let mut pointers: Vec<_> = breakers.iter().map(|b| b.as_ptr()).collect();
                (
                    "dry",
                    sys::llama_sampler_init_dry(
                        vocabulary.raw(),
                        p.multiplier,
                        p.base,
                        int(p.allowed_length),
                        int(p.last_n),
                        pointers.as_mut_ptr(),
                        pointers.len(),
                    ),
                )
            }
            SamplerStage::TopK(k) => ("top-k", sys::llama_sampler_init_top_k(int(*k))),
            SamplerStage::TopP(p) => ("top-p", sys::llama_sampler_init_top_p(*p, 1)),
            SamplerStage::MinP(p) => ("min-p", sys::llama_sampler_init_min_p(*p, 1)),
            SamplerStage::Typical(p) => ("typical", sys::llama_sampler_init_typical(*p, 1)),
            SamplerStage::Temperature(t) => ("temperature", sys::llama_sampler_init_temp(*t)),
            // Not made: the last draw is ours.
            SamplerStage::Draw { .. } => ("draw", std::ptr::null_mut()),
            SamplerStage::Mirostat1 { seed, tau, eta } => (
                "mirostat 1",
                sys::llama_sampler_init_mirostat(tokens, *seed, *tau, *eta, MIROSTAT_TOKENS),
            ),
            SamplerStage::Mirostat2 { seed, tau, eta } => (
                "mirostat 2",
                sys::llama_sampler_init_mirostat_v2(*seed, *tau, *eta),
            ),
            SamplerStage::Greedy => ("greedy", sys::llama_sampler_init_greedy()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(logits: &[f32]) -> Vec<sys::llama_token_data> {
        let one = |(id, logit): (usize, &f32)| sys::llama_token_data {
            id: id as Token,
            logit: *logit,
            p: 0.0,
        };
        logits.iter().enumerate().map(one).collect()
    }

    #[test]
    fn picks_follow_the_distribution() {
        let candidates = candidates(&[1.0_f32.ln(), 2.0_f32.ln(), f32::NEG_INFINITY, 5.0_f32.ln()]);
        let mut counts = [0_u32; 4];
        for draw in 0..80_000 {
            let token = pick(&candidates, uniform(7, draw)).unwrap();
            counts[token as usize] += 1;
        }
        let expected = [10_000.0, 20_000.0, 0.0, 50_000.0];
        for (count, expected) in counts.iter().zip(expected) {
            assert!((f64::from(*count) - expected).abs() < 600.0, "{counts:?}");
        }
        for (point, token) in [
            (0.0, 0),
            (0.1249, 0),
            (0.126, 1),
            (0.374, 1),
            (0.376, 3),
            (1.0, 3),
        ] {
            assert_eq!(pick(&candidates, point), Some(token), "{point}");
        }
    }

    #[test]
    fn seeds_and_draws_give_different_numbers_in_range() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            for draw in 0..50 {
                let number = uniform(seed, draw);
                assert!((0.0..1.0).contains(&number));
                assert!(seen.insert(number.to_bits()));
            }
        }
    }
}
