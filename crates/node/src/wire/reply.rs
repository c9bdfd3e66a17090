//! What a host answers.

use std::fmt;

use engine::{
    Delta, Error, Event, FinishReason, ModelInfo, Summary, Timings, TokenId, TokenLogprob,
    ToolCallDelta, Usage,
};
use mesh::codec::{self, Blob};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::error::ErrorWire;
use super::model::ModelInfoWire;
use super::{REPLY_BYTES_MAX, VECTOR_VALUES_MAX, WireError};

/// One reply.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// The call is taken; its answer follows.
    Accepted,
    /// Nothing new, but the host is there and works on it.
    Alive,
    /// The call has failed; nothing follows.
    Failed(Error),
    /// Of a generation.
    Event(Event),
    /// What the model is.
    Model(Box<ModelInfo>),
    /// The next embedding.
    Vector(Vec<f32>),
    /// All embeddings are out; so many tokens were read.
    Embedded(u32),
    /// The tokens of a text.
    Tokens(Vec<TokenId>),
    /// The bytes of tokens.
    Bytes(Vec<Vec<u8>>),
    /// A rendered conversation.
    Text(String),
    /// So many hundredths of the file are there that the host gets to serve a model; said each time that they are more.
    Fetching(u8),
    /// With so many tokens of context at most a model would be served, or is, that was asked for with more; said before a
    /// refusal.
    ContextMax(u32),
}

/// Short names where there is one for every token.
#[derive(Debug, Serialize, Deserialize)]
enum ReplyWire {
    Accepted,
    Alive,
    Failed(ErrorWire),
    Started {
        prompt_tokens: u32,
        cached_tokens: u32,
    },
    #[serde(rename = "d")]
    Delta(DeltaWire),
    Finished {
        choice: u32,
        reason: ReasonWire,
    },
    Done {
        usage: [u32; 6],
        timings: [f64; 3],
    },
    Model(ModelInfoWire),
    Vector(#[serde(deserialize_with = "values")] Vec<f32>),
    Embedded(u32),
    Tokens(Vec<TokenId>),
    Bytes(Vec<Blob>),
    Text(String),
    Fetching(u8),
    ContextMax(u32),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct DeltaWire {
    #[serde(rename = "i")]
    choice: u32,
    #[serde(rename = "c", default, skip_serializing_if = "String::is_empty")]
    content: String,
    #[serde(rename = "r", default, skip_serializing_if = "String::is_empty")]
    reasoning: String,
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDeltaWire>,
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<TokenId>,
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<LogprobWire>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CallDeltaWire {
    index: u32,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    arguments: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct LogprobWire {
    token: TokenId,
    bytes: Blob,
    logprob: f32,
    top: Vec<(TokenId, Blob, f32)>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum ReasonWire {
    Stop,
    Length,
    ToolCalls,
}

/// The bytes of a reply.
pub(crate) fn reply_bytes(reply: &Reply) -> Vec<u8> {
    codec::encode(&match reply {
        Reply::Accepted => ReplyWire::Accepted,
        Reply::Alive => ReplyWire::Alive,
        Reply::Failed(error) => ReplyWire::Failed(error.into()),
        Reply::Event(event) => event.into(),
        Reply::Model(info) => ReplyWire::Model(info.as_ref().into()),
        Reply::Vector(vector) => ReplyWire::Vector(vector.clone()),
        Reply::Embedded(tokens) => ReplyWire::Embedded(*tokens),
        Reply::Tokens(tokens) => ReplyWire::Tokens(tokens.clone()),
        Reply::Bytes(bytes) => ReplyWire::Bytes(bytes.iter().cloned().map(Blob).collect()),
        Reply::Text(text) => ReplyWire::Text(text.clone()),
        Reply::Fetching(percent) => ReplyWire::Fetching(*percent),
        Reply::ContextMax(tokens) => ReplyWire::ContextMax(*tokens),
    })
}

/// Reads a reply.
pub(crate) fn read_reply(bytes: &[u8]) -> Result<Reply, WireError> {
    Ok(match codec::decode::<ReplyWire>(bytes, REPLY_BYTES_MAX)? {
        ReplyWire::Accepted => Reply::Accepted,
        ReplyWire::Alive => Reply::Alive,
        ReplyWire::Failed(error) => Reply::Failed(error.into()),
        ReplyWire::Started {
            prompt_tokens,
            cached_tokens,
        } => Reply::Event(Event::Started {
            prompt_tokens,
            cached_tokens,
        }),
        ReplyWire::Delta(wire) => Reply::Event(Event::Delta {
            choice: wire.choice,
            delta: wire.into(),
        }),
        ReplyWire::Finished { choice, reason } => Reply::Event(Event::Finished {
            choice,
            reason: reason.into(),
        }),
        ReplyWire::Done { usage, timings } => Reply::Event(Event::Done(summary(usage, timings)?)),
        ReplyWire::Model(info) => Reply::Model(Box::new(info.into())),
        ReplyWire::Vector(vector) => Reply::Vector(vector),
        ReplyWire::Embedded(tokens) => Reply::Embedded(tokens),
        ReplyWire::Tokens(tokens) => Reply::Tokens(tokens),
        ReplyWire::Bytes(bytes) => Reply::Bytes(bytes.into_iter().map(|blob| blob.0).collect()),
        ReplyWire::Text(text) => Reply::Text(text),
        ReplyWire::Fetching(percent @ 0..=100) => Reply::Fetching(percent),
        ReplyWire::Fetching(_) => return Err(WireError::Range("a share of a file")),
        ReplyWire::ContextMax(tokens) => Reply::ContextMax(tokens),
    })
}

impl From<&Event> for ReplyWire {
    fn from(event: &Event) -> Self {
        match event {
            Event::Started {
                prompt_tokens,
                cached_tokens,
            } => Self::Started {
                prompt_tokens: *prompt_tokens,
                cached_tokens: *cached_tokens,
            },
            Event::Delta { choice, delta } => Self::Delta(DeltaWire::of(*choice, delta)),
            Event::Finished { choice, reason } => Self::Finished {
                choice: *choice,
                reason: match reason {
                    FinishReason::Stop => ReasonWire::Stop,
                    FinishReason::Length => ReasonWire::Length,
                    FinishReason::ToolCalls => ReasonWire::ToolCalls,
                },
            },
            Event::Done(Summary { usage, timings }) => Self::Done {
                usage: [
                    usage.prompt_tokens,
                    usage.cached_tokens,
                    usage.completion_tokens,
                    usage.reasoning_tokens,
                    usage.drafted_tokens,
                    usage.accepted_tokens,
                ],
                timings: [timings.queue_ms, timings.prompt_ms, timings.decode_ms],
            },
        }
    }
}

/// The values of an embedding. Reading ends where no model's would go on: a byte of a frame can become four
/// here.
fn values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    deserializer.deserialize_seq(Values)
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {VECTOR_VALUES_MAX} numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<f32>, A::Error> {
        let claimed = seq.size_hint().unwrap_or(0);
        let mut values = Vec::with_capacity(claimed.min(VECTOR_VALUES_MAX));
        while let Some(value) = seq.next_element()? {
            if values.len() == VECTOR_VALUES_MAX {
                return Err(de::Error::invalid_length(values.len() + 1, &self));
            }
            values.push(value);
        }
        Ok(values)
    }
}

fn summary(usage: [u32; 6], timings: [f64; 3]) -> Result<Summary, WireError> {
    if !timings.iter().all(|ms| ms.is_finite() && *ms >= 0.0) {
        return Err(WireError::Range("a time"));
    }
    let [
        prompt_tokens,
        cached_tokens,
        completion_tokens,
        reasoning_tokens,
        drafted_tokens,
        accepted_tokens,
    ] = usage;
    let [queue_ms, prompt_ms, decode_ms] = timings;
    Ok(Summary {
        usage: Usage {
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            reasoning_tokens,
            drafted_tokens,
            accepted_tokens,
        },
        timings: Timings {
            queue_ms,
            prompt_ms,
            decode_ms,
        },
    })
}

impl DeltaWire {
    fn of(choice: u32, d: &Delta) -> Self {
        let call = |c: &ToolCallDelta| CallDeltaWire {
            index: c.index,
            id: c.id.clone(),
            name: c.name.clone(),
            arguments: c.arguments.clone(),
        };
        let logprob = |l: &TokenLogprob| LogprobWire {
            token: l.token,
            bytes: Blob(l.bytes.clone()),
            logprob: l.logprob,
            top: (l.top.iter())
                .map(|(token, bytes, logprob)| (*token, Blob(bytes.clone()), *logprob))
                .collect(),
        };
        Self {
            choice,
            content: d.content.clone(),
            reasoning: d.reasoning.clone(),
            tool_calls: d.tool_calls.iter().map(call).collect(),
            tokens: d.tokens.clone(),
            logprobs: d.logprobs.iter().map(logprob).collect(),
        }
    }
}

impl From<DeltaWire> for Delta {
    fn from(w: DeltaWire) -> Self {
        let call = |c: CallDeltaWire| ToolCallDelta {
            index: c.index,
            id: c.id,
            name: c.name,
            arguments: c.arguments,
        };
        let logprob = |l: LogprobWire| TokenLogprob {
            token: l.token,
            bytes: l.bytes.0,
            logprob: l.logprob,
            top: (l.top.into_iter())
                .map(|(token, bytes, logprob)| (token, bytes.0, logprob))
                .collect(),
        };
        Self {
            content: w.content,
            reasoning: w.reasoning,
            tool_calls: w.tool_calls.into_iter().map(call).collect(),
            tokens: w.tokens,
            logprobs: w.logprobs.into_iter().map(logprob).collect(),
        }
    }
}

impl From<ReasonWire> for FinishReason {
    fn from(wire: ReasonWire) -> Self {
        match wire {
            ReasonWire::Stop => Self::Stop,
            ReasonWire::Length => Self::Length,
            ReasonWire::ToolCalls => Self::ToolCalls,
        }
    }
}
