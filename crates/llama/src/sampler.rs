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
    /// Draw from the distribution; last stage.
    Draw {
        /// Seed of the generator.
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
        let sampler = Self {
            raw,
            candidates: Vec::new(),
        };
        for stage in stages {
            let (name, stage) = make(vocabulary, stage)?;
            if stage.is_null() {
                return Err(Error::Sampler(name));
            }
            // SAFETY: both are alive; the chain takes over the stage.
            unsafe { sys::llama_sampler_chain_add(sampler.raw.as_ptr(), stage) };
        }
        Ok(sampler)
    }

    /// Draws a token from `logits` (one per token of the vocabulary; `-inf` forbids). `None` when
    /// no token is possible.
    pub fn sample(&mut self, logits: &[f32]) -> Option<Token> {
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
            SamplerStage::Draw { seed } => ("draw", sys::llama_sampler_init_dist(*seed)),
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
