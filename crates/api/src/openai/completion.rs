//! `/v1/completions`: request, answer, and the chunks of a streamed answer (the same shape).

use serde::Serialize;
use utoipa::ToSchema;

use super::input::{Prompt, objects_only};
use super::sampling::generation_request;
use super::usage::{Timings, Usage};

generation_request! {
    /// Text to continue, without a chat template.
    pub struct CompletionRequest {
        /// Text, texts, a list of token ids, or lists of them; several give several choices.
        #[schema(schema_with = crate::openapi::union::prompt)]
        pub prompt: Prompt,
        /// Begin the answer with the prompt.
        #[serde(default)]
        pub echo: Option<bool>,
        /// Report the log-probability of each token and of so many alternatives.
        #[serde(default, deserialize_with = "crate::openai::input::whole")]
        #[schema(minimum = 0, maximum = 20)]
        pub logprobs: Option<i64>,
        /// Text after the answer; refused unless empty.
        #[serde(default)]
        #[schema(max_length = 0)]
        pub suffix: Option<String>,
        /// Only 1 is served.
        #[serde(default, deserialize_with = "crate::openai::input::whole")]
        #[schema(minimum = 1, maximum = 1)]
        pub best_of: Option<i64>,
    }
}

/// An answer, or a piece of a streamed one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Completion {
    /// Identifier, `cmpl-…`.
    pub id: String,
    /// `text_completion`.
    pub object: &'static str,
    /// When the answer was made, Unix seconds.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Identity of the model's content.
    #[schema(required)]
    pub system_fingerprint: Option<String>,
    /// The answers; with several prompts those of the first come first.
    pub choices: Vec<CompletionChoice>,
    /// Token counts; in a stream only in the last chunk, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Times; in a stream only in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

/// One answer, or a piece of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CompletionChoice {
    /// The text.
    pub text: String,
    /// Index among the choices.
    pub index: u32,
    /// Log-probabilities, when asked for.
    #[schema(required)]
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`; null before the end of a stream.
    #[schema(required)]
    pub finish_reason: Option<&'static str>,
}

/// Log-probabilities of an answer's tokens; the lists run in step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// The tokens as text.
    pub tokens: Vec<String>,
    /// Natural logarithm of each token's probability.
    pub token_logprobs: Vec<f32>,
    /// For each token, the likeliest ones at its place with their log-probabilities.
    #[schema(value_type = Vec<std::collections::HashMap<String, f32>>)]
    pub top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where each token begins in the text, characters.
    pub text_offset: Vec<u32>,
}

objects_only!(CompletionRequest);
