//! Who may talk to the server.

use api::Config;
use reqwest::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN,
};
use reqwest::{Method, StatusCode};

use crate::script::{Scripted, say};
use crate::server::{Server, check_error};

async fn server(config: Config) -> Server {
    Server::with(vec![Scripted::new(|_| Ok(say(&["ok"])))], config).await
}

#[tokio::test]
async fn the_key_is_needed_everywhere_but_for_health() {
    let server = server(Config {
        api_key: Some("secret".to_owned()),
        ..Config::default()
    })
    .await;
    for path in ["/v1/models", "/metrics", "/openapi.json", "/nowhere"] {
        let none = server.get(path).send().await.unwrap();
        assert_eq!(none.headers()["www-authenticate"], "Bearer");
        check_error(none, 401, "invalid_api_key", None).await;
    }
    for wrong in ["secre", "secrets", "", "Secret"] {
        let request = server.get("/v1/models").bearer_auth(wrong);
        check_error(request.send().await.unwrap(), 401, "invalid_api_key", None).await;
    }
    let request = server
        .get("/v1/models")
        .header("authorization", "Basic secret");
    check_error(request.send().await.unwrap(), 401, "invalid_api_key", None).await;
    assert_eq!(server.get("/health").send().await.unwrap().status(), 200);
    let bearer = server.get("/v1/models").bearer_auth("secret");
    assert_eq!(bearer.send().await.unwrap().status(), 200);
    let header = server.get("/v1/models").header("x-api-key", "secret");
    assert_eq!(header.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn only_names_of_this_machine_are_served() {
    let server = server(Config {
        hosts: vec!["box.lan".to_owned()],
        ..Config::default()
    })
    .await;
    for (host, served) in [
        ("localhost", true),
        ("LOCALHOST:9337", true),
        ("127.0.0.1:1", true),
        ("127.9.9.9", true),
        ("[::1]:80", true),
        ("box.lan:9337", true),
        ("evil.example", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("192.168.1.7", false),
        ("0.0.0.0", false),
        ("", false),
        ("a@localhost@evil", false),
    ] {
        let response = server
            .get("/health")
            .header(HOST, host)
            .send()
            .await
            .unwrap();
        if served {
            assert_eq!(response.status(), 200, "{host}");
        } else {
            check_error(response, 403, "host_not_allowed", None).await;
        }
    }
    let open = self::server(Config {
        listen_all: true,
        api_key: Some("secret".to_owned()),
        ..Config::default()
    })
    .await;
    let response = open.get("/health").header(HOST, "box.example").send().await;
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let server = server(Config {
        cors_origins: vec!["https://chat.example".to_owned()],
        ..Config::default()
    })
    .await;
    for (origin, allowed) in [
        ("http://localhost:3000", true),
        ("https://127.0.0.1", true),
        ("http://[::1]:8080", true),
        ("https://chat.example", true),
        ("http://chat.example", false),
        ("https://evil.example", false),
        ("https://chat.example.evil.example", false),
        ("null", false),
        ("chrome-extension://abc", false),
        ("", false),
    ] {
        let response = server
            .get("/v1/models")
            .header(ORIGIN, origin)
            .send()
            .await
            .unwrap();
        let header = response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
        if allowed {
            assert_eq!(header.unwrap(), origin);
            assert_eq!(response.status(), 200);
        } else {
            assert!(header.is_none(), "{origin}");
            check_error(response, 403, "origin_not_allowed", None).await;
        }
    }
}

#[tokio::test]
async fn preflights_are_answered_without_a_key() {
    let server = server(Config {
        api_key: Some("secret".to_owned()),
        ..Config::default()
    })
    .await;
    let ask = async |origin: &str| {
        let url = format!("http://{}/v1/chat/completions", server.address);
        let request = server
            .client
            .request(Method::OPTIONS, url)
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(
                ACCESS_CONTROL_REQUEST_HEADERS,
                "authorization, x-stainless-os",
            );
        request.send().await.unwrap()
    };
    let allowed = ask("http://localhost:5173").await;
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        allowed.headers()[ACCESS_CONTROL_ALLOW_ORIGIN],
        "http://localhost:5173"
    );
    let headers = &allowed.headers()[ACCESS_CONTROL_ALLOW_HEADERS];
    assert_eq!(headers, "authorization, x-stainless-os");
    assert_eq!(
        ask("https://evil.example").await.status(),
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn other_machines_need_a_key() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let node = node::Node::from_backends(Vec::new());
    let error = api::serve(listener, node, Config::default(), async {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("API key"), "{error}");
}
