//! Log-probabilities in the two forms of OpenAI's API: those of chats and those of completions.

use serde_json::Value;

use crate::TokenLogprob;
use crate::event::{LOGPROB_MIN, TOP_LOGPROBS_MAX};

/// Reads the `logprobs` of a choice or of a chunk's choice.
pub(super) fn read(logprobs: &Value) -> Vec<TokenLogprob> {
    let list = |key: &str| logprobs[key].as_array().map(Vec::as_slice);
    if let Some(tokens) = list("content") {
        return tokens.iter().map(of_chat).collect();
    }
    let (tokens, values) = (list("tokens"), list("token_logprobs"));
    let tops = list("top_logprobs").unwrap_or_default();
    let pairs = tokens
        .into_iter()
        .flatten()
        .zip(values.into_iter().flatten());
    pairs
        .enumerate()
        .map(|(index, (token, value))| TokenLogprob {
            bytes: text(token),
            logprob: number(value),
            top: tops.get(index).map(of_completion).unwrap_or_default(),
        })
        .collect()
}

fn of_chat(entry: &Value) -> TokenLogprob {
    let top = entry["top_logprobs"].as_array().into_iter().flatten();
    TokenLogprob {
        bytes: bytes(entry),
        logprob: number(&entry["logprob"]),
        top: top
            .take(TOP_LOGPROBS_MAX as usize)
            .map(|top| (bytes(top), number(&top["logprob"])))
            .collect(),
    }
}

fn of_completion(top: &Value) -> Vec<(Vec<u8>, f32)> {
    let mut top: Vec<(Vec<u8>, f32)> = (top.as_object().into_iter().flatten())
        .take(TOP_LOGPROBS_MAX as usize)
        .map(|(text, value)| (text.clone().into_bytes(), number(value)))
        .collect();
    top.sort_by(|left, right| right.1.total_cmp(&left.1));
    top
}

/// A token's bytes; servers that do not send them send its text.
fn bytes(entry: &Value) -> Vec<u8> {
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let bytes = entry["bytes"].as_array();
    bytes
        .and_then(|bytes| bytes.iter().map(byte).collect())
        .unwrap_or_else(|| text(&entry["token"]))
}

fn text(value: &Value) -> Vec<u8> {
    value.as_str().unwrap_or_default().as_bytes().to_vec()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "log-probabilities are f32 everywhere"
)]
fn number(value: &Value) -> f32 {
    value
        .as_f64()
        .map_or(LOGPROB_MIN, |value| (value as f32).max(LOGPROB_MIN))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::read;
    use crate::TokenLogprob;

    fn token(bytes: &[u8], logprob: f32, top: &[(&str, f32)]) -> TokenLogprob {
        let top = top.iter();
        TokenLogprob {
            bytes: bytes.to_vec(),
            logprob,
            top: top
                .map(|(text, logprob)| (text.as_bytes().to_vec(), *logprob))
                .collect(),
        }
    }

    #[test]
    fn both_forms_are_read() {
        let check = |value: Value, expected: &[TokenLogprob]| {
            assert_eq!(read(&value), expected, "{value}");
        };
        check(Value::Null, &[]);
        check(json!({ "content": null }), &[]);
        check(
            json!({ "content": [
                { "token": "?", "bytes": [195], "logprob": -0.5, "top_logprobs": [
                    { "token": "a", "bytes": null, "logprob": -0.25 },
                ]},
                { "token": "b", "logprob": -1e9 },
            ]}),
            &[
                token(&[195], -0.5, &[("a", -0.25)]),
                token(b"b", -9999.0, &[]),
            ],
        );
        check(
            json!({ "tokens": ["a", "b"], "token_logprobs": [null, -1.0],
                    "top_logprobs": [null, { "c": -2.0, "b": -1.0 }] }),
            &[
                token(b"a", -9999.0, &[]),
                token(b"b", -1.0, &[("b", -1.0), ("c", -2.0)]),
            ],
        );
    }
}
