//! The fields that chat and completion requests share.

use std::collections::BTreeMap;

use engine::{Format, Limits, Mirostat, ModelInfo, Request, Sampling, TokenId};
use serde_json::Value;

use super::{count, in_range};
use crate::error::ApiError;
use crate::openai::input::Strings;
use crate::openai::sampling::{Common, ResponseFormat};

/// Choices of one request: OpenAI's limit.
pub(crate) const CHOICES_MAX: i64 = 128;
/// Stop strings of one request. OpenAI takes 4; agents send a few more.
pub(crate) const STOPS_MAX: usize = 16;
/// Longest stop string, characters: text up to this length is held back while it may still match.
pub(crate) const STOP_CHARS_MAX: usize = 256;
/// Entries of `logit_bias`: OpenAI's limit is 300; each costs the sampler a step per token.
const BIASES_MAX: usize = 1024;
/// Sequence breakers of DRY; llama.cpp works through them for every new token.
pub(crate) const BREAKERS_MAX: usize = 32;
/// Longest grammar, bytes: parsing is linear in it, so this bounds the time it takes.
const GRAMMAR_BYTES_MAX: usize = 256 * 1024;
/// Largest value of token counts, far over any context.
const TOKENS_MAX: i64 = i32::MAX as i64;

/// Puts the shared fields into `request`.
pub(crate) fn apply(
    mut common: Common,
    request: &mut Request,
    info: &ModelInfo,
) -> Result<(), ApiError> {
    request.n = count(common.n, 1..=CHOICES_MAX, "n")?.unwrap_or(1);
    request.cache_prompt = common.cache_prompt.unwrap_or(true);
    request.limits = limits(&mut common)?;
    request.format = format(&mut common)?;
    request.sampling = sampling(&mut common, info)?;
    Ok(())
}

/// `max_tokens` or its newer name: -1 and null are no limit.
pub(crate) fn max_tokens(value: Option<i64>, param: &str) -> Result<Option<u32>, ApiError> {
    match value {
        None | Some(-1) => Ok(None),
        value => count(value, 1..=TOKENS_MAX, param),
    }
}

fn limits(common: &mut Common) -> Result<Limits, ApiError> {
    let max = max_tokens(common.max_tokens, "max_tokens")?;
    let min = count(common.min_tokens, 0..=TOKENS_MAX, "min_tokens")?.unwrap_or(0);
    if max.is_some_and(|max| min > max) {
        return Err(ApiError::invalid(
            "min_tokens",
            "min_tokens: larger than max_tokens",
        ));
    }
    Ok(Limits {
        max_tokens: max,
        min_tokens: min,
        ignore_eos: common.ignore_eos.unwrap_or(false),
        stop: stops(common.stop.take())?,
    })
}

fn is_long(text: &str) -> bool {
    text.chars().nth(STOP_CHARS_MAX).is_some()
}

fn stops(stop: Option<Strings>) -> Result<Vec<String>, ApiError> {
    let mut stops = stop.unwrap_or_default().0;
    if stops.len() > STOPS_MAX {
        return Err(ApiError::invalid(
            "stop",
            format!(
                "stop: {} strings, at most {STOPS_MAX} are taken",
                stops.len()
            ),
        ));
    }
    if let Some(index) = stops.iter().position(|stop| is_long(stop)) {
        return Err(ApiError::invalid(
            format!("stop[{index}]"),
            format!("stop[{index}]: longer than {STOP_CHARS_MAX} characters"),
        ));
    }
    // Some clients send an empty string for "none".
    stops.retain(|stop| !stop.is_empty());
    Ok(stops)
}

fn format(common: &mut Common) -> Result<Format, ApiError> {
    let mut formats = Vec::new();
    if let Some(format) = common.response_format.take() {
        match response_format(format)? {
            Format::Text => {}
            format => formats.push(("response_format", format)),
        }
    }
    match common.json_schema.take() {
        None | Some(Value::Null) => {}
        Some(schema) => formats.push((
            "json_schema",
            Format::JsonSchema(checked_schema(schema, "json_schema")?),
        )),
    }
    match common.grammar.take() {
        Some(grammar) if grammar.len() > GRAMMAR_BYTES_MAX => {
            return Err(ApiError::invalid(
                "grammar",
                format!("grammar: longer than {GRAMMAR_BYTES_MAX} bytes"),
            ));
        }
        Some(grammar) if !grammar.trim().is_empty() => {
            formats.push(("grammar", Format::Grammar(grammar)));
        }
        _ => {}
    }
    if formats.len() > 1 {
        let (param, _) = formats[1];
        return Err(ApiError::invalid(
            param,
            format!("{param}: only one of response_format, json_schema and grammar can be used"),
        ));
    }
    Ok(formats.pop().map_or(Format::Text, |(_, format)| format))
}

fn response_format(format: ResponseFormat) -> Result<Format, ApiError> {
    match format.kind.as_str() {
        "text" => Ok(Format::Text),
        "json_object" => match format.schema {
            None | Some(Value::Null) => Ok(Format::JsonObject),
            Some(schema) => {
                checked_schema(schema, "response_format.schema").map(Format::JsonSchema)
            }
        },
        "json_schema" => match format.json_schema {
            None => Err(ApiError::invalid(
                "response_format.json_schema",
                "response_format.json_schema: missing",
            )),
            Some(named) => match named.schema.or(format.schema) {
                None | Some(Value::Null) => Ok(Format::JsonObject),
                Some(schema) => checked_schema(schema, "response_format.json_schema.schema")
                    .map(Format::JsonSchema),
            },
        },
        _ => Err(ApiError::invalid(
            "response_format.type",
            "response_format.type: must be `text`, `json_object` or `json_schema`",
        )),
    }
}

fn checked_schema(schema: Value, param: &str) -> Result<Value, ApiError> {
    if schema.is_object() {
        Ok(schema)
    } else {
        Err(ApiError::invalid(
            param,
            format!("{param}: a JSON schema is an object"),
        ))
    }
}

fn sampling(common: &mut Common, info: &ModelInfo) -> Result<Sampling, ApiError> {
    let base = Sampling::default();
    let real = |value: Option<f64>, range, param, default| {
        in_range(value, range, param).map(|value| value.map_or(default, narrow))
    };
    let window = |value: Option<i64>, param, default| match value {
        Some(-1) => Ok(info.context_tokens),
        value => Ok::<_, ApiError>(count(value, 0..=TOKENS_MAX, param)?.unwrap_or(default)),
    };
    let top_k = match common.top_k {
        Some(-1) => 0,
        value => count(value, 0..=TOKENS_MAX, "top_k")?.unwrap_or(base.top_k),
    };
    Ok(Sampling {
        temperature: real(
            common.temperature,
            0.0..=2.0,
            "temperature",
            base.temperature,
        )?,
        top_k,
        top_p: real(common.top_p, 0.0..=1.0, "top_p", base.top_p)?,
        min_p: real(common.min_p, 0.0..=1.0, "min_p", base.min_p)?,
        typical_p: real(common.typical_p, 0.0..=1.0, "typical_p", base.typical_p)?,
        repeat_penalty: repeat_penalty(common)?.unwrap_or(base.repeat_penalty),
        penalty_last_n: window(common.repeat_last_n, "repeat_last_n", base.penalty_last_n)?,
        presence_penalty: real(common.presence_penalty, -2.0..=2.0, "presence_penalty", 0.0)?,
        frequency_penalty: real(
            common.frequency_penalty,
            -2.0..=2.0,
            "frequency_penalty",
            0.0,
        )?,
        dry_multiplier: real(common.dry_multiplier, 0.0..=100.0, "dry_multiplier", 0.0)?,
        dry_base: real(common.dry_base, 1.0..=100.0, "dry_base", base.dry_base)?,
        dry_allowed_length: count(
            common.dry_allowed_length,
            0..=TOKENS_MAX,
            "dry_allowed_length",
        )?
        .unwrap_or(base.dry_allowed_length),
        dry_penalty_last_n: window(
            common.dry_penalty_last_n,
            "dry_penalty_last_n",
            base.dry_penalty_last_n,
        )?,
        dry_sequence_breakers: breakers(common.dry_sequence_breakers.take())?
            .unwrap_or(base.dry_sequence_breakers),
        mirostat: mirostat(common)?,
        seed: seed(common.seed),
        logit_bias: logit_bias(common.logit_bias.take(), info)?,
    })
}

/// The engine computes in f32; the ranges keep values finite.
#[allow(clippy::cast_possible_truncation)]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn repeat_penalty(common: &Common) -> Result<Option<f32>, ApiError> {
    // The penalty divides logits, so that zero is no value. Both names are checked: a wrong value
    // is a mistake even where the other name wins.
    let one = in_range(common.repeat_penalty, 0.01..=100.0, "repeat_penalty")?;
    let other = in_range(
        common.repetition_penalty,
        0.01..=100.0,
        "repetition_penalty",
    )?;
    Ok(one.or(other).map(narrow))
}

fn breakers(list: Option<Strings>) -> Result<Option<Vec<String>>, ApiError> {
    let Some(Strings(mut list)) = list else {
        return Ok(None);
    };
    let too_long = list.iter().any(|breaker| is_long(breaker));
    if list.len() > BREAKERS_MAX || too_long {
        return Err(ApiError::invalid(
            "dry_sequence_breakers",
            format!(
                "dry_sequence_breakers: at most {BREAKERS_MAX} strings of {STOP_CHARS_MAX} characters"
            ),
        ));
    }
    list.retain(|breaker| !breaker.is_empty());
    Ok(Some(list))
}

fn mirostat(common: &Common) -> Result<Option<Mirostat>, ApiError> {
    let version = count(common.mirostat, 0..=2, "mirostat")?.unwrap_or(0);
    // Both are checked even when mirostat is off: a wrong value is a mistake either way.
    let tau = in_range(common.mirostat_tau, 0.0..=100.0, "mirostat_tau")?;
    let eta = in_range(common.mirostat_eta, 0.0..=1.0, "mirostat_eta")?;
    Ok((version > 0).then(|| Mirostat {
        version: if version == 1 { 1 } else { 2 },
        // llama.cpp's defaults.
        tau: tau.map_or(5.0, narrow),
        eta: eta.map_or(0.1, narrow),
    }))
}

/// Folds a seed of any size into the engine's 32 bits.
fn seed(seed: Option<i64>) -> Option<u32> {
    let seed = seed.filter(|&seed| seed != -1)?.cast_unsigned();
    let folded = seed ^ (seed >> 32);
    u32::try_from(folded & u64::from(u32::MAX)).ok()
}

fn logit_bias(
    biases: Option<BTreeMap<String, f64>>,
    info: &ModelInfo,
) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let biases = biases.unwrap_or_default();
    if biases.len() > BIASES_MAX {
        return Err(ApiError::invalid(
            "logit_bias",
            format!(
                "logit_bias: {} entries, at most {BIASES_MAX} are taken",
                biases.len()
            ),
        ));
    }
    biases
        .into_iter()
        .map(|(key, bias)| {
            let param = || format!("logit_bias.{}", shortened(&key));
            let digits = key.bytes().all(|byte| byte.is_ascii_digit());
            let token = key
                .parse::<TokenId>()
                .ok()
                .filter(|_| digits)
                .filter(|&token| token >= 0 && token.cast_unsigned() < info.vocabulary_tokens)
                .ok_or_else(|| {
                    ApiError::invalid(
                        param(),
                        format!(
                            "{}: not a token id of this model, which has {}",
                            param(),
                            info.vocabulary_tokens
                        ),
                    )
                })?;
            let bias = in_range(Some(bias), -100.0..=100.0, &param())?.map_or(0.0, narrow);
            // OpenAI promises that -100 never comes; a finite bias could not.
            Ok((
                token,
                if bias <= -100.0 {
                    f32::NEG_INFINITY
                } else {
                    bias
                },
            ))
        })
        .collect()
}

/// A key of the request, cut so that an error does not echo a long one.
fn shortened(key: &str) -> String {
    key.chars().take(32).collect()
}
