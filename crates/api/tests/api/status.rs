//! Models, health, metrics and the API's own description.

use engine::FinishReason;
use serde_json::{Value, json};

use crate::script::{Scripted, done, embedder, finished, say, started, text};
use crate::server::{Server, check_error, json};

#[tokio::test]
async fn models_are_listed_and_described() {
    let server = Server::with(
        vec![Scripted::new(|_| Ok(say(&["ok"]))), embedder()],
        api::Config::default(),
    )
    .await;
    let (status, list) = json(server.get("/v1/models").send().await.unwrap()).await;
    assert_eq!(status, 200);
    insta::assert_snapshot!(serde_json::to_string_pretty(&list).unwrap());
    let (_, one) = json(server.get("/v1/models/scripted").send().await.unwrap()).await;
    assert_eq!(one, list["data"][0]);
    let response = server.get("/v1/models/org%2Fother").send().await.unwrap();
    check_error(response, 404, "model_not_found", Some("model")).await;
}

#[tokio::test]
async fn health_tells_the_state() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let (status, health) = json(server.get("/health").send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(health["status"], "ok");
    assert_eq!(health["models_ready"], 1);
    server
        .node
        .shutdown(std::time::Duration::from_secs(1))
        .await;
    let (status, health) = json(server.get("/health").send().await.unwrap()).await;
    assert_eq!(status, 503);
    assert_eq!(health["status"], "shutting_down");
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["a", "b", "c"])))).await;
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    for _ in 0..2 {
        assert_eq!(server.chat(&body).await.status(), 200);
    }
    assert_eq!(server.chat(&json!({})).await.status(), 400);
    let response = server.get("/metrics").send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = response.text().await.unwrap();
    let route = "route=\"/v1/chat/completions\"";
    for line in [
        format!("mesh_llm_http_requests_total{{{route},model=\"scripted\",status=\"200\"}} 2"),
        format!("mesh_llm_http_requests_total{{{route},model=\"\",status=\"400\"}} 1"),
        "mesh_llm_http_requests_active 1".to_owned(),
        "mesh_llm_generations_total{model=\"scripted\",outcome=\"completed\"} 2".to_owned(),
        "mesh_llm_time_to_first_token_seconds_count{model=\"scripted\"} 2".to_owned(),
        "mesh_llm_time_per_token_seconds_count{model=\"scripted\"} 4".to_owned(),
        "mesh_llm_kv_total_tokens{model=\"scripted\"} 2048".to_owned(),
        "mesh_llm_prompt_tokens_total{model=\"scripted\"} 70".to_owned(),
        "mesh_llm_cached_tokens_total{model=\"scripted\"} 30".to_owned(),
        "mesh_llm_speculation_drafted_tokens_total{model=\"scripted\"} 6".to_owned(),
        "mesh_llm_speculation_accepted_tokens_total{model=\"scripted\"} 5".to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} not in\n{text}"
        );
    }
}

/// What a metric without further labels says of the scripted model.
async fn figure(server: &Server, name: &str) -> String {
    let response = server.get("/metrics").send().await.unwrap();
    let text = response.text().await.unwrap();
    let start = format!("mesh_llm_{name}{{model=\"scripted\"}} ");
    let found = text.lines().find_map(|line| line.strip_prefix(&start));
    found
        .unwrap_or_else(|| panic!("{start} not in\n{text}"))
        .to_owned()
}

/// The first token of a choice is compared with nothing: only the first of all has been waited for.
#[tokio::test]
async fn choices_are_timed_apart() {
    let model = || {
        Scripted::new(|request| {
            let mut steps = vec![started()];
            for word in ["a", "b", "c"] {
                steps.extend((0..request.n).map(|choice| text(choice, word)));
            }
            steps.extend((0..request.n).map(|choice| finished(choice, FinishReason::Stop)));
            steps.push(done(3));
            Ok(steps)
        })
    };
    for (body, first, next) in [
        (json!({ "prompt": "x" }), "1", "2"),
        (json!({ "prompt": "x", "n": 3 }), "1", "6"),
        (json!({ "prompt": ["x", "y"] }), "1", "4"),
        (json!({ "prompt": ["x", "y"], "n": 2 }), "1", "8"),
    ] {
        let server = Server::start(model()).await;
        let response = server.post("/v1/completions", &body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{body}");
        let name = "time_to_first_token_seconds_count";
        assert_eq!(figure(&server, name).await, first, "{body}");
        let name = "time_per_token_seconds_count";
        assert_eq!(figure(&server, name).await, next, "{body}");
    }
}

#[tokio::test]
async fn the_description_names_every_route() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let (status, description) = json(server.get("/openapi.json").send().await.unwrap()).await;
    assert_eq!(status, 200);
    let paths: Vec<_> = description["paths"].as_object().unwrap().keys().collect();
    insta::assert_debug_snapshot!(paths);
    check_references(&description, &description);
    let request = &description["components"]["schemas"]["ChatRequest"];
    assert_eq!(request["required"], json!(["messages"]));
    assert_eq!(request["properties"]["temperature"]["maximum"], 2);
}

/// What stands in front of every route can refuse its requests, and so can reading a body.
#[tokio::test]
async fn the_description_tells_how_requests_are_refused() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let (_, description) = json(server.get("/openapi.json").send().await.unwrap()).await;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let mut expected = vec!["403"];
            if path != "/health" {
                expected.push("401");
            }
            if method == "post" {
                expected.extend(["408", "413", "415"]);
            }
            for status in expected {
                let content = &route["responses"][status]["content"]["application/json"];
                let body = &content["schema"]["$ref"];
                assert_eq!(
                    body, "#/components/schemas/ErrorBody",
                    "{method} {path}: {status}"
                );
            }
        }
    }
}

/// Every `$ref` points at something.
pub(crate) fn check_references(node: &Value, root: &Value) {
    match node {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let path = reference.strip_prefix('#').unwrap();
                assert!(root.pointer(path).is_some(), "{reference}");
            }
            members
                .values()
                .for_each(|member| check_references(member, root));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(item, root)),
        _ => {}
    }
}
