//! From the engine's events to answers on the wire, whole or streamed.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod sse;

use std::time::{SystemTime, UNIX_EPOCH};

use engine::{FinishReason, ModelInfo};

/// Log-probability that is sent for "never": JSON has no infinity. OpenAI's value.
const LOGPROB_MIN: f32 = -9999.0;

/// What all pieces of an answer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: Option<String>,
}

impl Envelope {
    /// For a new answer of `info`'s model; `prefix` is `chatcmpl` or `cmpl`.
    pub(crate) fn new(prefix: &str, info: &ModelInfo) -> Self {
        Self {
            id: format!("{prefix}-{}", uuid::Uuid::new_v4().simple()),
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            model: info.name.clone(),
            fingerprint: fingerprint(info),
        }
    }
}

fn fingerprint(info: &ModelInfo) -> Option<String> {
    let start: String = info.fingerprint.chars().take(12).collect();
    (!start.is_empty()).then(|| format!("fp_{start}"))
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

fn logprob(value: f32) -> f32 {
    if value.is_nan() {
        LOGPROB_MIN
    } else {
        value.clamp(LOGPROB_MIN, 0.0)
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
