//! Token counts and times of an answer.

use serde::Serialize;
use utoipa::ToSchema;

/// Token counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Generated tokens, all choices together.
    pub completion_tokens: u32,
    /// Both together.
    pub total_tokens: u32,
    /// More about the prompt.
    pub prompt_tokens_details: PromptTokensDetails,
    /// More about the generated tokens.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// More about a prompt's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens whose KV was found from earlier requests.
    pub cached_tokens: u32,
}

/// More about generated tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CompletionTokensDetails {
    /// Tokens of reasoning.
    pub reasoning_tokens: u32,
}

/// Times of a request, named as llama.cpp's server names them.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Timings {
    /// Wait for a slot, ms.
    pub queue_ms: f64,
    /// Prompt tokens found in the KV of earlier requests.
    pub cache_n: u32,
    /// Prompt tokens that were evaluated.
    pub prompt_n: u32,
    /// Time of their evaluation, ms.
    pub prompt_ms: f64,
    /// Evaluated prompt tokens per second.
    pub prompt_per_second: f64,
    /// Generated tokens.
    pub predicted_n: u32,
    /// Time from the first generated token to the last, ms.
    pub predicted_ms: f64,
    /// Generated tokens per second.
    pub predicted_per_second: f64,
    /// Tokens drafted by speculation.
    pub draft_n: u32,
    /// Drafted tokens that were accepted.
    pub draft_n_accepted: u32,
}

impl From<&engine::Usage> for Usage {
    fn from(usage: &engine::Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: usage.cached_tokens,
            },
            completion_tokens_details: CompletionTokensDetails {
                reasoning_tokens: usage.reasoning_tokens,
            },
        }
    }
}

impl From<&engine::Summary> for Timings {
    fn from(summary: &engine::Summary) -> Self {
        let engine::Summary { usage, timings } = summary;
        let prompt_n = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
        Self {
            queue_ms: finite(timings.queue_ms),
            cache_n: usage.cached_tokens,
            prompt_n,
            prompt_ms: finite(timings.prompt_ms),
            prompt_per_second: per_second(prompt_n, timings.prompt_ms),
            predicted_n: usage.completion_tokens,
            predicted_ms: finite(timings.decode_ms),
            predicted_per_second: per_second(usage.completion_tokens, timings.decode_ms),
            draft_n: usage.drafted_tokens,
            draft_n_accepted: usage.accepted_tokens,
        }
    }
}

/// JSON has no infinities.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

fn per_second(count: u32, ms: f64) -> f64 {
    finite(f64::from(count) * 1000.0 / ms)
}
