//! Each route, asked well and badly. What a mesh answers is tested where there is one.

use api::management::Config;
use node::{ModelSource, Node};
use reqwest::Response;
use reqwest::header::{ALLOW, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::script::{Scripted, say};
use crate::server::{Server, check_error, json, steady_events};

async fn server() -> Server {
    let model = Scripted::new(|_| Ok(say(&["Hello", " there"])));
    let config = Config {
        embedded: vec![ModelSource::Embedded {
            name: "inside".to_owned(),
            bytes: b"not a model",
        }],
        ..Config::default()
    };
    Server::managing(Node::from_backends(vec![model]), config).await
}

async fn post(server: &Server, path: &str, body: &Value) -> Response {
    server.post(path, body).send().await.unwrap()
}

#[tokio::test]
async fn the_front_page_points_at_the_api() {
    let response = server().await.get("/").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()[CONTENT_TYPE],
        "text/plain; charset=utf-8"
    );
    assert!(response.text().await.unwrap().contains("/api/status"));
}

#[tokio::test]
async fn chat_answers_as_the_inference_api_does() {
    let server = server().await;
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let (status, answer) = json(post(&server, "/api/chat", &body).await).await;
    assert_eq!(status, 200);
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello there");
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }], "stream": true });
    let response = post(&server, "/api/chat", &body).await;
    let kind = response.headers()[CONTENT_TYPE].clone();
    assert_eq!(kind, "text/event-stream; charset=utf-8");
    let events = steady_events(&response.text().await.unwrap());
    assert!(
        events.contains(" there") && events.ends_with("[DONE]"),
        "{events}"
    );
    let response = post(&server, "/api/chat", &json!({})).await;
    check_error(response, 400, "invalid_json", Some("messages")).await;
    let body = json!({ "model": "x", "messages": [{ "role": "user", "content": "hi" }] });
    let response = post(&server, "/api/chat", &body).await;
    check_error(response, 404, "model_not_found", Some("model")).await;
}

/// Answers of the console count in the figures of the node.
#[tokio::test]
async fn both_apis_share_their_figures() {
    let node = Node::from_backends(vec![Scripted::new(|_| Ok(say(&["ok"])))]);
    let api = api::Api::new(node);
    let bind = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (inference, management) = (bind().await, bind().await);
    let url = |listener: &tokio::net::TcpListener, path: &str| {
        format!("http://{}{path}", listener.local_addr().unwrap())
    };
    let (metrics, chat) = (url(&inference, "/metrics"), url(&management, "/api/chat"));
    let forever = std::future::pending;
    let other = api.clone();
    tokio::spawn(async move {
        other
            .serve(inference, api::Config::default(), forever())
            .await
    });
    tokio::spawn(async move {
        let config = Config::default();
        api.serve_management(management, config, forever()).await
    });
    let client = reqwest::Client::new();
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let answered = client.post(chat).json(&body).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    answered.bytes().await.unwrap();
    let text = client
        .get(metrics)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let line = "mesh_llm_generations_total{model=\"scripted\",outcome=\"completed\"} 1";
    assert!(text.lines().any(|found| found == line), "{text}");
}

#[tokio::test]
async fn what_is_no_ticket_is_refused_with_the_reason() {
    let server = server().await;
    for (ticket, reason) in [
        ("", "tickets begin with"),
        ("hello", "tickets begin with"),
        ("mesh1abc", "cut off"),
        ("mesh2abc", "newer version"),
        (&"m".repeat(20_000), "too long"),
    ] {
        let response = post(&server, "/api/join", &json!({ "ticket": ticket })).await;
        let (status, body) = json(response).await;
        assert_eq!(status, 400, "{body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(body["error"]["param"], "ticket");
        assert!(
            message.starts_with("ticket: ") && message.contains(reason),
            "{message}"
        );
        assert!(message.contains("hint: "), "{message}");
    }
    let response = post(&server, "/api/join", &json!({})).await;
    check_error(response, 400, "invalid_json", Some("ticket")).await;
    let response = post(
        &server,
        "/api/join",
        &json!({ "ticket": "x", "force": true }),
    )
    .await;
    check_error(response, 400, "invalid_json", Some("force")).await;
}

#[tokio::test]
async fn a_node_in_no_mesh_says_so() {
    let server = server().await;
    let leave = server.post("/api/leave", &json!({})).send().await.unwrap();
    check_error(leave, 409, "not_in_mesh", None).await;
    let list = server.get("/api/invites").send().await.unwrap();
    check_error(list, 409, "not_in_mesh", None).await;
    let make = post(&server, "/api/invites", &json!({})).await;
    check_error(make, 409, "not_in_mesh", None).await;
    let revoke = server.delete("/api/invites/0102030405060708").send().await;
    check_error(revoke.unwrap(), 409, "not_in_mesh", None).await;
}

#[tokio::test]
async fn invitations_are_checked() {
    let server = server().await;
    for (body, code, param) in [
        (json!({ "role": "king" }), "invalid_value", "role"),
        (json!({ "role": 1 }), "invalid_json", "role"),
        (json!({ "uses": 0 }), "invalid_value", "uses"),
        (json!({ "uses": 1001 }), "invalid_value", "uses"),
        (json!({ "uses": -1 }), "invalid_json", "uses"),
        (
            json!({ "expires_in_seconds": 0 }),
            "invalid_value",
            "expires_in_seconds",
        ),
        (
            json!({ "expires_in_seconds": u64::MAX }),
            "invalid_value",
            "expires_in_seconds",
        ),
        (json!({ "expires": "24h" }), "invalid_json", "expires"),
    ] {
        let response = post(&server, "/api/invites", &body).await;
        check_error(response, 400, code, Some(param)).await;
    }
    for id in ["x", "01020304050607", "zz02030405060708"] {
        let response = server.delete(&format!("/api/invites/{id}")).send().await;
        check_error(response.unwrap(), 400, "invalid_value", Some("id")).await;
    }
}

#[tokio::test]
async fn models_are_checked_before_anything_is_loaded() {
    let server = server().await;
    for path in ["/api/models/load", "/api/models/drop"] {
        for name in ["", "  ", "a\0b", &"x".repeat(5000)] {
            let response = post(&server, path, &json!({ "model": name })).await;
            check_error(response, 400, "invalid_value", Some("model")).await;
        }
        let response = post(&server, path, &json!({ "name": "m" })).await;
        check_error(response, 400, "invalid_json", Some("name")).await;
        let response = post(&server, path, &json!(["m"])).await;
        assert_eq!(response.status(), 400);
    }
    let response = post(&server, "/api/models/drop", &json!({ "model": "nonesuch" })).await;
    check_error(response, 404, "model_not_found", Some("model")).await;
}

#[tokio::test]
async fn what_is_no_route_or_no_json_is_told() {
    let server = server().await;
    let response = server.get("/api/statu").send().await.unwrap();
    let (status, body) = json(response).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (404, &json!("unknown_url"))
    );
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("did you mean GET /api/status?"),
        "{message}"
    );
    // The inference API is elsewhere.
    let response = server.get("/v1/models").send().await.unwrap();
    check_error(response, 404, "unknown_url", None).await;

    let response = server.get("/api/join").send().await.unwrap();
    assert_eq!(response.headers()[ALLOW], "POST");
    check_error(response, 405, "method_not_allowed", None).await;
    let response = server.delete("/api/invites").send().await.unwrap();
    check_error(response, 405, "method_not_allowed", None).await;

    let url = format!("http://{}/api/join", server.address);
    let form = || {
        let form = server.client.post(&url).body("ticket=x");
        form.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
    };
    check_error(form().send().await.unwrap(), 400, "invalid_json", None).await;
    // A page of another origin that posts it.
    let posted = form().header("origin", "http://evil.example");
    let refused = posted.send().await.unwrap();
    check_error(refused, 403, "origin_not_allowed", None).await;
    let posted = form().header("sec-fetch-site", "cross-site");
    let refused = posted.send().await.unwrap();
    check_error(refused, 415, "unsupported_media_type", None).await;
    let broken = server.client.post(&url).body("{").send().await.unwrap();
    check_error(broken, 400, "invalid_json", None).await;
}

#[tokio::test]
async fn long_bodies_are_refused() {
    let config = Config {
        server: api::Config {
            body_bytes_max: 1000,
            ..api::Config::default()
        },
        ..Config::default()
    };
    let server = Server::managing(Node::from_backends(Vec::new()), config).await;
    let body = json!({ "ticket": "m".repeat(1000) });
    let response = post(&server, "/api/join", &body).await;
    check_error(response, 413, "request_too_large", None).await;
}

#[tokio::test]
async fn the_description_names_every_route() {
    let server = server().await;
    let (status, description) = json(server.get("/api/openapi.json").send().await.unwrap()).await;
    assert_eq!(status, 200);
    let paths = description["paths"].as_object().unwrap();
    let routes: Vec<String> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{method} {path}"))
        })
        .collect();
    insta::assert_debug_snapshot!(routes);
    crate::status::check_references(&description, &description);
}

/// What stands in front of every route can refuse its requests, and so can reading a body.
#[tokio::test]
async fn the_description_tells_how_requests_are_refused() {
    let server = server().await;
    let (_, description) = json(server.get("/api/openapi.json").send().await.unwrap()).await;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let mut expected = vec!["401", "403"];
            if method != "get" {
                expected.push("503");
            }
            if !route["requestBody"].is_null() {
                expected.extend(["400", "408", "413", "415"]);
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
    let paths = &description["paths"];
    let reasons = &paths["/api/join"]["post"]["responses"]["403"]["description"];
    let reasons = reasons.as_str().unwrap();
    assert!(reasons.contains("ticket") && reasons.contains("origin"));
    // The chat route has the same reasons by itself.
    let reason = &paths["/api/chat"]["post"]["responses"]["408"]["description"];
    assert_eq!(reason, "The body did not arrive in time");
    let state = &paths["/api/status"]["get"]["responses"];
    assert!(state["503"].is_null(), "a node that stops tells its state");
}

/// A node that stops can still be looked at.
#[tokio::test]
async fn a_stopping_node_takes_no_orders_but_tells_its_state() {
    let server = server().await;
    server
        .node
        .shutdown(std::time::Duration::from_secs(1))
        .await;
    let response = post(&server, "/api/join", &json!({ "ticket": "x" })).await;
    check_error(response, 503, "shutting_down", None).await;
    let (status, state) = json(server.get("/api/status").send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(state["node"]["stopping"], true);
}
