//! An orderly stop.

use std::sync::Arc;
use std::time::Duration;

use engine::FinishReason;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::script::{Scripted, Step, done, finished, say, started, text};
use crate::server::{Server, read_all, read_until, send};

const CHAT: &str = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#;

/// A model that goes on only when told.
fn gated() -> (Arc<Scripted>, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let model = Scripted::new(move |_| {
        Ok(vec![
            started(),
            text(0, "Once"),
            Step::Wait(waiting.clone()),
            text(0, " upon"),
            finished(0, FinishReason::Stop),
            done(2),
        ])
    });
    (model, gate)
}

#[tokio::test]
async fn running_answers_finish_and_late_requests_get_503() {
    let (model, gate) = gated();
    let mut server = Server::start(model.clone()).await;
    let mut running = server.connect().await;
    send(&mut running, "/v1/chat/completions", CHAT).await;
    read_until(&mut running, "Once").await;
    // A connection that is open and idle when the stop comes.
    let mut idle = server.connect().await;
    send(&mut idle, "/v1/nowhere", "").await;
    read_until(&mut idle, "unknown_url").await;

    server.stop();
    while server.get("/health").send().await.unwrap().status() == 200 {
        tokio::task::yield_now().await;
    }
    // One that comes while the answer still runs.
    let mut late = server.connect().await;
    for connection in [&mut idle, &mut late] {
        send(connection, "/v1/chat/completions", CHAT).await;
        let refused = read_until(connection, "shutting_down").await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(refused.contains("retry-after: "), "{refused}");
    }

    gate.add_permits(1);
    let rest = read_all(&mut running).await;
    assert!(rest.contains(" upon"), "{rest}");
    assert!(rest.contains("data: [DONE]"), "{rest}");
    server.stopped().await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_stop_back() {
    let mut server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    let mut idle = server.connect().await;
    send(&mut idle, "/v1/nowhere", "").await;
    read_until(&mut idle, "unknown_url").await;
    server.stop();
    server.stopped().await;
    assert_eq!(read_all(&mut idle).await, "");
}

#[tokio::test]
async fn a_node_that_stops_refuses_requests() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    server.node.shutdown(Duration::from_secs(1)).await;
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let response = server.chat(&body).await;
    assert_eq!(response.headers()["connection"], "close");
    crate::server::check_error(response, 503, "shutting_down", None).await;
}

/// Dropping the server ends even what never would.
#[tokio::test]
async fn dropping_the_server_closes_everything() {
    let model = Scripted::new(|_| Ok(vec![started(), text(0, "Once"), Step::Hang]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let node = node::Node::from_backends(vec![model.clone()]);
    let serving = api::serve(
        listener,
        node,
        api::Config::default(),
        std::future::pending(),
    );
    let serving = tokio::spawn(serving);
    let mut running = TcpStream::connect(address).await.unwrap();
    send(&mut running, "/v1/chat/completions", CHAT).await;
    read_until(&mut running, "Once").await;
    serving.abort();
    model.until_live(0).await;
    assert!(!read_all(&mut running).await.contains("[DONE]"));
}
