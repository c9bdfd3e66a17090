//! Where a model ends: its context, its queue, its shutdown.

use std::time::Duration;

use engine::LoadOptions;
use futures::future::join_all;
use reqwest::header::RETRY_AFTER;
use serde_json::json;

use super::{ask_chat, chat, serve, starter, until_idle};
use crate::server::{Server, check_error, json, read_all, read_until, send};

#[tokio::test]
async fn a_prompt_that_is_too_long_is_refused() {
    let (server, _) = serve(starter()).await;
    let long = "word ".repeat(20_000);
    for stream in [false, true] {
        let response = server
            .chat(&chat(&long, &json!({ "stream": stream })))
            .await;
        check_error(response, 400, "context_length_exceeded", None).await;
    }
    let body = json!({ "prompt": long });
    let response = server.post("/v1/completions", &body).send().await.unwrap();
    check_error(response, 400, "context_length_exceeded", None).await;
}

#[tokio::test]
async fn an_answer_ends_at_the_end_of_the_context() {
    let options = LoadOptions {
        context_tokens: Some(256),
        slots: Some(1),
        ..starter()
    };
    let (server, engine) = serve(options).await;
    let endless = json!({ "ignore_eos": true, "max_tokens": null });
    let answer = ask_chat(&server, "Count", &endless).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let total = answer["usage"]["total_tokens"].as_u64().unwrap();
    let context = u64::from(engine::Backend::info(engine.as_ref()).context_tokens);
    assert!(
        total <= context + 1 && total + 1 >= context,
        "{total} of {context}"
    );
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let options = LoadOptions {
        slots: Some(1),
        queue_max: Some(2),
        ..starter()
    };
    let (server, engine) = serve(options).await;
    let endless = chat(
        "Count",
        &json!({ "ignore_eos": true, "max_tokens": 1500, "stream": true }),
    );
    let mut waiting = Vec::new();
    let refused = loop {
        assert!(waiting.len() < 64, "the queue takes everything");
        let mut connection = server.connect().await;
        send(
            &mut connection,
            "/v1/chat/completions",
            &endless.to_string(),
        )
        .await;
        waiting.push(connection);
        let probe = chat("hi", &json!({ "max_tokens": 1 }));
        let response = server.chat(&probe);
        match tokio::time::timeout(Duration::from_millis(200), response).await {
            Ok(response) if response.status() == 429 => break response,
            // It was answered, or waits.
            _ => {}
        }
    };
    let wait = refused.headers()[RETRY_AFTER].to_str().unwrap();
    assert!(wait.parse::<u32>().unwrap() >= 1);
    check_error(refused, 429, "queue_full", None).await;
    drop(waiting);
    until_idle(&engine).await;
    ask_chat(&server, "hi", &json!({ "max_tokens": 1 })).await;
}

#[tokio::test]
async fn running_answers_outlive_the_order_to_stop() {
    let (mut server, _) = serve(starter()).await;
    let body = chat(
        "Count",
        &json!({ "ignore_eos": true, "max_tokens": 200, "stream": true }),
    );
    let mut running = Vec::new();
    for _ in 0..4 {
        let mut connection = server.connect().await;
        send(&mut connection, "/v1/chat/completions", &body.to_string()).await;
        read_until(&mut connection, "\"content\":").await;
        running.push(connection);
    }
    server.stop();
    let node = server.node.clone();
    let stopping = node.shutdown(Duration::from_secs(60));
    let (answers, ()) = tokio::join!(join_all(running.iter_mut().map(read_all)), stopping);
    for answer in answers {
        assert!(answer.contains("data: [DONE]"), "{answer}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn answers_that_take_too_long_are_ended_with_an_error() {
    let (server, _) = serve(starter()).await;
    let body = chat(
        "Count",
        &json!({ "ignore_eos": true, "max_tokens": 1900, "stream": true }),
    );
    let mut running = server.connect().await;
    send(&mut running, "/v1/chat/completions", &body.to_string()).await;
    read_until(&mut running, "\"content\":").await;
    server.node.shutdown(Duration::ZERO).await;
    let rest = read_until(&mut running, "\r\n0\r\n\r\n").await;
    assert!(!rest.contains("[DONE]"), "{rest}");
    assert!(rest.contains("shutting_down"), "{rest}");
    let Server { node, .. } = &server;
    assert!(node.is_shutting_down());
    let (status, _) = json(server.get("/health").send().await.unwrap()).await;
    assert_eq!(status, 503);
}
