//! A node that was told nothing: it waits, and says what for.

use reqwest::Client;
use serde_json::{Value, json};

use crate::process::Program;

#[tokio::test]
async fn an_idle_node_answers_with_what_to_do() {
    // As a user starts it, who says nothing of networks.
    let running = Program::node(&["--no-relay=false", "--no-mdns=false"]).start();
    let ready = running.event("ready");
    assert_eq!(ready["models"], json!([]));
    let fields = ["node_id", "mesh_id", "ticket"];
    assert!(fields.iter().all(|field| ready[field].is_null()), "{ready}");
    let url = ready["api_url"].as_str().unwrap();
    let client = Client::new();
    let body = json!({ "messages": [{ "role": "user", "content": "Hello" }] });
    let chat = client.post(format!("{url}/chat/completions")).json(&body);
    let response = chat.send().await.unwrap();
    assert_eq!(response.status(), 503);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "idle");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("hint: ") && message.contains("mesh-llm join TICKET"),
        "{message}"
    );
    let health = client
        .get(url.replace("/v1", "/health"))
        .send()
        .await
        .unwrap();
    assert_eq!(health.status(), 503);
    let health: Value = health.json().await.unwrap();
    assert_eq!(health["status"], "idle");
    let models = client.get(format!("{url}/models")).send().await.unwrap();
    let models: Value = models.json().await.unwrap();
    assert_eq!(models["data"], json!([]));
    // It has no identity yet, and nobody can connect to it: QUIC and multicast would need a port.
    assert!(!running.home.path().join(".mesh-llm/key").exists());
    #[cfg(target_os = "linux")]
    assert!(crate::sockets::udp_ports(running.pid()).is_empty());
    running.signal("TERM");
    assert_eq!(running.finish().code, Some(0));
}

#[test]
fn a_person_is_told_what_to_do_next() {
    let running = Program::new(["--port=0"]).start();
    running.line_on_stderr("mesh-llm is idle at http://127.0.0.1:");
    for next in ["load starter", "load NAME", "join TICKET"] {
        running.line_on_stderr(&format!("  mesh-llm {next} "));
    }
    running.line_on_stderr("Ctrl-C stops.");
    running.signal("INT");
    let run = running.finish();
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""));
}

/// `chat` does with an idle node what it does without one.
#[test]
fn chat_beside_an_idle_node_runs_a_model_of_its_own() {
    let running = Program::node(&[]).start();
    let url = running.ready();
    let port = url.trim_end_matches("/v1").rsplit(':').next().unwrap();
    let arguments = [
        "chat",
        "--max-tokens=4",
        "--temperature=0",
        "--port",
        port,
        "Hello",
    ];
    let run = Program::new(arguments).run();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(!run.stdout.trim().is_empty());
}
