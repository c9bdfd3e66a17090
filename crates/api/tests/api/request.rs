//! What reaches the model, and what is refused with the path of the field.

use engine::{
    Chat, Error, Format, Input, Limits, Message, Mirostat, Request, Role, Sampling, Tool, ToolCall,
    ToolChoice,
};
use reqwest::header::{ALLOW, RETRY_AFTER};
use serde_json::{Value, json};

use crate::script::{Scripted, say};
use crate::server::{Server, check_error, json};

fn hello() -> Value {
    json!({ "model": "scripted", "messages": [{ "role": "user", "content": "hi" }] })
}

/// `hello` with the members of `more`.
fn with(more: &Value) -> Value {
    let mut body = hello();
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

async fn seen(path: &str, body: &Value) -> Request {
    let model = Scripted::new(|_| Ok(say(&["ok"])));
    let server = Server::start(model.clone()).await;
    let (status, answer) = json(server.post(path, body).send().await.unwrap()).await;
    assert_eq!(status, 200, "{answer}");
    model.only_request()
}

async fn seen_chat(more: &Value) -> Request {
    seen("/v1/chat/completions", &with(more)).await
}

#[tokio::test]
async fn a_plain_request_has_the_engines_defaults() {
    let chat = Chat {
        messages: vec![Message::user("hi")],
        parallel_tool_calls: true,
        ..Chat::default()
    };
    let expected = Request::new("scripted", Input::Chat(chat));
    assert_eq!(seen_chat(&json!({})).await, expected);
    // Clients send null for "not set", and fields that nobody knows.
    let nulls = json!({
        "temperature": null, "stop": null, "tools": null, "tool_choice": null, "n": null,
        "logit_bias": null, "response_format": null, "stream_options": null, "seed": null,
        "user": "me", "store": true, "metadata": { "a": "b" }, "service_tier": "auto",
        "something_new": [1, 2, 3],
    });
    assert_eq!(seen_chat(&nulls).await, expected);
}

#[tokio::test]
async fn every_sampling_field_reaches_the_model() {
    let request = seen_chat(&json!({
        "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "typical_p": 0.75,
        "repeat_penalty": 1.5, "repeat_last_n": -1, "presence_penalty": -1, "frequency_penalty": 2,
        "dry_multiplier": 0.5, "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": 9,
        "dry_sequence_breakers": ["a"], "mirostat": 2, "mirostat_tau": 4, "mirostat_eta": 0.5,
        "seed": 42, "logit_bias": { "5": -100, "6": 1.5 },
        "n": 3, "max_tokens": 10.0, "min_tokens": 2, "ignore_eos": true, "stop": ["x", "", "yy"],
        "cache_prompt": false, "logprobs": true, "top_logprobs": 4,
    }))
    .await;
    assert_eq!(
        request.sampling,
        Sampling {
            temperature: 0.5,
            top_k: 7,
            top_p: 0.25,
            min_p: 0.125,
            typical_p: 0.75,
            repeat_penalty: 1.5,
            penalty_last_n: 512,
            presence_penalty: -1.0,
            frequency_penalty: 2.0,
            dry_multiplier: 0.5,
            dry_base: 2.0,
            dry_allowed_length: 3,
            dry_penalty_last_n: 9,
            dry_sequence_breakers: vec!["a".to_owned()],
            mirostat: Some(Mirostat {
                version: 2,
                tau: 4.0,
                eta: 0.5
            }),
            seed: Some(42),
            logit_bias: vec![(5, f32::NEG_INFINITY), (6, 1.5)],
        }
    );
    assert_eq!(
        request.limits,
        Limits {
            max_tokens: Some(10),
            min_tokens: 2,
            ignore_eos: true,
            stop: vec!["x".to_owned(), "yy".to_owned()],
        }
    );
    assert_eq!((request.n, request.logprobs), (3, Some(4)));
    assert!(!request.cache_prompt);
}

#[tokio::test]
async fn synonyms_mean_the_same() {
    let of = async |more: Value| seen_chat(&more).await;
    let limit = of(json!({ "max_completion_tokens": 9, "max_tokens": 5 })).await;
    assert_eq!(limit.limits.max_tokens, Some(9));
    assert_eq!(
        of(json!({ "max_tokens": -1 })).await.limits.max_tokens,
        None
    );
    let penalty = of(json!({ "repetition_penalty": 1.25 })).await;
    assert_eq!(penalty.sampling.repeat_penalty, 1.25);
    assert_eq!(of(json!({ "top_k": -1 })).await.sampling.top_k, 0);
    assert_eq!(of(json!({ "seed": -1 })).await.sampling.seed, None);
    assert_eq!(of(json!({ "stop": "end" })).await.limits.stop, ["end"]);
    let big = of(json!({ "seed": 1_u64 << 40 })).await;
    assert_eq!(big.sampling.seed, Some(1 << 8));
}

#[tokio::test]
async fn formats_reach_the_model() {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    let cases = [
        (
            json!({ "response_format": { "type": "text" } }),
            Format::Text,
        ),
        (
            json!({ "response_format": { "type": "json_object" } }),
            Format::JsonObject,
        ),
        (
            json!({ "response_format": {
                "type": "json_schema",
                "json_schema": { "name": "x", "strict": true, "schema": schema },
            } }),
            Format::JsonSchema(schema.clone()),
        ),
        (
            json!({ "response_format": { "type": "json_object", "schema": schema } }),
            Format::JsonSchema(schema.clone()),
        ),
        (
            json!({ "json_schema": schema }),
            Format::JsonSchema(schema.clone()),
        ),
        (
            json!({ "grammar": "root ::= \"a\"" }),
            Format::Grammar("root ::= \"a\"".to_owned()),
        ),
    ];
    for (more, format) in cases {
        assert_eq!(seen_chat(&more).await.format, format, "{more}");
    }
}

#[tokio::test]
async fn messages_and_tools_reach_the_model() {
    let body = json!({
        "messages": [
            { "role": "developer", "content": [{ "type": "text", "text": "be " },
                                               { "type": "text", "text": "kind" }] },
            { "role": "user", "name": "ann", "content": "weather?" },
            { "role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                { "id": "c1", "type": "function",
                  "function": { "name": "weather", "arguments": "{\"city\":\"Ulm\"}" } },
                { "id": "c2", "function": { "name": "weather", "arguments": { "city": "Bern" } } },
            ] },
            { "role": "tool", "tool_call_id": "c1", "content": "sunny" },
        ],
        "tools": [{ "type": "function", "function": {
            "name": "weather", "description": "tells it", "strict": true,
            "parameters": { "type": "object" },
        } }],
        "tool_choice": { "type": "function", "function": { "name": "weather" } },
        "parallel_tool_calls": false,
        "chat_template_kwargs": { "custom": 1 },
        "reasoning_effort": "none",
    });
    let Input::Chat(chat) = seen("/v1/chat/completions", &body).await.input else {
        panic!("no chat");
    };
    let call = |id: &str, arguments: &str| ToolCall {
        id: id.to_owned(),
        name: "weather".to_owned(),
        arguments: arguments.to_owned(),
    };
    let kwargs = json!({ "custom": 1, "enable_thinking": false, "reasoning_effort": "none" });
    assert_eq!(
        chat,
        Chat {
            messages: vec![
                Message::new(Role::Developer, "be kind"),
                Message {
                    name: Some("ann".to_owned()),
                    ..Message::user("weather?")
                },
                Message {
                    reasoning: Some("hm".to_owned()),
                    tool_calls: vec![
                        call("c1", "{\"city\":\"Ulm\"}"),
                        call("c2", "{\"city\":\"Bern\"}"),
                    ],
                    ..Message::assistant("")
                },
                Message::tool("c1", "sunny"),
            ],
            tools: vec![Tool {
                name: "weather".to_owned(),
                description: Some("tells it".to_owned()),
                parameters: Some(json!({ "type": "object" })),
            }],
            tool_choice: ToolChoice::Named("weather".to_owned()),
            parallel_tool_calls: false,
            template_kwargs: kwargs.as_object().unwrap().clone(),
        }
    );
}

#[tokio::test]
async fn allowed_tools_leave_the_others_out() {
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let request = seen_chat(&json!({
        "tools": [tool("a"), tool("b")],
        "tool_choice": { "type": "allowed_tools",
                         "allowed_tools": { "mode": "required", "tools": [tool("b")] } },
    }))
    .await;
    let Input::Chat(chat) = request.input else {
        panic!("no chat");
    };
    assert_eq!(chat.tool_choice, ToolChoice::Required);
    assert_eq!(chat.tools.len(), 1);
    assert_eq!(chat.tools[0].name, "b");
}

#[tokio::test]
async fn wrong_values_are_refused_with_their_path() {
    let model = Scripted::new(|_| Ok(say(&["never"])));
    let server = Server::start(model.clone()).await;
    let tool = json!({ "type": "function", "function": { "name": "a" } });
    let cases = [
        (
            json!({ "temperature": "hot" }),
            "invalid_json",
            "temperature",
        ),
        (
            json!({ "temperature": 2.5 }),
            "invalid_value",
            "temperature",
        ),
        (
            json!({ "temperature": -0.1 }),
            "invalid_value",
            "temperature",
        ),
        (json!({ "top_p": 1.5 }), "invalid_value", "top_p"),
        (json!({ "n": 0 }), "invalid_value", "n"),
        (json!({ "n": 1.5 }), "invalid_json", "n"),
        (json!({ "n": 129 }), "invalid_value", "n"),
        (json!({ "max_tokens": 0 }), "invalid_value", "max_tokens"),
        (
            json!({ "max_completion_tokens": -2 }),
            "invalid_value",
            "max_completion_tokens",
        ),
        (
            json!({ "min_tokens": 9, "max_tokens": 3 }),
            "invalid_value",
            "min_tokens",
        ),
        (
            json!({ "top_logprobs": 3 }),
            "invalid_value",
            "top_logprobs",
        ),
        (
            json!({ "logprobs": true, "top_logprobs": 21 }),
            "invalid_value",
            "top_logprobs",
        ),
        (
            json!({ "repetition_penalty": 0 }),
            "invalid_value",
            "repetition_penalty",
        ),
        (json!({ "mirostat": 3 }), "invalid_value", "mirostat"),
        (json!({ "stop": [1] }), "invalid_json", "stop[0]"),
        (json!({ "stop": vec!["a"; 17] }), "invalid_value", "stop"),
        (
            json!({ "stop": ["a".repeat(257)] }),
            "invalid_value",
            "stop[0]",
        ),
        (
            json!({ "logit_bias": { "x": 1 } }),
            "invalid_value",
            "logit_bias.x",
        ),
        (
            json!({ "logit_bias": { "256": 1 } }),
            "invalid_value",
            "logit_bias.256",
        ),
        (
            json!({ "logit_bias": { "+5": 1 } }),
            "invalid_value",
            "logit_bias.+5",
        ),
        (
            json!({ "seed": 9_223_372_036_854_775_808_u64 }),
            "invalid_json",
            "seed",
        ),
        (json!({ "seed": 1e300 }), "invalid_json", "seed"),
        (
            json!({ "max_tokens": 0, "max_completion_tokens": 5 }),
            "invalid_value",
            "max_tokens",
        ),
        (
            json!({ "repeat_penalty": 1.1, "repetition_penalty": 0 }),
            "invalid_value",
            "repetition_penalty",
        ),
        (
            json!({ "logit_bias": { "5": 101 } }),
            "invalid_value",
            "logit_bias.5",
        ),
        (json!({ "logit_bias": [1] }), "invalid_json", "logit_bias"),
        (
            json!({ "stream_options": [] }),
            "invalid_json",
            "stream_options",
        ),
        (json!({ "stream": "yes" }), "invalid_json", "stream"),
        (
            json!({ "response_format": { "type": "xml" } }),
            "invalid_value",
            "response_format.type",
        ),
        (
            json!({ "response_format": { "type": "json_schema" } }),
            "invalid_value",
            "response_format.json_schema",
        ),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": 3 } } }),
            "invalid_value",
            "response_format.json_schema.schema",
        ),
        (
            json!({ "response_format": { "type": "json_object" }, "grammar": "root ::= \"a\"" }),
            "invalid_value",
            "grammar",
        ),
        (json!({ "messages": [] }), "invalid_value", "messages"),
        (
            json!({ "messages": [{ "content": "a" }] }),
            "invalid_json",
            "messages[0].role",
        ),
        (json!({ "messages": ["a"] }), "invalid_json", "messages[0]"),
        (
            json!({ "messages": [{ "role": "king", "content": "a" }] }),
            "invalid_value",
            "messages[0].role",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "user" }] }),
            "invalid_value",
            "messages[1].content",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": 5 }] }),
            "invalid_json",
            "messages[0].content",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": 1 }] }] }),
            "invalid_json",
            "messages[0].content[0].text",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [
                { "type": "text", "text": "what is this?" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AA==" } },
            ] }] }),
            "unsupported_value",
            "messages[0].content[1].type",
        ),
        (
            json!({ "messages": [{ "role": "tool", "content": "a" }] }),
            "invalid_value",
            "messages[0].tool_call_id",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": "a", "tool_calls": [
                { "id": "x", "function": { "name": "f", "arguments": "" } },
            ] }] }),
            "invalid_value",
            "messages[0].tool_calls",
        ),
        (
            json!({ "tools": [tool, tool] }),
            "invalid_value",
            "tools[1].function.name",
        ),
        (
            json!({ "tools": [{ "type": "custom" }] }),
            "unsupported_value",
            "tools[0].type",
        ),
        (
            json!({ "tools": [{ "type": "function", "function": { "name": "a b" } }] }),
            "invalid_value",
            "tools[0].function.name",
        ),
        (
            json!({ "tool_choice": "required" }),
            "invalid_value",
            "tool_choice",
        ),
        (
            json!({ "tools": [tool], "tool_choice": "any" }),
            "invalid_value",
            "tool_choice",
        ),
        (
            json!({ "tools": [tool], "tool_choice": { "function": { "name": "b" } } }),
            "invalid_value",
            "tool_choice",
        ),
        (
            json!({ "functions": [{ "name": "a" }] }),
            "unsupported_value",
            "functions",
        ),
        (
            json!({ "modalities": ["audio"] }),
            "unsupported_value",
            "modalities",
        ),
        (
            json!({ "reasoning_effort": "huge" }),
            "invalid_value",
            "reasoning_effort",
        ),
    ];
    for (more, code, param) in cases {
        let response = server.chat(&with(&more)).await;
        check_error(response, 400, code, Some(param)).await;
    }
    assert!(model.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["never"])))).await;
    let cases: [(&[u8], Option<&str>); 9] = [
        (b"", None),
        (b"{", None),
        (b"{\"messages\": [}", None),
        (b"{\"messages\": [\"\xff\"]}", None),
        (b"{} {}", Some("messages")),
        (b"[]", None),
        (b"null", None),
        (b"\"hi\"", None),
        (b"{}", Some("messages")),
    ];
    for (body, param) in cases {
        let request = server
            .post("/v1/chat/completions", &Value::Null)
            .body(body.to_vec());
        let response = request.send().await.unwrap();
        check_error(response, 400, "invalid_json", param).await;
    }
    // Deep nesting must not run out of stack.
    let deep = format!("{{\"metadata\": {}", "[".repeat(100_000));
    let request = server.post("/v1/chat/completions", &Value::Null).body(deep);
    check_error(request.send().await.unwrap(), 400, "invalid_json", None).await;
}

/// Messages speak of JSON, not of Rust.
#[tokio::test]
async fn wrong_types_are_told_in_plain_words() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["never"])))).await;
    for (more, message) in [
        (
            json!({ "temperature": "hot" }),
            "temperature: invalid type: string \"hot\", expected a number",
        ),
        (
            json!({ "logit_bias": { "5": [] } }),
            "logit_bias.5: invalid type: array, expected a number",
        ),
        (
            json!({ "logit_bias": 5 }),
            "logit_bias: invalid type: integer `5`, expected an object",
        ),
        (
            json!({ "tools": { "a": 1 } }),
            "tools: invalid type: object, expected an array",
        ),
        (
            json!({ "stream": [] }),
            "stream: invalid type: array, expected a boolean",
        ),
        (
            json!({ "n": 1.5 }),
            "n: invalid type: floating point `1.5`, expected an integer",
        ),
    ] {
        let (_, body) = json(server.chat(&with(&more)).await).await;
        assert_eq!(body["error"]["message"], message);
    }
}

#[tokio::test]
async fn engine_errors_have_their_status() {
    let failing = |error: Error| Scripted::new(move |_| Err(error.clone()));
    let cases = [
        (
            Error::ContextLengthExceeded {
                prompt_tokens: 9,
                context_tokens: 8,
            },
            400,
            "context_length_exceeded",
            None,
        ),
        (
            Error::invalid("grammar", "no root"),
            400,
            "invalid_value",
            Some("grammar"),
        ),
        (
            Error::QueueFull {
                waiting: 3,
                retry_after_s: 7,
            },
            429,
            "queue_full",
            None,
        ),
        (Error::ShuttingDown, 503, "shutting_down", None),
        (
            Error::Unsupported("no".to_owned()),
            400,
            "unsupported_value",
            None,
        ),
        (
            Error::Inference("broken".to_owned()),
            500,
            "inference_failed",
            None,
        ),
    ];
    for (error, status, code, param) in cases {
        let server = Server::start(failing(error.clone())).await;
        for stream in [false, true] {
            let response = server.chat(&with(&json!({ "stream": stream }))).await;
            let wait = response.headers().get(RETRY_AFTER).cloned();
            match &error {
                Error::QueueFull { .. } => assert_eq!(wait.unwrap(), "7"),
                Error::ShuttingDown => assert!(wait.is_some()),
                _ => assert!(wait.is_none()),
            }
            check_error(response, status, code, param).await;
        }
    }
}

#[tokio::test]
async fn unknown_models_routes_and_methods_are_refused() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let response = server.chat(&with(&json!({ "model": "gpt-9" }))).await;
    check_error(response, 404, "model_not_found", Some("model")).await;
    for model in ["auto", "", "SCRIPTED", "scripted.gguf"] {
        let response = server.chat(&with(&json!({ "model": model }))).await;
        assert_eq!(response.status(), 200, "{model}");
    }
    let near = [
        ("/chat/completions", "POST /v1/chat/completions"),
        ("/v1/chat/completion", "POST /v1/chat/completions"),
        ("/models", "GET /v1/models"),
        ("/v1/embedding", "POST /v1/embeddings"),
        ("/v1/health", "GET /health"),
        ("/v1/chat/completions/", "POST /v1/chat/completions"),
    ];
    for (path, hint) in near {
        let (status, body) = json(server.get(path).send().await.unwrap()).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(status, 404);
        assert!(message.contains(hint), "{message}");
    }
    let far = server.get(&format!("/{}", "x".repeat(5000)));
    check_error(far.send().await.unwrap(), 404, "unknown_url", None).await;

    let response = server.get("/v1/chat/completions").send().await.unwrap();
    assert_eq!(response.headers()[ALLOW], "POST");
    check_error(response, 405, "method_not_allowed", None).await;
    let response = server.post("/v1/models", &json!({})).send().await.unwrap();
    assert_eq!(response.headers()[ALLOW], "GET,HEAD");
    check_error(response, 405, "method_not_allowed", None).await;
}

#[tokio::test]
async fn any_content_type_will_do_but_from_pages_of_other_origins() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let ask = async |kind: Option<&str>, from: &[(&str, &str)]| {
        let url = format!("http://{}/v1/chat/completions", server.address);
        let mut request = server.client.post(url).body(hello().to_string());
        for (name, value) in kind
            .map(|kind| ("content-type", kind))
            .iter()
            .chain(from)
            .copied()
        {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    };
    let json = [
        Some("application/json; charset=utf-8"),
        Some("application/vnd.api+json"),
        None,
    ];
    // What a page can send without the browser asking first.
    let simple = [
        Some("application/x-www-form-urlencoded"),
        Some("text/plain"),
        Some("multipart/form-data; boundary=x"),
    ];
    for kind in json.into_iter().chain(simple) {
        assert_eq!(ask(kind, &[]).await.status(), 200, "{kind:?}");
        for origin in ["http://evil.example", "null", "file://"] {
            let response = ask(kind, &[("origin", origin)]).await;
            check_error(response, 403, "origin_not_allowed", None).await;
        }
        // A page of this machine, and the address line of a browser.
        for from in [
            &[
                ("origin", "http://localhost:3000"),
                ("sec-fetch-site", "same-site"),
            ][..],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(ask(kind, from).await.status(), 200, "{kind:?}, {from:?}");
        }
    }
    // Without an origin a browser still says that the page is another.
    for site in ["cross-site", "same-site"] {
        for kind in simple.into_iter().chain([None]) {
            let response = ask(kind, &[("sec-fetch-site", site)]).await;
            check_error(response, 415, "unsupported_media_type", None).await;
        }
    }
}
