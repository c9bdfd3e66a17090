//! The same rules as at the inference API, and who may be put out of a mesh.

use std::time::Duration;

use api::management::Config;
use mesh::admission::Invite;
use mesh::net::Network;
use node::{MeshSettings, Node, Settings};
use reqwest::header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::server::{Server, check_error, json};

/// Ends a test that hangs. Nothing here takes long; the machine may be busy.
const HANG: Duration = Duration::from_secs(90);

async fn server(config: api::Config) -> Server {
    let config = Config {
        server: config,
        ..Config::default()
    };
    Server::managing(Node::from_backends(Vec::new()), config).await
}

const ROUTES: [(Method, &str); 13] = [
    (Method::GET, "/"),
    (Method::GET, "/api/status"),
    (Method::GET, "/api/events"),
    (Method::GET, "/api/invites"),
    (Method::GET, "/api/openapi.json"),
    (Method::POST, "/api/join"),
    (Method::POST, "/api/leave"),
    (Method::POST, "/api/invites"),
    (Method::DELETE, "/api/invites/0102030405060708"),
    (Method::DELETE, "/api/peers/0102030405060708"),
    (Method::POST, "/api/models/load"),
    (Method::POST, "/api/models/drop"),
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

/// A node that may be in a mesh on this machine, and its files.
async fn member() -> (Server, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let settings = Settings {
        mesh: MeshSettings {
            home: Some(home.path().to_path_buf()),
            network: Network::loopback(),
            ..MeshSettings::default()
        },
        ..Settings::default()
    };
    let node = Node::from_backends_with(settings, Vec::new());
    (Server::managing(node, Config::default()).await, home)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_expelled_by_its_id() {
    let (first, _home) = member().await;
    let (second, _other_home) = member().await;
    first.node.open_mesh(None).await.unwrap();
    let ticket = first.node.invite(Invite::default()).await.unwrap();
    second.node.join(&ticket).await.unwrap();
    let id = |of: &Server| of.node.snapshot().mesh.as_ref().unwrap().me.to_string();
    let (originator, joined) = (id(&first), id(&second));
    let stranger = "07".repeat(32);
    let delete = async |at: &Server, path: String| at.delete(&path).send().await.unwrap();
    let peer = |id: &str| format!("/api/peers/{id}");

    let response = delete(&first, peer("0102030405060708")).await;
    check_error(response, 400, "invalid_value", Some("id")).await;
    for at in [&first, &second] {
        let response = delete(at, peer(&originator)).await;
        check_error(response, 409, "cannot_expel", None).await;
    }
    let response = delete(&second, peer(&stranger)).await;
    check_error(response, 403, "refused", None).await;
    assert!(second.node.snapshot().mesh.is_some());

    let (status, body) = json(delete(&first, peer(&joined)).await).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body, json!({ "id": joined, "known": true }));
    let mut watch = second.node.watch();
    let out = watch.wait_for(|snapshot| snapshot.mesh.is_none());
    assert!(
        tokio::time::timeout(HANG, out).await.is_ok(),
        "it is still a member"
    );

    // What this node does not know may have been mistyped.
    let ticket = "0102030405060708".to_owned();
    for (path, id) in [
        (peer(&stranger), stranger),
        (format!("/api/invites/{ticket}"), ticket),
    ] {
        let (status, body) = json(delete(&first, path).await).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body, json!({ "id": id, "known": false }));
    }
}
