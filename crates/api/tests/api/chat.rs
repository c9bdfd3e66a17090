//! Chat answers, whole and streamed.

use std::sync::Arc;

use engine::{Delta, Error, FinishReason, TokenLogprob, ToolCallDelta};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::script::{Scripted, Step, delta, done, finished, say, started, text};
use crate::server::{Server, json, read_until, send, steady, steady_events};

fn body(more: &Value) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

async fn whole(model: Arc<Scripted>, more: &Value) -> String {
    let server = Server::start(model).await;
    let (status, answer) = json(server.chat(&body(more)).await).await;
    assert_eq!(status, 200, "{answer}");
    serde_json::to_string_pretty(&steady(answer)).unwrap()
}

async fn streamed(model: Arc<Scripted>, more: &Value) -> String {
    let server = Server::start(model).await;
    let mut body = body(more);
    body["stream"] = true.into();
    let response = server.chat(&body).await;
    assert_eq!(response.status(), 200);
    let kind = &response.headers()["content-type"];
    assert_eq!(kind, "text/event-stream; charset=utf-8");
    steady_events(&response.text().await.unwrap())
}

fn two_choices() -> Vec<Step> {
    vec![
        started(),
        text(0, "a"),
        text(1, "b"),
        finished(0, FinishReason::Stop),
        text(1, "c"),
        finished(1, FinishReason::Length),
        done(3),
    ]
}

fn reasoning_and_calls() -> Vec<Step> {
    let piece = |index, first: Option<(&str, &str)>, arguments: &str| ToolCallDelta {
        index,
        id: first.map(|(id, _)| id.to_owned()),
        name: first.map(|(_, name)| name.to_owned()),
        arguments: arguments.to_owned(),
    };
    let calls = |tool_calls| {
        delta(
            0,
            Delta {
                tool_calls,
                tokens: vec![1],
                ..Delta::default()
            },
        )
    };
    vec![
        started(),
        delta(
            0,
            Delta {
                reasoning: "hm".to_owned(),
                tokens: vec![2],
                ..Delta::default()
            },
        ),
        // A held-back piece: nothing to show yet.
        delta(
            0,
            Delta {
                tokens: vec![3],
                ..Delta::default()
            },
        ),
        calls(vec![piece(0, Some(("call_a", "weather")), "")]),
        calls(vec![piece(0, None, "{\"city\":")]),
        calls(vec![
            piece(0, None, "\"Ulm\"}"),
            piece(1, Some(("call_b", "clock")), "{}"),
        ]),
        finished(0, FinishReason::ToolCalls),
        done(5),
    ]
}

fn with_logprobs() -> Vec<Step> {
    let token = |token, bytes: &[u8], logprob| TokenLogprob {
        token,
        bytes: bytes.to_vec(),
        logprob,
        top: vec![
            (token, bytes.to_vec(), logprob),
            (90, b"z".to_vec(), f32::NEG_INFINITY),
        ],
    };
    vec![
        started(),
        // Half a character: the token is there, its text is not.
        delta(
            0,
            Delta {
                tokens: vec![1],
                logprobs: vec![token(1, b"\xc3", -0.5)],
                ..Delta::default()
            },
        ),
        delta(
            0,
            Delta {
                content: "\u{e9}".to_owned(),
                tokens: vec![2],
                logprobs: vec![token(2, b"\xa9", -0.25)],
                ..Delta::default()
            },
        ),
        finished(0, FinishReason::Stop),
        done(2),
    ]
}

#[tokio::test]
async fn a_whole_answer() {
    let model = Scripted::new(|_| Ok(say(&["Hello", " \"you\"", "\n\u{1f600}"])));
    insta::assert_snapshot!(whole(model, &json!({})).await);
}

#[tokio::test]
async fn whole_choices() {
    let model = Scripted::new(|_| Ok(two_choices()));
    insta::assert_snapshot!(whole(model, &json!({ "n": 2 })).await);
}

#[tokio::test]
async fn whole_calls_and_reasoning() {
    let model = Scripted::new(|_| Ok(reasoning_and_calls()));
    insta::assert_snapshot!(whole(model, &json!({})).await);
}

#[tokio::test]
async fn whole_logprobs() {
    let model = Scripted::new(|_| Ok(with_logprobs()));
    insta::assert_snapshot!(whole(model, &json!({ "logprobs": true, "top_logprobs": 2 })).await);
}

#[tokio::test]
async fn a_streamed_answer() {
    let model = Scripted::new(|_| Ok(say(&["Hello", " \"you\"", "\n\u{1f600}"])));
    insta::assert_snapshot!(streamed(model, &json!({})).await);
}

#[tokio::test]
async fn a_streamed_answer_with_usage() {
    let model = Scripted::new(|_| Ok(say(&["Hello"])));
    let more = json!({ "stream_options": { "include_usage": true } });
    insta::assert_snapshot!(streamed(model, &more).await);
}

#[tokio::test]
async fn streamed_choices() {
    let model = Scripted::new(|_| Ok(two_choices()));
    insta::assert_snapshot!(streamed(model, &json!({ "n": 2 })).await);
}

#[tokio::test]
async fn streamed_calls_and_reasoning() {
    let model = Scripted::new(|_| Ok(reasoning_and_calls()));
    insta::assert_snapshot!(streamed(model, &json!({})).await);
}

#[tokio::test]
async fn streamed_logprobs() {
    let model = Scripted::new(|_| Ok(with_logprobs()));
    insta::assert_snapshot!(streamed(model, &json!({ "logprobs": true })).await);
}

#[tokio::test]
async fn an_error_on_the_way_ends_the_stream_without_done() {
    let model = Scripted::new(|_| {
        Ok(vec![
            started(),
            text(0, "Hel"),
            Step::Say(Err(Error::Inference("the graph fell over".to_owned()))),
        ])
    });
    insta::assert_snapshot!(streamed(model, &json!({})).await);
}

#[tokio::test]
async fn an_answer_without_an_end_is_an_error() {
    let model = Scripted::new(|_| Ok(vec![started(), text(0, "Hel")]));
    let events = streamed(model.clone(), &json!({})).await;
    assert!(
        events.ends_with("\"code\":\"inference_failed\"}}"),
        "{events}"
    );
    let server = Server::start(model).await;
    let response = server.chat(&body(&json!({}))).await;
    crate::server::check_error(response, 500, "inference_failed", None).await;
}

/// The first error of a stream still gets its own status.
#[tokio::test]
async fn an_error_before_the_first_token_is_no_stream() {
    let model = Scripted::new(|_| {
        Ok(vec![Step::Say(Err(Error::ContextLengthExceeded {
            prompt_tokens: 9,
            context_tokens: 8,
        }))])
    });
    let server = Server::start(model).await;
    let response = server.chat(&body(&json!({ "stream": true }))).await;
    crate::server::check_error(response, 400, "context_length_exceeded", None).await;
}

/// Each event leaves as soon as it is there.
#[tokio::test]
async fn tokens_are_not_held_back() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let model = Scripted::new(move |_| {
        Ok(vec![
            started(),
            text(0, "one"),
            Step::Wait(waiting.clone()),
            text(0, "two"),
            Step::Wait(waiting.clone()),
            finished(0, FinishReason::Stop),
            done(2),
        ])
    });
    let server = Server::start(model).await;
    let mut stream = server.connect().await;
    let body = body(&json!({ "stream": true })).to_string();
    send(&mut stream, "/v1/chat/completions", &body).await;
    let head = read_until(&mut stream, "one").await;
    assert!(head.contains("\"role\":\"assistant\""), "{head}");
    assert!(!head.contains("two"));
    gate.add_permits(1);
    let next = read_until(&mut stream, "two").await;
    assert!(!next.contains("[DONE]"));
    gate.add_permits(1);
    read_until(&mut stream, "data: [DONE]").await;
}
