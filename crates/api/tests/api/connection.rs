//! Slow, absent and greedy clients.

use std::sync::Arc;
use std::time::Duration;

use api::Config;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::script::{Scripted, Step, say, started, text};
use crate::server::{Server, check_error, read_all, read_until, send};

/// Short enough for a test, long enough for any machine to notice in between.
const SHORT: Duration = Duration::from_millis(200);

fn chat(stream: bool) -> Value {
    json!({ "messages": [{ "role": "user", "content": "hi" }], "stream": stream })
}

/// Begins an answer and never ends it.
fn endless() -> Arc<Scripted> {
    Scripted::new(|_| Ok(vec![started(), text(0, "Once"), Step::Hang]))
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    for stream in [false, true] {
        let model = endless();
        let server = Server::start(model.clone()).await;
        let mut connection = server.connect().await;
        let body = chat(stream).to_string();
        send(&mut connection, "/v1/chat/completions", &body).await;
        model.until_live(1).await;
        if stream {
            read_until(&mut connection, "Once").await;
        }
        drop(connection);
        model.until_live(0).await;
        let status = if stream { 200 } else { 499 };
        let line = format!("status=\"{status}\"}} 1\n");
        loop {
            let metrics = server.get("/metrics").send().await.unwrap();
            if metrics.text().await.unwrap().contains(&line) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn several_prompts_are_cancelled_together() {
    let model = endless();
    let server = Server::start(model.clone()).await;
    let mut connection = server.connect().await;
    let body = json!({ "prompt": ["a", "b", "c"], "stream": true }).to_string();
    send(&mut connection, "/v1/completions", &body).await;
    model.until_live(3).await;
    drop(connection);
    model.until_live(0).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let page = "x".repeat(64 * 1024);
    let model = Scripted::new(move |_| {
        let mut steps = vec![started()];
        // Far more than the kernel buffers for one connection.
        steps.extend((0..1024).map(|_| text(0, &page)));
        Ok(steps)
    });
    let config = Config {
        write_stall_timeout: SHORT,
        ..Config::default()
    };
    let server = Server::with(vec![model.clone()], config).await;
    let mut connection = server.connect().await;
    send(
        &mut connection,
        "/v1/chat/completions",
        &chat(true).to_string(),
    )
    .await;
    model.until_live(1).await;
    model.until_live(0).await;
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_lives() {
    let config = Config {
        keep_alive_interval: SHORT,
        ..Config::default()
    };
    let model = Scripted::new(|_| Ok(vec![Step::Hang]));
    let server = Server::with(vec![model], config).await;
    let mut connection = server.connect().await;
    send(
        &mut connection,
        "/v1/chat/completions",
        &chat(true).to_string(),
    )
    .await;
    let head = read_until(&mut connection, ": keep-alive\n\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    read_until(&mut connection, ": keep-alive\n\n").await;
}

#[tokio::test]
async fn slow_senders_are_cut() {
    let config = Config {
        header_read_timeout: SHORT,
        body_stall_timeout: SHORT,
        ..Config::default()
    };
    let server = Server::with(vec![Scripted::new(|_| Ok(say(&["ok"])))], config).await;
    let mut head = server.connect().await;
    head.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n")
        .await
        .unwrap();
    read_all(&mut head).await;

    let mut body = server.connect().await;
    body.write_all(
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{",
    )
    .await
    .unwrap();
    let answer = read_all(&mut body).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("request_timeout"), "{answer}");
}

/// A body that never stalls, yet has no end.
#[tokio::test]
async fn trickling_bodies_are_cut() {
    let config = Config {
        body_read_timeout: SHORT,
        body_bytes_max: usize::MAX / 4,
        ..Config::default()
    };
    let server = Server::with(vec![Scripted::new(|_| Ok(say(&["ok"])))], config).await;
    let body = futures::stream::unfold((), |()| async {
        tokio::task::yield_now().await;
        Some((Ok::<_, std::io::Error>(" "), ()))
    });
    let url = format!("http://{}/v1/completions", server.address);
    let request = server
        .client
        .post(url)
        .body(reqwest::Body::wrap_stream(body));
    match request.send().await {
        Ok(response) => check_error(response, 408, "request_timeout", None).await,
        // The connection may be gone before the client looks at the answer.
        Err(error) => assert!(error.is_request(), "{error}"),
    }
}

#[tokio::test]
async fn long_bodies_are_refused() {
    let config = Config {
        body_bytes_max: 1000,
        ..Config::default()
    };
    let server = Server::with(vec![Scripted::new(|_| Ok(say(&["ok"])))], config).await;
    let fits = json!({ "messages": [{ "role": "user", "content": "x".repeat(900) }] });
    assert_eq!(server.chat(&fits).await.status(), 200);
    let long = json!({ "messages": [{ "role": "user", "content": "x".repeat(1000) }] });
    check_error(server.chat(&long).await, 413, "request_too_large", None).await;

    let pieces = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>("x".repeat(90))));
    let url = format!("http://{}/v1/completions", server.address);
    let request = server
        .client
        .post(url)
        .body(reqwest::Body::wrap_stream(pieces));
    check_error(
        request.send().await.unwrap(),
        413,
        "request_too_large",
        None,
    )
    .await;

    // A client that asks first is told before it sends.
    let mut connection = server.connect().await;
    connection
        .write_all(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
              content-length: 99999999999999999999\r\n\r\n",
        )
        .await
        .unwrap();
    let answer = read_all(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn connections_over_the_bound_wait() {
    let config = Config {
        connections_max: 2,
        ..Config::default()
    };
    let server = Server::with(vec![endless()], config).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for connection in [&mut first, &mut second] {
        send(connection, "/v1/chat/completions", &chat(true).to_string()).await;
        read_until(connection, "Once").await;
    }
    let mut third = server.connect().await;
    send(&mut third, "/v1/chat/completions", &chat(true).to_string()).await;
    let early = tokio::time::timeout(SHORT, read_until(&mut third, "Once")).await;
    assert!(early.is_err());
    drop(first);
    read_until(&mut third, "Once").await;
}

/// Bytes that are no HTTP end the connection, nothing else.
#[tokio::test]
async fn garbage_is_survived() {
    let server = Server::start(Scripted::new(|_| Ok(say(&["ok"])))).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\nfoo bar\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    ] {
        let mut connection = server.connect().await;
        connection.write_all(garbage).await.unwrap();
        connection.shutdown().await.unwrap();
        let answer = read_all(&mut connection).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(server.chat(&chat(false)).await.status(), 200);
}
