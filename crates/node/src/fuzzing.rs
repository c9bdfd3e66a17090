//! Owns the list of what reads bytes of peers in this crate, each as a function that may be given any
//! bytes: it must not panic, and what it reads must survive being written and read again.
//!
//! The targets in `fuzz/` and a property test call them.

use engine::{
    Chat, Delta, Error, Event, FinishReason, Format, Input, Message, Mirostat, ModelInfo, Request,
    Resumed, Role, Summary, TokenLogprob, Tool, ToolCall, ToolCallDelta, ToolChoice,
};
use mesh::NodeId;
use serde_json::json;

use crate::journal::Journal;
use crate::wire::trips::{ask_bytes, read_ask, read_trips, trips_bytes};
use crate::wire::{Call, Reply, TakeUp, call_bytes, read_call, read_reply, reply_bytes};

/// A call; true if the bytes were accepted.
pub fn call(bytes: &[u8]) -> bool {
    let Ok(read) = read_call(bytes) else {
        return false;
    };
    // Bytes and not values are compared: a number that is none differs from itself.
    let written = call_bytes(&read);
    let again = read_call(&written).map(|again| call_bytes(&again));
    assert_eq!(again.as_ref(), Ok(&written));
    true
}

/// A reply, and what takes it into an answer.
pub fn reply(bytes: &[u8]) -> bool {
    let Ok(read) = read_reply(bytes) else {
        return false;
    };
    let written = reply_bytes(&read);
    let again = read_reply(&written).map(|again| reply_bytes(&again));
    assert_eq!(again.as_ref(), Ok(&written));
    if let Reply::Event(event) = read {
        let mut request = Request::new("m", Input::Text("hi".into()));
        request.n = 2;
        request.logprobs = Some(2);
        let mut journal = Journal::new(request);
        // Twice from the first host, then from another.
        for _ in 0..2 {
            let _ = journal.note(event.clone());
        }
        let _ = journal.resume();
        let _ = journal.note(event);
    }
    true
}

/// A question how far members are; true if the bytes were accepted.
pub fn trips_ask(bytes: &[u8]) -> bool {
    let Ok(read) = read_ask(bytes) else {
        return false;
    };
    assert_eq!(read_ask(&ask_bytes(&read)), Ok(read));
    true
}

/// The answer to one; true if the bytes were accepted.
pub fn trips(bytes: &[u8]) -> bool {
    let Ok(read) = read_trips(bytes) else {
        return false;
    };
    assert_eq!(read_trips(&trips_bytes(&read)), Ok(read));
    true
}

/// Bytes that a function of this module accepts, to begin with; none if none has this name.
#[must_use]
pub fn samples(name: &str) -> Vec<Vec<u8>> {
    match name {
        "call" => calls().iter().map(call_bytes).collect(),
        "reply" => replies().iter().map(reply_bytes).collect(),
        "trips_ask" => vec![ask_bytes(&[]), ask_bytes(&nodes())],
        "trips" => {
            let trips = nodes().map(|node| (node, 900));
            vec![trips_bytes(&[]), trips_bytes(&trips)]
        }
        _ => Vec::new(),
    }
}

fn nodes() -> [NodeId; 3] {
    [1, 2, 255].map(|byte| NodeId::from_bytes([byte; 32]))
}

/// A request that uses everything.
pub(crate) fn full_request() -> Request {
    let mut nested = json!({ "type": "string" });
    for _ in 0..40 {
        nested =
            json!({ "type": "object", "properties": { "z": nested, "a": { "type": "null" } } });
    }
    let mut chat = Chat {
        messages: vec![
            Message::system("be brief"),
            Message {
                role: Role::Assistant,
                content: String::new(),
                name: Some("x".into()),
                reasoning: Some("hm".into()),
                tool_calls: vec![ToolCall {
                    id: "1".into(),
                    name: "f".into(),
                    arguments: "{\"a\": 1}".into(),
                }],
                tool_call_id: None,
            },
            Message::tool("1", "42"),
        ],
        tools: vec![Tool {
            name: "f".into(),
            description: Some("does".into()),
            parameters: Some(nested),
        }],
        tool_choice: ToolChoice::Named("f".into()),
        parallel_tool_calls: true,
        template_kwargs: Default::default(),
    };
    chat.template_kwargs
        .insert("enable_thinking".into(), json!(false));
    let mut request = Request::new("model/x", Input::Chat(chat));
    request.sampling.mirostat = Some(Mirostat {
        version: 2,
        tau: 5.0,
        eta: 0.1,
    });
    request.sampling.seed = Some(7);
    request.sampling.logit_bias = vec![(3, f32::NEG_INFINITY), (4, 1.5)];
    request.limits.max_tokens = Some(9);
    request.limits.stop = vec!["\n".into()];
    request.n = 2;
    request.format = Format::JsonSchema(json!({ "type": "object" }));
    request.logprobs = Some(3);
    request.resume = vec![
        Resumed {
            tokens: vec![1, 2],
            finished: true,
        },
        Resumed::default(),
    ];
    request
}

/// Calls of every kind.
pub(crate) fn calls() -> Vec<Call> {
    let text = Request::new("m", Input::Text("hi\u{0}é".into()));
    let tokens = Request {
        format: Format::Grammar("root ::= \"a\"".into()),
        ..Request::new("", Input::Tokens(vec![1, -1]))
    };
    vec![
        Call::Generate(Box::new(full_request())),
        Call::Generate(Box::new(text)),
        Call::Generate(Box::new(tokens)),
        Call::Embed(engine::EmbedRequest {
            model: "e".into(),
            inputs: vec![
                engine::EmbedInput::Text("t".into()),
                engine::EmbedInput::Tokens(vec![5]),
            ],
        }),
        Call::Describe { model: "m".into() },
        Call::Tokenize {
            model: "m".into(),
            text: "t".into(),
            add_special: true,
            parse_special: false,
        },
        Call::TokenBytes {
            model: "m".into(),
            tokens: vec![1],
        },
        Call::Render {
            model: "m".into(),
            chat: Chat::default(),
        },
        Call::TakeUp(TakeUp {
            model: "m".into(),
            fingerprint: "f".into(),
            context_tokens: 4_096,
            slots: 2,
            fetch: true,
            tell_context: true,
        }),
    ]
}

/// Replies of every kind.
pub(crate) fn replies() -> Vec<Reply> {
    let delta = Delta {
        content: "c".into(),
        reasoning: "r".into(),
        tool_calls: vec![ToolCallDelta {
            index: 1,
            id: Some("i".into()),
            name: Some("n".into()),
            arguments: "{".into(),
        }],
        tokens: vec![1, 2],
        logprobs: vec![TokenLogprob {
            token: 1,
            bytes: vec![0xff],
            logprob: -0.5,
            top: vec![(2, vec![1, 2], -1.0)],
        }],
    };
    let errors = [
        Error::ModelNotFound {
            model: "m".into(),
            hint: "h".into(),
        },
        Error::ContextLengthExceeded {
            prompt_tokens: 1,
            context_tokens: 2,
        },
        Error::invalid("f", "r"),
        Error::QueueFull {
            waiting: 1,
            retry_after_s: 2,
        },
        Error::ShuttingDown,
        Error::Unsupported("u".into()),
        Error::Inference("i".into()),
        Error::Lost("l".into()),
    ];
    let events = [
        Event::Started {
            prompt_tokens: 1,
            cached_tokens: 2,
        },
        Event::Delta { choice: 3, delta },
        Event::Delta {
            choice: 0,
            delta: Delta::default(),
        },
        Event::Finished {
            choice: 1,
            reason: FinishReason::ToolCalls,
        },
        Event::Done(Summary::default()),
    ];
    let others = [
        Reply::Accepted,
        Reply::Alive,
        Reply::Vector(vec![0.5, -1.0]),
        Reply::Embedded(4),
        Reply::Tokens(vec![1]),
        Reply::Bytes(vec![vec![1], vec![]]),
        Reply::Text("t".into()),
        Reply::Fetching(42),
        Reply::ContextMax(8_192),
        Reply::Model(Box::new(model())),
    ];
    let errors = errors.into_iter().map(Reply::Failed);
    let events = events.into_iter().map(Reply::Event);
    errors.chain(events).chain(others).collect()
}

fn model() -> ModelInfo {
    ModelInfo {
        name: "m".into(),
        architecture: "qwen3".into(),
        quantization: "Q8_0".into(),
        parameters: 7,
        size_bytes: 1 << 30,
        context_tokens: 4_096,
        trained_context_tokens: 4_096,
        embedding_width: 2,
        vocabulary_tokens: 1_000,
        slots: 4,
        generates: true,
        embeds: false,
        tools: true,
        reasoning: false,
        created_unix_s: 1,
        fingerprint: "0".repeat(64),
    }
}
