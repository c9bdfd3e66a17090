//! Signals: running answers finish, new requests are refused, a second signal ends it all.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::{Client, StatusCode};
use serde_json::json;

use crate::process::{Program, WAIT_MAX};

const STREAMS: usize = 6;

/// A raw stream, as curl would see it.
struct Answer {
    text: String,
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
}

impl Answer {
    /// Asks for `tokens` tokens whatever the model would say, and waits for the first.
    async fn begin(client: &Client, url: &str, tokens: u32) -> Self {
        let body = json!({
            "model": "auto",
            "messages": [{ "role": "user", "content": "Count to one hundred." }],
            "stream": true,
            "ignore_eos": true,
            "max_tokens": tokens,
        });
        let request = client.post(format!("{url}/chat/completions")).json(&body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut answer = Self {
            text: String::new(),
            bytes: response.bytes_stream().boxed(),
        };
        while !answer.text.contains("\"content\":\"") {
            assert!(answer.read().await, "ended early: {}", answer.text);
        }
        answer
    }

    async fn read(&mut self) -> bool {
        match self.bytes.next().await {
            Some(Ok(bytes)) => {
                self.text.push_str(&String::from_utf8_lossy(&bytes));
                true
            }
            _ => false,
        }
    }

    async fn end(mut self) -> String {
        while self.read().await {}
        self.text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn term_under_load_loses_no_running_answer() {
    let running = Program::serving(&["--ctx-size=8192"]).start();
    let url = running.ready();
    let client = Client::new();
    let mut answers = Vec::new();
    for _ in 0..STREAMS {
        answers.push(Answer::begin(&client, &url, 200).await);
    }
    running.signal("TERM");
    running.event("stopping");
    for text in futures::future::join_all(answers.into_iter().map(Answer::end)).await {
        assert!(text.contains("\"finish_reason\":\"length\""), "{text}");
        assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    }
    let run = running.finish();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(client.get(url).send().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let running = Program::serving(&["--ctx-size=65536", "--grace-seconds=600"]).start();
        let url = running.ready();
        let answer = Answer::begin(&Client::new(), &url, 60_000).await;
        running.signal(signal);
        running.event("stopping");
        running.signal(signal);
        let run = running.finish();
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        assert!(!answer.end().await.contains("[DONE]"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_grace_time_answers_end_with_an_error() {
    let running = Program::serving(&["--ctx-size=65536", "--grace-seconds=0"]).start();
    let url = running.ready();
    let answer = Answer::begin(&Client::new(), &url, 60_000).await;
    running.signal("TERM");
    let text = answer.end().await;
    assert!(text.contains("shutting_down"), "{text}");
    assert_eq!(running.finish().code, Some(0));
}

#[test]
fn a_signal_while_idle_stops_cleanly() {
    for signal in ["TERM", "INT"] {
        let running = Program::serving(&[]).start();
        running.ready();
        running.signal(signal);
        assert_eq!(running.finish().code, Some(0));
    }
}

/// While it tries to join, the host of whose mesh does not answer.
#[test]
fn a_signal_while_starting_stops_in_order() {
    let host = Program::serving(&[]).start();
    let ticket = host.event("ticket")["ticket"].as_str().unwrap().to_owned();
    host.signal("STOP");
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let port_flag = format!("--port={port}");
    let arguments = ["--log-format=json", &port_flag, "--join", &ticket];
    let joiner = Program::new(arguments).start();
    let began = Instant::now();
    // Once the port is open it has begun to join, and listens for signals.
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < WAIT_MAX);
        std::thread::sleep(Duration::from_millis(10));
    }
    joiner.signal("TERM");
    let run = joiner.finish();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let events = run.events();
    let names = events.iter().map(|event| event["event"].as_str().unwrap());
    let names: Vec<&str> = names.filter(|name| *name != "log").collect();
    assert_eq!(names, ["stopping", "stopped"]);
}
