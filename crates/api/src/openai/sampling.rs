//! What chat and completion requests have in common: how tokens are drawn and when it ends.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::input::objects_only;

/// Declares a request type with its own fields and the common ones, and `common()`, which takes
/// the latter out. A flattened struct would do the same, but serde then buffers the whole body
/// and loses the path of a field at fault.
macro_rules! generation_request {
    ($(#[$outer:meta])* pub struct $name:ident { $($(#[$inner:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize, utoipa::ToSchema)]
        #[serde(remote = "Self")]
        pub struct $name {
            $($(#[$inner])* pub $field: $type,)*
            /// Name of a model, as `/v1/models` lists it; left out or `auto`: the largest that is loaded,
            /// here or in the mesh.
            #[serde(default)]
            pub model: Option<String>,
            /// Send the answer in pieces, as server-sent events.
            #[serde(default)]
            pub stream: Option<bool>,
            /// What a stream carries.
            #[serde(default)]
            pub stream_options: Option<$crate::openai::sampling::StreamOptions>,
            /// Choices to generate; they share the prompt.
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(minimum = 1, maximum = 128)]
            pub n: Option<i64>,
            /// Texts that end the answer; not part of it. At most 16.
            #[serde(default)]
            #[schema(schema_with = crate::openapi::union::stop)]
            pub stop: Option<$crate::openai::input::Strings>,
            /// Most tokens to generate; -1: to the end of the context. That is also the default,
            /// for plain completions too, as with llama-server (OpenAI's would stop after 16).
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(schema_with = crate::openapi::union::max_tokens)]
            pub max_tokens: Option<i64>,
            /// The answer does not end by itself before so many tokens.
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(minimum = 0, maximum = 2147483647_i64)]
            pub min_tokens: Option<i64>,
            /// The answer does not end by itself at all.
            #[serde(default)]
            pub ignore_eos: Option<bool>,
            /// 0 always takes the likeliest token.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 2)]
            pub temperature: Option<f64>,
            /// Take only the likeliest tokens of this total probability.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1)]
            pub top_p: Option<f64>,
            /// Take only the k likeliest tokens; 0 or -1: all.
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(minimum = -1, maximum = 2147483647_i64)]
            pub top_k: Option<i64>,
            /// Take only tokens with this share of the likeliest one's probability.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1)]
            pub min_p: Option<f64>,
            /// Locally typical sampling; 1 is off.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1)]
            pub typical_p: Option<f64>,
            /// Repetition penalty, llama.cpp's name; 1 is off.
            #[serde(default)]
            #[schema(minimum = 0.01, maximum = 100)]
            pub repeat_penalty: Option<f64>,
            /// Repetition penalty, vLLM's name; 1 is off.
            #[serde(default)]
            #[schema(minimum = 0.01, maximum = 100)]
            pub repetition_penalty: Option<f64>,
            /// Tokens that the penalties look back; 0 is off, -1: the whole context.
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(minimum = -1, maximum = 2147483647_i64)]
            pub repeat_last_n: Option<i64>,
            /// Penalty on tokens that occurred at all.
            #[serde(default)]
            #[schema(minimum = -2, maximum = 2)]
            pub presence_penalty: Option<f64>,
            /// Penalty on tokens for each time they occurred.
            #[serde(default)]
            #[schema(minimum = -2, maximum = 2)]
            pub frequency_penalty: Option<f64>,
            /// Strength of the DRY penalty; 0 is off.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 100)]
            pub dry_multiplier: Option<f64>,
            /// Base of the DRY penalty.
            #[serde(default)]
            #[schema(minimum = 1, maximum = 100)]
            pub dry_base: Option<f64>,
            /// Longest repetition that DRY leaves alone, tokens.
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(minimum = 0, maximum = 2147483647_i64)]
            pub dry_allowed_length: Option<i64>,
            /// Tokens that DRY looks back; 0 is off, -1: the whole context.
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(minimum = -1, maximum = 2147483647_i64)]
            pub dry_penalty_last_n: Option<i64>,
            /// Texts at which DRY begins anew.
            #[serde(default)]
            #[schema(schema_with = crate::openapi::union::breakers)]
            pub dry_sequence_breakers: Option<$crate::openai::input::Strings>,
            /// Mirostat: 0 is off, else its version.
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(minimum = 0, maximum = 2)]
            pub mirostat: Option<i64>,
            /// Mirostat's target entropy.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 100)]
            pub mirostat_tau: Option<f64>,
            /// Mirostat's learning rate.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1)]
            pub mirostat_eta: Option<f64>,
            /// Same seed and settings, same answer; -1 or left out: another each time.
            #[serde(default, deserialize_with = "crate::openai::input::whole")]
            #[schema(format = Int64)]
            pub seed: Option<i64>,
            /// Token id to a bias from -100 (never) to 100.
            #[serde(default)]
            #[schema(schema_with = crate::openapi::union::logit_bias)]
            pub logit_bias: Option<std::collections::BTreeMap<String, f64>>,
            /// The shape of the answer.
            #[serde(default)]
            #[schema(schema_with = crate::openapi::union::response_format)]
            pub response_format: Option<$crate::openai::sampling::ResponseFormat>,
            /// JSON schema of the answer, llama.cpp's way to ask.
            #[serde(default)]
            #[schema(schema_with = crate::openapi::union::json_schema)]
            pub json_schema: Option<serde_json::Value>,
            /// GBNF grammar of the answer.
            #[serde(default)]
            pub grammar: Option<String>,
            /// Whether the KV of earlier requests may be used; on by default.
            #[serde(default)]
            pub cache_prompt: Option<bool>,
        }

        impl $name {
            /// `None`: the answer is sent as a whole. Otherwise whether its stream ends with the
            /// token counts.
            pub(crate) fn stream(&self) -> Option<bool> {
                let with_usage = self.stream_options.and_then(|options| options.include_usage);
                (self.stream == Some(true)).then_some(with_usage == Some(true))
            }

            /// Takes the common fields out.
            pub(crate) fn common(&mut self) -> $crate::openai::sampling::Common {
                $crate::openai::sampling::generation_request!(@take self;
                    n, stop, max_tokens, min_tokens, ignore_eos, temperature, top_p, top_k, min_p,
                    typical_p, repeat_penalty, repetition_penalty, repeat_last_n,
                    presence_penalty, frequency_penalty, dry_multiplier, dry_base,
                    dry_allowed_length, dry_penalty_last_n, dry_sequence_breakers, mirostat,
                    mirostat_tau, mirostat_eta, seed, logit_bias, response_format, json_schema,
                    grammar, cache_prompt)
            }
        }
    };
    (@take $self:ident; $($field:ident),*) => {
        $crate::openai::sampling::Common { $($field: $self.$field.take(),)* }
    };
}
pub(crate) use generation_request;

/// The common fields of a request; see `generation_request` for what they mean.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Common {
    pub(crate) n: Option<i64>,
    pub(crate) stop: Option<super::input::Strings>,
    pub(crate) max_tokens: Option<i64>,
    pub(crate) min_tokens: Option<i64>,
    pub(crate) ignore_eos: Option<bool>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<i64>,
    pub(crate) min_p: Option<f64>,
    pub(crate) typical_p: Option<f64>,
    pub(crate) repeat_penalty: Option<f64>,
    pub(crate) repetition_penalty: Option<f64>,
    pub(crate) repeat_last_n: Option<i64>,
    pub(crate) presence_penalty: Option<f64>,
    pub(crate) frequency_penalty: Option<f64>,
    pub(crate) dry_multiplier: Option<f64>,
    pub(crate) dry_base: Option<f64>,
    pub(crate) dry_allowed_length: Option<i64>,
    pub(crate) dry_penalty_last_n: Option<i64>,
    pub(crate) dry_sequence_breakers: Option<super::input::Strings>,
    pub(crate) mirostat: Option<i64>,
    pub(crate) mirostat_tau: Option<f64>,
    pub(crate) mirostat_eta: Option<f64>,
    pub(crate) seed: Option<i64>,
    pub(crate) logit_bias: Option<std::collections::BTreeMap<String, f64>>,
    pub(crate) response_format: Option<ResponseFormat>,
    pub(crate) json_schema: Option<Value>,
    pub(crate) grammar: Option<String>,
    pub(crate) cache_prompt: Option<bool>,
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct StreamOptions {
    /// Send the token counts in a last chunk without choices.
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// One server-sent event of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
pub struct StreamEvent {
    /// A chunk as JSON text (`ChatChunk` or `Completion`); last of all `[DONE]`, or an
    /// `ErrorBody` if something failed on the way.
    pub data: String,
}

/// The shape of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self")]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `json_schema`.
    #[serde(default)]
    pub json_schema: Option<NamedSchema>,
    /// For `json_object`, llama.cpp's way to give a schema.
    #[serde(default)]
    pub schema: Option<Value>,
}

/// A JSON schema with a name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self")]
pub struct NamedSchema {
    /// A name, which has no effect.
    #[serde(default)]
    pub name: Option<String>,
    /// The schema itself; left out: any object.
    #[serde(default)]
    pub schema: Option<Value>,
}

objects_only!(StreamOptions, ResponseFormat, NamedSchema);
