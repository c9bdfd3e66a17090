use serde_json::{Value, json};

use super::*;

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn node(role: &str) -> Value {
    json!({
        "id": id('a'), "name": "attic", "region": "home", "version": "0.1.0", "role": role,
        "stopping": false, "started_unix_s": 1_000, "devices": ["CPU, 8 cores", "CUDA0"],
        "memory_total_bytes": 16_u64 << 30, "memory_free_bytes": 10_u64 << 30,
        "api_url": "http://127.0.0.1:9337/v1",
    })
}

fn peer(name: &str, digit: char, liveness: &str, role: &str, models: &[&str]) -> Value {
    let serving: Vec<Value> = models
        .iter()
        .map(|name| {
            json!({
                "name": name, "fingerprint": "", "size_bytes": 1, "context_tokens": 1,
                "slots": 1, "running": 0, "waiting": 0,
            })
        })
        .collect();
    json!({
        "id": id(digit), "name": name, "region": "", "liveness": liveness, "role": role,
        "version": "0.1.0", "started_unix_ms": 0, "devices": [],
        "memory_total_bytes": 8_u64 << 30, "memory_free_bytes": 7_u64 << 30,
        "serving": serving, "local": [], "wanted": [], "round_trip_us": 2500, "connected": false,
    })
}

fn model(name: &str, state: &str, size_bytes: u64) -> Value {
    json!({
        "name": name, "state": state, "progress": 0.42, "reason": "the file is torn",
        "fingerprint": "", "size_bytes": size_bytes, "context_tokens": 4096, "slots": 8,
        "running": 2, "waiting": 1, "generated_tokens": 0,
    })
}

fn read(status: Value) -> Status {
    serde_json::from_value(status).unwrap()
}

#[test]
fn a_mesh_is_shown() {
    let host = |name: &str, local: bool| json!({ "node": null, "name": name, "local": local, "slots": 8, "running": 2, "waiting": 1 });
    let link = |digit: char, path: &str, address: &str| {
        json!({
            "node": id(digit), "client": false, "path": path, "address": address,
            "round_trip_us": 1234, "sent_bytes": 0, "received_bytes": 0, "since_unix_s": 0,
            "streams": 0,
        })
    };
    let status = read(json!({
        "schema": 1,
        "node": node("serving"),
        "mesh": { "id": id('9'), "name": "home", "clients": 1 },
        "models": [model("small", "ready", 1 << 20), model("next", "loading", 0)],
        "peers": [
            peer("old", 'b', "left", "serving", &["large"]),
            peer("laptop", 'c', "alive", "serving", &["large", "b", "c", "d", "e", "f"]),
            // A name that would clear the terminal.
            peer("de\u{1b}[2Jsk", 'd', "suspect", "standby", &[]),
            peer("far", 'e', "alive", "joining", &[]),
        ],
        "targets": [
            { "model": "large", "size_bytes": 5_u64 << 30, "context_tokens": 8192,
              "hosts": [host("laptop", false), host("far", false)] },
            { "model": "small", "size_bytes": 1 << 20, "context_tokens": 4096,
              "hosts": [host("attic", true)] },
        ],
        "demand": [
            { "model": "large", "per_minute": 12.5, "here_per_minute": 1.0 },
            { "model": "lost", "per_minute": 0.5, "here_per_minute": 0.5 },
        ],
        "links": [link('c', "direct", "10.0.0.2:4000"), link('d', "relayed", "https://r.example/")],
    }));
    insta::assert_snapshot!(super::status(&status, 1_000 + 3 * 3600 + 125));
}

#[test]
fn a_node_alone_is_shown() {
    let mut alone = node("serving");
    alone["id"] = Value::Null;
    let status = |node: &Value, models: &[Value]| {
        let status = read(json!({
            "schema": 1, "node": node, "mesh": null, "models": models, "peers": [],
            "targets": [], "demand": [], "links": [],
        }));
        super::status(&status, 1_001)
    };
    let models = [model("a", "failed", 0), model("b", "dropping", 1 << 20)];
    insta::assert_snapshot!(status(&alone, &models));
    alone["role"] = "idle".into();
    alone["memory_total_bytes"] = 0.into();
    insta::assert_snapshot!("idle", status(&alone, &[]));
}

#[test]
fn machines_that_load_their_share_are_named() {
    let mut waiting = model("big", "loading", 0);
    waiting["loading"] = json!([
        { "id": id('b'), "name": "attic", "first_layer": 0, "last_layer": 11, "progress": 0.4,
          "summary": "attic: fetching layers 0-11, 40 %" },
        { "id": id('c'), "name": "cellar", "first_layer": 12, "last_layer": 23, "progress": 1.0,
          "summary": "cellar: layers 12-23 loaded" },
    ]);
    let model: Model = serde_json::from_value(waiting).unwrap();
    assert_eq!(
        state(&model),
        "loading 42 %; attic: fetching layers 0-11, 40 %; cellar: layers 12-23 loaded"
    );
}
