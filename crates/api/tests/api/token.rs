//! Tokenizing and back.

use serde_json::json;

use crate::script::{Scripted, say};
use crate::server::{Server, check_error, json};

#[tokio::test]
async fn text_to_tokens_and_back() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let ask = async |body| {
        json(server.post("/v1/tokenize", &body).send().await.unwrap())
            .await
            .1
    };
    let answer = ask(json!({ "content": "hi" })).await;
    assert_eq!(
        answer,
        json!({ "model": "scripted", "tokens": [1, 104, 105], "count": 3, "max_model_len": 512 })
    );
    let answer =
        ask(json!({ "prompt": "h\u{e9}", "add_special": false, "with_pieces": true })).await;
    assert_eq!(answer["tokens"], json!([104, 195, 169]));
    assert_eq!(answer["pieces"], json!(["h", "\u{fffd}", "\u{fffd}"]));
    let answer = ask(json!({ "messages": [{ "role": "user", "content": "a" },
                                          { "role": "user", "content": "b" }] }))
    .await;
    assert_eq!(answer["tokens"], json!([97, 124, 98]));

    let body = json!({ "tokens": [104, 195, 169] });
    let request = server.post("/v1/detokenize", &body);
    let (_, answer) = json(request.send().await.unwrap()).await;
    assert_eq!(answer, json!({ "model": "scripted", "content": "h\u{e9}" }));
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let cases = [
        ("/v1/tokenize", json!({}), "invalid_value", "content"),
        (
            "/v1/tokenize",
            json!({ "content": "a", "prompt": "b" }),
            "invalid_value",
            "content",
        ),
        (
            "/v1/tokenize",
            json!({ "messages": [] }),
            "invalid_value",
            "messages",
        ),
        ("/v1/detokenize", json!({}), "invalid_json", "tokens"),
        (
            "/v1/detokenize",
            json!({ "tokens": [256] }),
            "invalid_value",
            "tokens",
        ),
        (
            "/v1/detokenize",
            json!({ "tokens": ["a"] }),
            "invalid_json",
            "tokens[0]",
        ),
        (
            "/v1/detokenize",
            json!({ "tokens": [4294967296_u64] }),
            "invalid_json",
            "tokens[0]",
        ),
    ];
    for (path, body, code, param) in cases {
        let response = server.post(path, &body).send().await.unwrap();
        check_error(response, 400, code, Some(param)).await;
    }
}
