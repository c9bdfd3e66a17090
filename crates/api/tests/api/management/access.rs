//! The same rules as at the inference API.

use api::management::Config;
use node::Node;
use reqwest::header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN};
use reqwest::{Method, StatusCode};

use crate::server::{Server, check_error};

async fn server(config: api::Config) -> Server {
    let config = Config {
        server: config,
        ..Config::default()
    };
    Server::managing(Node::from_backends(Vec::new()), config).await
}

const ROUTES: [(Method, &str); 11] = [
    (Method::GET, "/"),
    (Method::GET, "/api/status"),
    (Method::GET, "/api/events"),
    (Method::GET, "/api/invites"),
    (Method::GET, "/api/openapi.json"),
    (Method::POST, "/api/join"),
    (Method::POST, "/api/leave"),
    (Method::POST, "/api/invites"),
    (Method::DELETE, "/api/invites/0102030405060708"),
    (Method::POST, "/api/models/load"),
    (Method::POST, "/api/chat"),
];

#[tokio::test]
async fn every_route_needs_the_key_if_there_is_one() {
    let server = server(api::Config {
        api_key: Some("secret".to_owned()),
        ..api::Config::default()
    })
    .await;
    let ask = |method: &Method, path: &str| {
        let url = format!("http://{}{path}", server.address);
        server.client.request(method.clone(), url)
    };
    for (method, path) in &ROUTES {
        let none = ask(method, path).send().await.unwrap();
        assert_eq!(none.headers()["www-authenticate"], "Bearer", "{path}");
        check_error(none, 401, "invalid_api_key", None).await;
        let wrong = ask(method, path).bearer_auth("guess").send().await.unwrap();
        check_error(wrong, 401, "invalid_api_key", None).await;
        let right = ask(method, path)
            .bearer_auth("secret")
            .send()
            .await
            .unwrap();
        assert_ne!(right.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    // The inference API answers this one to anybody.
    let health = server.get("/health").send().await.unwrap();
    check_error(health, 401, "invalid_api_key", None).await;
}

#[tokio::test]
async fn other_hosts_and_origins_are_refused() {
    let server = server(api::Config::default()).await;
    for (method, path) in &ROUTES {
        for (header, value, code) in [
            (HOST, "evil.example", "host_not_allowed"),
            (ORIGIN, "https://evil.example", "origin_not_allowed"),
        ] {
            let url = format!("http://{}{path}", server.address);
            let request = server.client.request(method.clone(), url);
            let response = request.header(header, value).send().await.unwrap();
            check_error(response, 403, code, None).await;
        }
    }
    let own_page = server
        .get("/api/status")
        .header(ORIGIN, "http://localhost:3131");
    assert_eq!(own_page.send().await.unwrap().status(), 200);
}

/// A page of this machine may revoke a ticket: its browser asks first.
#[tokio::test]
async fn pages_may_delete() {
    let server = server(api::Config::default()).await;
    let url = format!("http://{}/api/invites/0102030405060708", server.address);
    let response = server
        .client
        .request(Method::OPTIONS, url)
        .header(ORIGIN, "http://localhost:5173")
        .header(ACCESS_CONTROL_REQUEST_METHOD, "DELETE")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let methods = response.headers()["access-control-allow-methods"].to_str();
    assert!(methods.unwrap().contains("DELETE"));
}

#[tokio::test]
async fn other_machines_need_a_key() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let api = api::Api::new(Node::from_backends(Vec::new()));
    let error = api
        .serve_management(listener, Config::default(), async {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("API key"), "{error}");
}
