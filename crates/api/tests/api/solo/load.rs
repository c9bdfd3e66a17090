//! Many clients at once, some of which leave: nothing may stay behind.

use engine::Backend;
use futures::future::join_all;
use serde_json::json;

use super::{ask_chat, chat, content, serve, starter, until_idle};
use crate::server::{Server, read_all, read_until, send};

const STREAMS: u64 = 64;

/// A few well-mixed bits of `seed` (SplitMix64's finalizer).
fn mixed(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One client: reads all, leaves after some tokens, or leaves at once.
async fn client(server: &Server, seed: u64) {
    let bits = mixed(seed);
    let text = format!("Question {}: what is mesh-llm?", bits % 5);
    let more = json!({ "stream": true, "max_tokens": 8 + bits % 24, "temperature": 1,
                       "seed": bits % 1000, "n": 1 + bits % 2 });
    let body = chat(&text, &more).to_string();
    let mut connection = server.connect().await;
    send(&mut connection, "/v1/chat/completions", &body).await;
    match bits % 3 {
        0 => {}
        1 => {
            read_until(&mut connection, "data: ").await;
        }
        _ => {
            let answer = read_until(&mut connection, "data: [DONE]").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
}

async fn round(server: &Server, first_seed: u64) {
    join_all((0..STREAMS).map(|index| client(server, first_seed + index))).await;
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Memory of this process, MiB; 0 where it can't be known.
fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[tokio::test]
async fn streams_that_come_and_go_leave_nothing_behind() {
    let (server, engine) = serve(starter()).await;
    let alone = ask_chat(&server, "What is mesh-llm?", &json!({})).await;
    // Two rounds fill caches, pools and the KV memory.
    round(&server, 0).await;
    round(&server, 1000).await;
    until_idle(&engine).await;
    let (threads_before, memory_before) = (threads(), memory_mib());
    for seed in [2000, 3000, 4000] {
        round(&server, seed).await;
        until_idle(&engine).await;
    }
    let load = engine.load();
    assert_eq!((load.running, load.waiting), (0, 0), "{load:?}");
    assert!(load.cancelled_total > 0, "{load:?}");
    // Blocking threads of the runtime come and go by a few.
    assert!(
        threads() <= threads_before + 4,
        "{threads_before} threads became {}",
        threads()
    );
    let memory = memory_mib();
    assert!(
        memory <= memory_before + 24,
        "{memory_before} MiB became {memory}"
    );
    let again = ask_chat(&server, "What is mesh-llm?", &json!({})).await;
    assert_eq!(content(&again), content(&alone));
    // The slot is free a step after the answer is out.
    until_idle(&engine).await;
    let metrics = async || {
        let response = server.get("/metrics").send().await.unwrap();
        response.text().await.unwrap()
    };
    let text = metrics().await;
    let idle = "mesh_llm_sequences_running{model=\"starter\"} 0";
    assert!(text.contains(idle), "{text}");
    // Connections notice that a client left a moment after the engine does. The request that is
    // left in the end is the one that asks.
    while !metrics()
        .await
        .contains("mesh_llm_http_requests_active 1\n")
    {}
}

/// Clients that send and never read hold no slot once they are gone.
#[tokio::test]
async fn half_closed_clients_are_let_go() {
    let (server, engine) = serve(starter()).await;
    let endless = chat(
        "Count",
        &json!({ "stream": true, "ignore_eos": true, "max_tokens": 1500 }),
    );
    for _ in 0..8 {
        let mut connection = server.connect().await;
        send(
            &mut connection,
            "/v1/chat/completions",
            &endless.to_string(),
        )
        .await;
        tokio::io::AsyncWriteExt::shutdown(&mut connection)
            .await
            .unwrap();
        read_all(&mut connection).await;
    }
    until_idle(&engine).await;
}
