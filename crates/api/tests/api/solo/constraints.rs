//! Answers of a given shape: JSON, schemas, grammars, calls of tools. The model need not be able
//! to keep them; the server is.

use serde_json::{Value, json};
use testkit::model::Architecture;

use super::{ask_chat, chat, chunks, content, random, serve, starter};
use crate::server::{Server, check_error};

fn tool(name: &str) -> Value {
    json!({ "type": "function", "function": {
        "name": name,
        "description": "does something",
        "parameters": {
            "type": "object",
            "properties": {
                "city": { "enum": ["Ulm", "Bern"] },
                "days": { "type": "integer", "minimum": 1, "maximum": 7 },
            },
            "required": ["city", "days"],
            "additionalProperties": false,
        },
    } })
}

fn check_arguments(text: &str) {
    let arguments: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    assert!(
        ["Ulm", "Bern"].contains(&arguments["city"].as_str().unwrap()),
        "{text}"
    );
    assert!(
        (1..=7).contains(&arguments["days"].as_i64().unwrap()),
        "{text}"
    );
}

/// One model that knows a little, and one that knows nothing.
async fn servers() -> (tempfile::TempDir, Vec<Server>) {
    let (folder, options) = random(Architecture::Qwen3);
    let servers = vec![serve(starter()).await.0, serve(options).await.0];
    (folder, servers)
}

#[tokio::test]
async fn schemas_are_kept() {
    let (_folder, servers) = servers().await;
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "kind": { "enum": ["cpu", "gpu"] },
            "ready": { "type": "boolean" },
        },
        "required": ["name", "kind", "ready"],
        "additionalProperties": false,
    });
    for server in &servers {
        for temperature in [0.0, 1.0] {
            let more = json!({
                "temperature": temperature, "seed": 4, "max_tokens": 150,
                "response_format": { "type": "json_schema",
                                     "json_schema": { "name": "machine", "schema": schema } },
            });
            let answer = ask_chat(server, "Describe a machine", &more).await;
            let machine: Value = serde_json::from_str(content(&answer)).unwrap();
            assert!(machine["name"].as_str().unwrap().chars().count() <= 12);
            assert!(["cpu", "gpu"].contains(&machine["kind"].as_str().unwrap()));
            assert!(machine["ready"].is_boolean());
            assert_eq!(machine.as_object().unwrap().len(), 3);
        }
    }
}

#[tokio::test]
async fn json_mode_says_json() {
    let (_folder, servers) = servers().await;
    for server in &servers {
        let more = json!({ "max_tokens": 200, "response_format": { "type": "json_object" } });
        let answer = ask_chat(server, "Describe a machine as JSON", &more).await;
        let text = content(&answer);
        match answer["choices"][0]["finish_reason"].as_str().unwrap() {
            "stop" => assert!(
                serde_json::from_str::<Value>(text).unwrap().is_object(),
                "{text}"
            ),
            // What was said so far must be the start of an object.
            _ => assert!(text.trim_start().starts_with('{'), "{text}"),
        }
    }
}

#[tokio::test]
async fn grammars_are_kept() {
    let (_folder, servers) = servers().await;
    for server in &servers {
        let more = json!({ "temperature": 1.5, "grammar":
            "root ::= answer (\", \" answer){2}\nanswer ::= \"yes\" | \"no\" | [0-9]+ \"!\"",
            "max_tokens": 100 });
        let answer = ask_chat(server, "Is it?", &more).await;
        if answer["choices"][0]["finish_reason"] == "length" {
            continue;
        }
        let words: Vec<_> = content(&answer).split(", ").collect();
        assert_eq!(words.len(), 3, "{words:?}");
        for word in words {
            let number = word
                .strip_suffix('!')
                .is_some_and(|n| n.parse::<f64>().is_ok());
            assert!(["yes", "no"].contains(&word) || number, "{word}");
        }
    }
}

#[tokio::test]
async fn required_calls_are_made() {
    let (_folder, servers) = servers().await;
    for server in &servers {
        let more = json!({ "max_tokens": 120, "tool_choice": "required",
                           "parallel_tool_calls": false,
                           "tools": [tool("weather"), tool("clock")] });
        let answer = ask_chat(server, "How is the weather?", &more).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!(call["type"], "function");
        assert!(!call["id"].as_str().unwrap().is_empty());
        let name = call["function"]["name"].as_str().unwrap();
        assert!(["weather", "clock"].contains(&name));
        check_arguments(call["function"]["arguments"].as_str().unwrap());
    }
}

#[tokio::test]
async fn named_calls_are_streamed() {
    let (_folder, servers) = servers().await;
    for server in &servers {
        let more = json!({ "max_tokens": 120, "tools": [tool("weather"), tool("clock")],
            "parallel_tool_calls": false,
            "tool_choice": { "type": "function", "function": { "name": "clock" } } });
        let body = chat("How is the weather?", &more);
        let chunks = chunks(server, "/v1/chat/completions", body).await;
        let pieces: Vec<&Value> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array())
            .flatten()
            .collect();
        assert_eq!(pieces[0]["function"]["name"], "clock");
        assert!(pieces[0]["id"].is_string());
        let mut arguments = String::new();
        for (index, piece) in pieces.iter().enumerate() {
            assert_eq!(piece["index"], 0);
            assert!(index == 0 || piece.get("id").is_none(), "{piece}");
            arguments.push_str(piece["function"]["arguments"].as_str().unwrap());
        }
        check_arguments(&arguments);
    }
}

/// Wherever a limit cuts a forced call off, the markup around it is no content, and the stream
/// says the same as the whole answer.
#[tokio::test]
async fn cut_calls_are_no_content() {
    let (_folder, servers) = servers().await;
    for server in &servers {
        for max_tokens in [1, 2, 3, 5, 8, 13, 20, 27, 34] {
            let more = json!({ "max_tokens": max_tokens, "tool_choice": "required",
                               "parallel_tool_calls": true, "tools": [tool("weather")] });
            let answer = ask_chat(server, "How is the weather?", &more).await;
            let choice = &answer["choices"][0];
            assert!(choice["message"]["content"].is_null(), "{answer}");
            let calls = choice["message"]["tool_calls"].as_array();
            let calls: Vec<(&str, &str)> = (calls.into_iter().flatten())
                .map(|call| &call["function"])
                .map(|call| {
                    let text = |key: &str| call[key].as_str().unwrap();
                    (text("name"), text("arguments"))
                })
                .collect();
            assert!(calls.iter().all(|(name, _)| *name == "weather"), "{answer}");

            let body = chat("How is the weather?", &more);
            let chunks = chunks(server, "/v1/chat/completions", body).await;
            let mut streamed: Vec<(String, String)> = Vec::new();
            for chunk in &chunks {
                let delta = &chunk["choices"][0]["delta"];
                assert!(delta.get("content").is_none_or(Value::is_null), "{chunk}");
                for piece in delta["tool_calls"].as_array().into_iter().flatten() {
                    let function = &piece["function"];
                    if let Some(name) = function["name"].as_str() {
                        streamed.push((name.to_owned(), String::new()));
                    }
                    let arguments = function["arguments"].as_str().unwrap();
                    streamed.last_mut().unwrap().1.push_str(arguments);
                }
            }
            let streamed: Vec<(&str, &str)> = streamed
                .iter()
                .map(|(n, a)| (n.as_str(), a.as_str()))
                .collect();
            assert_eq!(streamed, calls, "{answer}");
            let last = &chunks.last().unwrap()["choices"][0];
            assert_eq!(last["finish_reason"], choice["finish_reason"]);
        }
    }
}

/// A tool that may not be called is not called, and its result is understood.
#[tokio::test]
async fn results_go_back_without_a_new_call() {
    let (server, _) = serve(starter()).await;
    let mut body = chat(
        "How is the weather?",
        &json!({ "tools": [tool("weather")] }),
    );
    body["tool_choice"] = "none".into();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(
        json!({ "role": "assistant", "content": null, "tool_calls": [
        { "id": "c1", "type": "function",
          "function": { "name": "weather", "arguments": "{\"city\":\"Ulm\",\"days\":1}" } },
    ] }),
    );
    messages.push(json!({ "role": "tool", "tool_call_id": "c1", "content": "sunny" }));
    let answer = super::ask(&server, "/v1/chat/completions", &body).await;
    assert!(
        answer["choices"][0]["message"].get("tool_calls").is_none(),
        "{answer}"
    );
}

#[tokio::test]
async fn constraints_that_make_no_sense_are_refused() {
    let (server, _) = serve(starter()).await;
    let cases = [
        json!({ "grammar": "root ::= nowhere" }),
        json!({ "grammar": "))))" }),
        json!({ "response_format": { "type": "json_schema",
            "json_schema": { "name": "x", "schema": { "type": "no-such-type" } } } }),
        json!({ "response_format": { "type": "json_schema",
            "json_schema": { "name": "x", "schema": { "$ref": "#/$defs/missing" } } } }),
    ];
    for more in cases {
        let response = server.chat(&chat("hi", &more)).await;
        let param = crate::server::json(response).await;
        assert_eq!(param.0, 400, "{more}: {}", param.1);
        assert!(param.1["error"]["param"].is_string(), "{}", param.1);
    }
    let unknown = chat("hi", &json!({ "model": "nobody" }));
    check_error(
        server.chat(&unknown).await,
        404,
        "model_not_found",
        Some("model"),
    )
    .await;
}
