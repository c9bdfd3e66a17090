use engine::{
    Chat, Delta, Error, Event, FinishReason, Format, Input, Message, Mirostat, Request, Resumed,
    Role, Summary, TokenLogprob, Tool, ToolCall, ToolCallDelta, ToolChoice,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fuzzing;

fn full_request() -> Request {
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

#[test]
fn calls_come_back_whole() {
    let text = Request::new("m", Input::Text("hi\u{0}é".into()));
    let tokens = Request {
        format: Format::Grammar("root ::= \"a\"".into()),
        ..Request::new("", Input::Tokens(vec![1, -1]))
    };
    for call in [
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
    ] {
        assert_eq!(read_call(&call_bytes(&call)), Ok(call));
    }
}

#[test]
fn replies_come_back_whole() {
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
    ];
    let errors = errors.into_iter().map(Reply::Failed);
    let events = events.into_iter().map(Reply::Event);
    for reply in errors.chain(events).chain(others) {
        assert_eq!(read_reply(&reply_bytes(&reply)), Ok(reply));
    }
}

#[test]
fn a_token_costs_few_bytes() {
    let reply = Reply::Event(Event::Delta {
        choice: 0,
        delta: Delta {
            content: " word".into(),
            tokens: vec![12_345],
            ..Delta::default()
        },
    });
    assert!(
        reply_bytes(&reply).len() <= 24,
        "{}",
        reply_bytes(&reply).len()
    );
}

#[test]
fn numbers_that_no_ingress_sends_are_refused() {
    let check = |change: fn(&mut Request)| {
        let mut request = full_request();
        change(&mut request);
        let read = read_call(&call_bytes(&Call::Generate(Box::new(request))));
        assert!(matches!(read, Err(WireError::Range(_))), "{read:?}");
    };
    check(|r| r.n = 0);
    check(|r| r.n = u32::MAX);
    check(|r| r.sampling.temperature = f32::NAN);
    check(|r| r.sampling.top_p = f32::INFINITY);
    check(|r| r.sampling.logit_bias.push((1, f32::NAN)));
    check(|r| {
        r.sampling.mirostat = Some(Mirostat {
            version: 3,
            tau: 1.0,
            eta: 1.0,
        });
    });
}

#[test]
fn samples_of_the_fuzz_targets_are_accepted() {
    let (calls, replies) = fuzzing::samples();
    assert!(calls.iter().all(|bytes| fuzzing::call(bytes)));
    assert!(replies.iter().all(|bytes| fuzzing::reply(bytes)));
    assert!(!fuzzing::call(b"") && !fuzzing::reply(b"\xff"));
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = fuzzing::call(&bytes);
        let _ = fuzzing::reply(&bytes);
    }

    #[test]
    fn damaged_samples_never_panic(
        which: prop::sample::Index,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (calls, replies) = fuzzing::samples();
        for (samples, read) in [
            (calls, fuzzing::call as fn(&[u8]) -> bool),
            (replies, fuzzing::reply),
        ] {
            let mut bytes = samples[which.index(samples.len())].clone();
            for (at, byte) in &edits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = read(&bytes);
        }
    }

    #[test]
    fn damaged_messages_never_panic(at in 0..4_000_usize, byte: u8) {
        let mut bytes = call_bytes(&Call::Generate(Box::new(full_request())));
        let index = at % bytes.len();
        bytes[index] = byte;
        let _ = read_call(&bytes);
        bytes.truncate(index);
        prop_assert!(read_call(&bytes).is_err());
    }
}
