//! Calls that the starter model makes by itself: constrained as soon as they begin, and nothing else is.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use engine::{
    Backend, Chat, Draft, Engine, Event, FinishReason, Input, LoadOptions, Message, ModelSource,
    Request, Resumed, TokenId, TokenLogprob, Tool,
};
use futures::StreamExt;
use serde_json::{Value, json};

#[derive(Debug, Default)]
struct Answer {
    content: String,
    calls: Vec<(String, String)>,
    /// Pieces that the calls came in.
    pieces: usize,
    tokens: Vec<TokenId>,
    logprobs: Vec<TokenLogprob>,
    reason: Option<FinishReason>,
    completion_tokens: u32,
}

async fn load(draft: Draft) -> Engine {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../assets/starter.gguf"
    ));
    let mut options = LoadOptions::new(ModelSource::Path(path));
    options.context_tokens = Some(2048);
    options.slots = Some(2);
    options.threads = Some(1);
    options.draft = draft;
    tokio::task::spawn_blocking(|| Engine::load(options, |_| {}))
        .await
        .unwrap()
        .unwrap()
}

async fn answer(engine: &Engine, request: Request) -> Answer {
    let mut answer = Answer::default();
    let mut events = engine.generate(request).await.unwrap();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Delta { delta, .. } => {
                answer.content += &delta.content;
                answer.tokens.extend(delta.tokens);
                answer.logprobs.extend(delta.logprobs);
                for call in delta.tool_calls {
                    answer.pieces += 1;
                    if let Some(name) = call.name {
                        assert!(call.id.is_some_and(|id| !id.is_empty()));
                        assert_eq!(call.index as usize, answer.calls.len());
                        answer.calls.push((name, String::new()));
                    }
                    answer.calls.last_mut().unwrap().1 += &call.arguments;
                }
            }
            Event::Finished { reason, .. } => answer.reason = Some(reason),
            Event::Done(summary) => answer.completion_tokens = summary.usage.completion_tokens,
            Event::Started { .. } => {}
        }
    }
    answer
}

/// A greedy request with one tool and its likeliest tokens reported.
fn request(question: &str, tools: Vec<Tool>) -> Request {
    let chat = Chat {
        messages: vec![Message::user(question)],
        tools,
        parallel_tool_calls: true,
        ..Chat::default()
    };
    let mut request = Request::new("", Input::Chat(chat));
    request.sampling.temperature = 0.0;
    request.sampling.seed = Some(1);
    request.limits.max_tokens = Some(200);
    request.logprobs = Some(1);
    request
}

fn tool(name: &str, description: &str, parameters: Value) -> Tool {
    Tool {
        name: name.into(),
        description: Some(description.into()),
        parameters: Some(parameters),
    }
}

fn convert_units() -> Tool {
    let parameters = json!({
        "type": "object",
        "properties": {
            "value": {"type": "number", "description": "Value to convert"},
            "from_unit": {"type": "string"},
            "to_unit": {"type": "string"},
        },
        "required": ["value", "from_unit", "to_unit"],
        "additionalProperties": false,
    });
    let description = "Convert a value from one unit to another";
    tool("convert_units", description, parameters)
}

/// A timer; `minutes_max`: it runs at most so long.
fn set_timer(minutes_max: Option<u32>) -> Tool {
    let mut minutes = json!({"type": "integer", "description": "Length in minutes"});
    if let Some(max) = minutes_max {
        minutes["maximum"] = max.into();
    }
    let parameters = json!({
        "type": "object",
        "properties": {"minutes": minutes},
        "required": ["minutes"],
    });
    tool("set_timer", "Start a timer", parameters)
}

/// Asks for more than the schema allows: what the model would write freely is forbidden.
fn short_timer() -> Request {
    request("Start a timer, 25 minutes", vec![set_timer(Some(5))])
}

fn check_call(call: &(String, String), tool: &Tool) {
    assert_eq!(call.0, tool.name);
    let arguments: Value = serde_json::from_str(&call.1).unwrap();
    let schema = tool.parameters.as_ref().unwrap();
    assert!(jsonschema::is_valid(schema, &arguments), "{arguments}");
}

/// Places where something else than the likeliest token was drawn.
fn steered(answer: &Answer) -> usize {
    assert_eq!(answer.logprobs.len(), answer.tokens.len());
    let logprobs = answer.logprobs.iter();
    logprobs.filter(|l| l.top[0].0 != l.token).count()
}

#[tokio::test]
async fn arguments_fit_their_schema() {
    let engine = load(Draft::None).await;
    let question = "How many grams do I have in 7.5 ounces?";
    let converted = answer(&engine, request(question, vec![convert_units()])).await;
    assert_eq!(converted.reason, Some(FinishReason::ToolCalls));
    assert_eq!((converted.content.as_str(), converted.calls.len()), ("", 1));
    check_call(&converted.calls[0], &convert_units());

    let long = request("Start a timer, 25 minutes", vec![set_timer(None)]);
    let long = answer(&engine, long).await;
    assert_eq!(long.calls[0].1, r#"{"minutes": 25}"#);
    assert_eq!(steered(&long), 0);
    let short = answer(&engine, short_timer()).await;
    assert_eq!(short.reason, Some(FinishReason::ToolCalls));
    assert_eq!((short.content.as_str(), short.calls.len()), ("", 1));
    check_call(&short.calls[0], &set_timer(Some(5)));
    assert!(steered(&short) > 0);
    assert!(short.pieces > 1, "arguments are streamed");
}

#[tokio::test]
async fn text_without_a_call_is_the_models_own() {
    let engine = load(Draft::None).await;
    let free = request("What is mesh-llm?", vec![convert_units()]);
    let free = answer(&engine, free).await;
    assert_eq!(free.reason, Some(FinishReason::Stop));
    assert!(!free.content.is_empty() && free.calls.is_empty());
    assert_eq!(steered(&free), 0);
}

#[tokio::test]
async fn speculation_changes_nothing() {
    let plain = load(Draft::None).await;
    let lookup = load(Draft::Auto).await;
    let question = "How many grams do I have in 7.5 ounces?";
    for request in [short_timer(), request(question, vec![convert_units()])] {
        let wanted = answer(&plain, request.clone()).await;
        let found = answer(&lookup, request).await;
        assert_eq!(found.tokens, wanted.tokens);
        let arguments = |answer: &Answer| answer.calls.clone();
        assert_eq!(arguments(&found), arguments(&wanted));
    }
}

#[tokio::test]
async fn a_call_goes_on_elsewhere() {
    let engine = load(Draft::None).await;
    let whole = answer(&engine, short_timer()).await;
    for cut in (0..whole.tokens.len()).step_by(4) {
        let mut request = short_timer();
        request.logprobs = None;
        request.resume = vec![Resumed {
            tokens: whole.tokens[..cut].to_vec(),
            finished: false,
        }];
        let again = answer(&engine, request).await;
        assert_eq!(again.tokens, whole.tokens, "cut at {cut}");
        assert_eq!(again.calls, whole.calls, "cut at {cut}");
        assert_eq!(again.reason, whole.reason, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_second_call_is_constrained_too() {
    let engine = load(Draft::None).await;
    let whole = answer(&engine, short_timer()).await;
    let mut twice = short_timer();
    // A whole call, and the token that opens one.
    let tokens = [whole.tokens.as_slice(), &whole.tokens[..1]].concat();
    let given = tokens.len();
    twice.logprobs = None;
    twice.resume = vec![Resumed {
        tokens,
        finished: false,
    }];
    let twice = answer(&engine, twice).await;
    assert!(twice.tokens.len() > given);
    assert!(twice.calls.len() >= 2, "{:?}", twice.calls);
    for call in &twice.calls[..2] {
        check_call(call, &set_timer(Some(5)));
    }
}

#[tokio::test]
async fn one_call_ends_the_answer_where_only_one_is_wanted() {
    let engine = load(Draft::None).await;
    let mut single = short_timer();
    if let Input::Chat(chat) = &mut single.input {
        chat.parallel_tool_calls = false;
    }
    let single = answer(&engine, single).await;
    assert_eq!(single.reason, Some(FinishReason::ToolCalls));
    assert_eq!(single.calls.len(), 1);
    // Not even the end was drawn.
    assert_eq!(single.completion_tokens as usize, single.tokens.len());
}

/// Whatever is drawn, what begins as a call is one.
#[tokio::test]
async fn drawn_calls_are_valid() {
    let engine = load(Draft::None).await;
    let mut calls = 0;
    for seed in 0..6 {
        let mut wild = request("Start a timer, 3 minutes", vec![set_timer(Some(5))]);
        wild.sampling.seed = Some(seed);
        wild.sampling.temperature = 1.5;
        let wild = answer(&engine, wild).await;
        if wild.reason == Some(FinishReason::ToolCalls) {
            for call in &wild.calls {
                check_call(call, &set_timer(Some(5)));
                calls += 1;
            }
        }
    }
    assert!(calls > 0);
}
