//! Embeddings.

use serde_json::{Value, json};

use crate::script::{Scripted, embedder, say};
use crate::server::{Server, check_error, json};

async fn embed(body: &Value) -> Value {
    let server = Server::start(embedder()).await;
    let response = server.post("/v1/embeddings", body).send().await.unwrap();
    let (status, answer) = json(response).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn vectors_as_numbers() {
    let answer = embed(&json!({ "input": ["a", "b"], "model": "embedder" })).await;
    let vector = json!([0.5, -0.5, 0.5, -0.5]);
    let expected = json!({
        "object": "list",
        "data": [
            { "object": "embedding", "index": 0, "embedding": vector },
            { "object": "embedding", "index": 1, "embedding": vector },
        ],
        "model": "embedder",
        "usage": { "prompt_tokens": 4, "total_tokens": 4 },
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn inputs_of_every_shape() {
    for (input, count) in [
        (json!("a"), 1),
        (json!(["a", "b", "c"]), 3),
        (json!([1, 2, 3]), 1),
        (json!([[1], [2, 3]]), 2),
    ] {
        let answer = embed(&json!({ "input": input })).await;
        assert_eq!(answer["data"].as_array().unwrap().len(), count, "{input}");
    }
}

#[tokio::test]
async fn vectors_as_base64() {
    let answer = embed(&json!({ "input": "a", "encoding_format": "base64" })).await;
    // 0.5 is 0x3f000000 and -0.5 is 0xbf000000, little-endian.
    let expected = "AAAAPwAAAL8AAAA/AAAAvw==";
    assert_eq!(answer["data"][0]["embedding"], expected);
}

#[tokio::test]
async fn shorter_vectors_have_unit_length() {
    let answer = embed(&json!({ "input": "a", "dimensions": 1 })).await;
    assert_eq!(answer["data"][0]["embedding"], json!([1.0]));
    let answer = embed(&json!({ "input": "a", "dimensions": 4 })).await;
    assert_eq!(
        answer["data"][0]["embedding"],
        json!([0.5, -0.5, 0.5, -0.5])
    );
}

#[tokio::test]
async fn wrong_embeddings_are_refused() {
    let server = Server::start(embedder()).await;
    let cases = [
        (json!({}), "invalid_json", "input"),
        (json!({ "input": "" }), "invalid_value", "input"),
        (json!({ "input": [] }), "invalid_value", "input"),
        (json!({ "input": ["a", ""] }), "invalid_value", "input[1]"),
        (
            json!({ "input": [[1], [256]] }),
            "invalid_value",
            "input[1]",
        ),
        (
            json!({ "input": "a", "dimensions": 5 }),
            "invalid_value",
            "dimensions",
        ),
        (
            json!({ "input": "a", "dimensions": 0 }),
            "invalid_value",
            "dimensions",
        ),
        (
            json!({ "input": "a", "encoding_format": "hex" }),
            "invalid_value",
            "encoding_format",
        ),
    ];
    for (body, code, param) in cases {
        let response = server.post("/v1/embeddings", &body).send().await.unwrap();
        check_error(response, 400, code, Some(param)).await;
    }
    let chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    check_error(server.chat(&chat).await, 400, "unsupported_value", None).await;
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let request = server.post("/v1/embeddings", &json!({ "input": "a" }));
    check_error(
        request.send().await.unwrap(),
        400,
        "unsupported_value",
        None,
    )
    .await;
}
