//! Completion answers, whole and streamed.

use std::sync::Arc;

use engine::{Delta, FinishReason, Input, TokenLogprob};
use serde_json::{Value, json};

use crate::script::{Scripted, Step, delta, done, finished, started, text};
use crate::server::{Server, check_error, json, steady, steady_events};

/// Answers with the prompt in capitals, in every choice.
fn shouting() -> Arc<Scripted> {
    Scripted::new(|request| {
        let prompt = match &request.input {
            Input::Text(text) => text.to_uppercase(),
            Input::Tokens(tokens) => format!("{tokens:?}"),
            Input::Chat(_) => panic!("no completion"),
        };
        let mut steps = vec![started()];
        for choice in 0..request.n {
            steps.push(text(choice, &prompt));
            steps.push(finished(choice, FinishReason::Length));
        }
        steps.push(done(request.n));
        Ok(steps)
    })
}

async fn texts(body: &Value) -> Vec<String> {
    let server = Server::start(shouting()).await;
    let response = server.post("/v1/completions", body).send().await.unwrap();
    let (status, answer) = json(response).await;
    assert_eq!(status, 200, "{answer}");
    let choices = answer["choices"].as_array().unwrap();
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["finish_reason"], "length");
    }
    choices
        .iter()
        .map(|choice| choice["text"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn prompts_of_every_shape() {
    assert_eq!(texts(&json!({ "prompt": "a" })).await, ["A"]);
    assert_eq!(texts(&json!({ "prompt": ["a", "b"] })).await, ["A", "B"]);
    assert_eq!(texts(&json!({ "prompt": [1, 2] })).await, ["[1, 2]"]);
    assert_eq!(
        texts(&json!({ "prompt": [[1], [2]] })).await,
        ["[1]", "[2]"]
    );
    let several = json!({ "prompt": ["a", "b"], "n": 2 });
    assert_eq!(texts(&several).await, ["A", "A", "B", "B"]);
    let echoed = json!({ "prompt": ["a", "b"], "echo": true });
    assert_eq!(texts(&echoed).await, ["aA", "bB"]);
    let echoed = json!({ "prompt": [104, 105], "echo": true });
    assert_eq!(texts(&echoed).await, ["hi[104, 105]"]);
}

#[tokio::test]
async fn usage_is_the_sum_over_prompts() {
    let server = Server::start(shouting()).await;
    let body = json!({ "prompt": ["a", "b", "c"] });
    let response = server.post("/v1/completions", &body).send().await.unwrap();
    let (_, answer) = json(response).await;
    assert_eq!(answer["usage"]["prompt_tokens"], 21);
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    assert_eq!(answer["usage"]["total_tokens"], 24);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 9);
}

#[tokio::test]
async fn a_streamed_completion() {
    let server = Server::start(shouting()).await;
    let body = json!({ "prompt": ["a", "b"], "stream": true, "echo": true,
                       "stream_options": { "include_usage": true } });
    let response = server.post("/v1/completions", &body).send().await.unwrap();
    insta::assert_snapshot!(steady_events(&response.text().await.unwrap()));
}

#[tokio::test]
async fn completion_logprobs() {
    let model = Scripted::new(|request| {
        assert_eq!(request.logprobs, Some(2));
        let piece = |text: &str, logprob| {
            let bytes = text.as_bytes().to_vec();
            let content = text.to_owned();
            let logprobs = vec![TokenLogprob {
                token: 1,
                bytes: bytes.clone(),
                logprob,
                top: vec![(1, bytes, logprob), (2, b"?".to_vec(), -3.0)],
            }];
            delta(
                0,
                Delta {
                    content,
                    tokens: vec![1],
                    logprobs,
                    ..Delta::default()
                },
            )
        };
        let end = [finished(0, FinishReason::Stop), done(2)];
        let steps = [started(), piece("h\u{e9}", -0.5), piece("llo", -0.25)];
        Ok(steps.into_iter().chain(end).collect::<Vec<Step>>())
    });
    let server = Server::start(model).await;
    let mut body = json!({ "prompt": "a", "logprobs": 2 });
    let response = server.post("/v1/completions", &body).send().await.unwrap();
    let (_, answer) = json(response).await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&steady(answer)).unwrap());
    body["stream"] = true.into();
    let response = server.post("/v1/completions", &body).send().await.unwrap();
    insta::assert_snapshot!(steady_events(&response.text().await.unwrap()));
}

#[tokio::test]
async fn wrong_completions_are_refused() {
    let server = Server::start(shouting()).await;
    let long: Vec<i32> = vec![300];
    let cases = [
        (json!({}), "invalid_json", "prompt"),
        (json!({ "prompt": [] }), "invalid_value", "prompt"),
        (json!({ "prompt": [[]] }), "invalid_value", "prompt[0]"),
        (json!({ "prompt": {} }), "invalid_json", "prompt"),
        (json!({ "prompt": ["a", 1] }), "invalid_json", "prompt[1]"),
        (json!({ "prompt": [1, "a"] }), "invalid_json", "prompt[1]"),
        (json!({ "prompt": long }), "invalid_value", "prompt[0]"),
        (json!({ "prompt": [-1] }), "invalid_value", "prompt[0]"),
        (
            json!({ "prompt": vec!["a"; 129] }),
            "invalid_value",
            "prompt",
        ),
        (
            json!({ "prompt": vec!["a"; 3000] }),
            "invalid_json",
            "prompt",
        ),
        (
            json!({ "prompt": ["a", "b"], "n": 65 }),
            "invalid_value",
            "prompt",
        ),
        (
            json!({ "prompt": "a", "suffix": "b" }),
            "unsupported_value",
            "suffix",
        ),
        (
            json!({ "prompt": "a", "best_of": 2 }),
            "invalid_value",
            "best_of",
        ),
        (
            json!({ "prompt": "a", "logprobs": 21 }),
            "invalid_value",
            "logprobs",
        ),
        (
            json!({ "prompt": "a", "logprobs": true }),
            "invalid_json",
            "logprobs",
        ),
        (
            json!({ "prompt": "a", "logprobs": 1, "echo": true }),
            "unsupported_value",
            "logprobs",
        ),
    ];
    for (body, code, param) in cases {
        let response = server.post("/v1/completions", &body).send().await.unwrap();
        check_error(response, 400, code, Some(param)).await;
    }
}
