//! `Engine::connect` against servers that are absent, silent, or not quite OpenAI's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use mesh_llm::{Engine, Error, Event, FinishReason, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Longest request of these tests, bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A server that gives each connection the next of `answers`, raw, and closes it. Where they end,
/// it reads and stays silent.
async fn server(answers: &[&str]) -> String {
    let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let Some(answer) = answers.next() else {
                held.push(stream);
                continue;
            };
            let mut request = vec![0; REQUEST_BYTES_MAX];
            let mut filled = 0;
            while !is_whole(&request[..filled]) {
                filled += stream.read(&mut request[filled..]).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    url
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| body.len() >= length.trim().parse().unwrap())
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n{body}"
    )
}

fn stream(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n{body}")
}

const MODELS: &str = r#"{"object":"list","data":[{"id":"first"},{"id":"second"}]}"#;

async fn events(answer: &str) -> Result<Vec<Event>, Error> {
    let url = server(&[&json("200 OK", MODELS), answer]).await;
    let engine = Engine::connect(url).await?;
    let mut stream = engine.chat([Message::user("Hi")]).await?;
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event?);
    }
    Ok(events)
}

#[tokio::test]
async fn streams_of_other_servers_are_understood() {
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n\
                : still there\n\n\
                data: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\n";
    let found = events(&stream(body)).await.unwrap();
    assert_eq!(
        found[..2],
        [Event::Content("Hel".into()), Event::Content("lo".into())]
    );
    assert_eq!(found[2], Event::Finished(FinishReason::Stop));
    assert!(matches!(found[3], Event::Usage(_)) && found.len() == 4);

    let whole = r#"{"choices":[{"message":{"content":"Hello"},"finish_reason":"length"}]}"#;
    let found = events(&json("200 OK", whole)).await.unwrap();
    assert_eq!(found[0], Event::Content("Hello".into()));
    assert_eq!(found[1], Event::Finished(FinishReason::Length));
}

#[tokio::test]
async fn what_breaks_is_a_typed_error() {
    let cut = "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n";
    assert!(matches!(
        events(&stream(cut)).await,
        Err(Error::BrokenOff(_))
    ));
    let garbage = "data: <html>\n\n";
    assert!(matches!(
        events(&stream(garbage)).await,
        Err(Error::Protocol(_))
    ));
    let failed = "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n";
    let error = events(&stream(failed)).await;
    assert!(
        matches!(error, Err(Error::Server { status: 500, .. })),
        "{error:?}"
    );
    let refused = json("503 Service Unavailable", r#"{"error":{"message":"busy"}}"#);
    let error = events(&refused).await;
    assert!(
        matches!(error, Err(Error::Server { status: 503, .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_without_a_list_of_models_will_do() {
    let done =
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let url = server(&[&json("404 Not Found", "{}"), &stream(done)]).await;
    let engine = Engine::connect(url).await.unwrap();
    let reply = engine.chat([Message::user("Hi")]).reply().await.unwrap();
    assert_eq!(reply.content, "");
}

#[tokio::test]
async fn absent_silent_and_closed_servers_are_told_apart() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = Engine::connect(nobody.as_str()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(!Engine::connect(nobody).answers().await);

    let silent = server(&[]).await;
    let limit = Duration::from_millis(50);
    let error = Engine::connect(silent)
        .silence_max(limit)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");

    let locked = server(&[&json("401 Unauthorized", r#"{"error":{"message":"key"}}"#)]).await;
    let error = Engine::connect(locked).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");

    let error = Engine::connect("localhost:9337").await.unwrap_err();
    assert!(matches!(error, Error::Url { .. }), "{error:?}");
}
