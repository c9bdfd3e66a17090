//! `mesh-llm chat`: one question, and a conversation in a terminal.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::process::{Program, WAIT_MAX};
use crate::terminal::Screen;

/// A server whose part a test plays: it sees each request and writes the answer itself.
struct Server {
    url: String,
    requests: Receiver<(String, TcpStream)>,
}

/// A stream of events, as the test writes it.
struct Answer(TcpStream);

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (send, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&mut stream);
                if send.send((request, stream)).is_err() {
                    return;
                }
            }
        });
        Self { url, requests }
    }

    fn request(&self) -> (String, TcpStream) {
        self.requests.recv_timeout(WAIT_MAX).unwrap()
    }

    /// Answers that there is one model.
    fn list_models(&self) {
        let (request, mut stream) = self.request();
        assert!(request.starts_with("GET /v1/models "), "{request}");
        let list = json!({ "object": "list", "data": [{ "id": "one" }] });
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
        write!(stream, "{head}\r\n\r\n{list}").unwrap();
    }

    /// Waits for a question; gives all that was said in the conversation, and begins an answer.
    fn asked(&self) -> (Vec<String>, Answer) {
        let (request, mut stream) = self.request();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        let messages = body["messages"].as_array().unwrap().iter();
        let said = messages.map(|message| message["content"].as_str().unwrap().to_owned());
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream";
        write!(stream, "{head}\r\n\r\n").unwrap();
        (said.collect(), Answer(stream))
    }
}

impl Answer {
    fn say(&mut self, text: &str) {
        self.send(&json!({ "delta": { "content": text } }));
    }

    fn end(mut self) {
        self.send(&json!({ "delta": {}, "finish_reason": "stop" }));
        self.0.write_all(b"data: [DONE]\n\n").unwrap();
    }

    fn send(&mut self, choice: &Value) {
        let chunk = json!({ "choices": [choice] });
        write!(self.0, "data: {chunk}\n\n").unwrap();
    }

    /// Waits until nobody listens any more.
    fn until_dropped(mut self) {
        self.0.set_read_timeout(Some(WAIT_MAX)).unwrap();
        match self.0.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

/// Head and body of a request.
fn read_request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    let mut length = 0;
    loop {
        let start = request.len();
        reader.read_line(&mut request).unwrap();
        let line = request[start..].trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request + std::str::from_utf8(&body).unwrap()
}

/// A terminal in which a conversation with `server` has begun.
fn conversation(server: &Server) -> Screen {
    let mut screen = Screen::start(Program::new(["chat", "--url", &server.url]), 100, 30);
    server.list_models();
    screen.then("> ");
    screen
}

#[test]
fn a_question_from_a_pipe_is_answered_by_a_model_of_its_own() {
    let arguments = [
        "chat",
        "--port=1",
        "--model=starter",
        "--temperature=0",
        "--max-tokens=40",
    ];
    let piped = Program::new(arguments).input("What is mesh-llm?\n").run();
    assert_eq!((piped.code, piped.stderr.as_str()), (Some(0), ""));
    assert!(piped.stdout.trim().len() > 3, "{}", piped.stdout);
    let typed = Program::new(arguments.iter().chain(&["What is mesh-llm?"])).run();
    assert_eq!(typed.stdout, piped.stdout);
}

#[test]
fn a_running_node_answers() {
    let node = Program::serving(&[]).start();
    let url = node.ready();
    let port = url
        .trim_end_matches("/v1")
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let ask = |arguments: &[&str]| {
        let base = [
            "chat",
            "--temperature=0",
            "--max-tokens=20",
            "--json",
            "Hello",
        ];
        let run = Program::new(base.iter().chain(arguments)).run();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    };
    let by_port = ask(&["--port", &port]);
    let by_url = ask(&["--url", &url]);
    assert_eq!(by_port["content"], by_url["content"]);
    // The second prompt is in the node's KV cache: it was the same node.
    assert!(
        by_url["usage"]["cached_tokens"].as_u64().unwrap() > 0,
        "{by_url}"
    );
    let run = Program::new(["chat", "--url", &url, "--model=nonesuch", "Hello"]).run();
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("hint: it serves starter"),
        "{}",
        run.stderr
    );
}

#[test]
fn no_question_is_an_error() {
    let run = Program::new(["chat", "--port=1"]).run();
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr
            .starts_with("error: there is no question\nhint: "),
        "{}",
        run.stderr
    );
}

#[test]
fn an_answer_is_shown_as_it_comes_and_stopped_by_ctrl_c() {
    let server = Server::start();
    let mut screen = conversation(&server);
    screen.type_in("Who are you?\r");
    let (_, mut answer) = server.asked();
    answer.say("Nobody");
    screen.then("Nobody");
    answer.say(" yet.");
    answer.end();
    screen.then(" yet.");
    screen.then("> ");

    screen.type_in("And then?\r");
    let (_, mut answer) = server.asked();
    answer.say("Without end");
    screen.then("Without end");
    screen.press_ctrl_c();
    answer.until_dropped();
    screen.then("> ");

    // What was said before it was stopped is part of the conversation.
    screen.type_in("Go on.\r");
    let (said, answer) = server.asked();
    let expected = [
        "Who are you?",
        "Nobody yet.",
        "And then?",
        "Without end",
        "Go on.",
    ];
    assert_eq!(said, expected);
    answer.end();
    screen.then("> ");
    screen.type_in("\x04");
    assert_eq!(screen.finish(), Some(0));
}

/// It stops an answer; a line that is being typed is given up, not the conversation.
#[test]
fn ctrl_c_at_the_prompt_does_not_end_the_conversation() {
    let server = Server::start();
    let mut screen = conversation(&server);
    screen.type_in("Not tha");
    screen.then("Not tha");
    screen.press_ctrl_c();
    screen.then("/exit or Ctrl-D ends.");
    screen.then("> ");
    screen.type_in("This.\r");
    let (said, answer) = server.asked();
    assert_eq!(said, ["This."]);
    answer.end();
    screen.then("> ");
    screen.type_in("/exit\r");
    assert_eq!(screen.finish(), Some(0));
}

#[test]
fn a_conversation_in_a_terminal_is_not_json() {
    for flag in ["--json", "--log-format=json"] {
        let mut screen = Screen::start(Program::new(["chat", "--port=1", flag]), 100, 30);
        screen.then("can't be JSON");
        assert_eq!(screen.finish(), Some(2), "{flag}");
    }
}

#[test]
fn an_answer_is_json_where_all_output_is() {
    let arguments = [
        "chat",
        "--port=1",
        "--model=starter",
        "--max-tokens=5",
        "--log-format=json",
        "Hello",
    ];
    let run = Program::new(arguments).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let answer = run.events().pop().unwrap();
    assert!(answer["content"].is_string(), "{answer}");
    let tokens = answer["usage"]["completion_tokens"].as_u64();
    assert!(tokens > Some(0), "{answer}");
}
