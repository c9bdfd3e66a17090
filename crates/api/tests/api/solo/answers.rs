//! Plain answers: streamed and whole, seeds, stop strings, log-probabilities, reuse of prefixes.

use serde_json::{Value, json};
use testkit::model::Architecture;

use super::{ask, ask_chat, chat, chunks, content, random, serve, starter};
use crate::server::json;

const QUESTION: &str = "What is mesh-llm?";

#[tokio::test]
async fn a_stream_says_what_a_whole_answer_says() {
    let (server, _) = serve(starter()).await;
    for more in [json!({}), json!({ "temperature": 1, "seed": 5 })] {
        let whole = ask_chat(&server, QUESTION, &more).await;
        let mut body = chat(QUESTION, &more);
        body["stream_options"] = json!({ "include_usage": true });
        let chunks = chunks(&server, "/v1/chat/completions", body).await;
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, content(&whole));
        let usage = &chunks.last().unwrap()["usage"];
        assert_eq!(
            usage["completion_tokens"],
            whole["usage"]["completion_tokens"]
        );
        assert_eq!(usage["prompt_tokens"], whole["usage"]["prompt_tokens"]);
        let ends: Vec<_> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0]["finish_reason"])
            .filter(|reason| reason.is_string())
            .collect();
        assert_eq!(ends, [&whole["choices"][0]["finish_reason"]]);
    }
}

/// The model's tokens are mostly single bytes, so that every one of these characters is torn.
#[tokio::test]
async fn pieces_are_whole_characters() {
    let (_folder, options) = random(Architecture::Qwen3);
    let (server, _) = serve(options).await;
    let check = |text: &str| {
        assert_eq!(text.chars().count(), 30, "{text}");
        assert!(
            text.chars().all(|c| "\u{e9}\u{65e5}\u{1f980}".contains(c)),
            "{text}"
        );
    };
    for seed in 0..3 {
        let body = json!({ "prompt": "a", "max_tokens": 200, "temperature": 2, "seed": seed,
                           "grammar": "root ::= [\u{e9}\u{65e5}\u{1f980}]{30}" });
        let whole = ask(&server, "/v1/completions", &body).await;
        check(whole["choices"][0]["text"].as_str().unwrap());
        let text: String = chunks(&server, "/v1/completions", body)
            .await
            .iter()
            .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap().to_owned())
            .collect();
        check(&text);
    }
}

#[tokio::test]
async fn the_same_seed_says_the_same() {
    let (server, _) = serve(starter()).await;
    let of = async |seed: i64| {
        let more = json!({ "temperature": 2, "top_k": 0, "min_p": 0, "top_p": 1, "seed": seed });
        content(&ask_chat(&server, QUESTION, &more).await).to_owned()
    };
    let first = of(1).await;
    assert_eq!(of(1).await, first);
    let others = [of(2).await, of(3).await, of(4).await];
    assert!(others.iter().any(|other| *other != first));
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_wherever_it_falls() {
    let (server, _) = serve(starter()).await;
    let all = content(&ask_chat(&server, QUESTION, &json!({})).await).to_owned();
    // Every string of seven characters from the first half of the answer, tokens or not.
    let starts: Vec<usize> = all.char_indices().map(|(start, _)| start).collect();
    assert!(starts.len() > 16, "{all:?}");
    for pair in starts[..starts.len() / 2].windows(8).step_by(3) {
        let stop = &all[pair[0]..pair[7]];
        let answer = ask_chat(&server, QUESTION, &json!({ "stop": [stop, "\u{1f980}"] })).await;
        assert_eq!(
            content(&answer),
            &all[..all.find(stop).unwrap()],
            "{stop:?}"
        );
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let body = chat(QUESTION, &json!({ "stop": stop }));
        let streamed: String = chunks(&server, "/v1/chat/completions", body)
            .await
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(streamed, content(&answer), "{stop:?}");
    }
}

#[tokio::test]
async fn logprobs_belong_to_the_tokens() {
    let (server, _) = serve(starter()).await;
    let more = json!({ "logprobs": true, "top_logprobs": 3 });
    let answer = ask_chat(&server, QUESTION, &more).await;
    let choice = &answer["choices"][0];
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    let count = answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(
        tokens.len() as u64 == count || tokens.len() as u64 + 1 == count,
        "{answer}"
    );
    for token in tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // A greedy answer takes the likeliest.
        assert_eq!(top[0]["token"], token["token"]);
        assert_eq!(top[0]["logprob"], token["logprob"]);
        let mass: f64 = top
            .iter()
            .map(|top| top["logprob"].as_f64().unwrap().exp())
            .sum();
        assert!(mass <= 1.0 + 1e-3, "{token}");
    }
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token["bytes"].as_array().unwrap())
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect();
    let said = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        said.starts_with(content(&answer)) || said.ends_with(content(&answer)),
        "{said}"
    );
}

#[tokio::test]
async fn token_limits_hold() {
    let (server, _) = serve(starter()).await;
    let count = |answer: &Value| answer["usage"]["completion_tokens"].as_u64().unwrap();
    let few = ask_chat(&server, QUESTION, &json!({ "max_tokens": 3 })).await;
    assert_eq!(count(&few), 3);
    assert_eq!(few["choices"][0]["finish_reason"], "length");
    let many = json!({ "max_tokens": 150, "ignore_eos": true });
    assert_eq!(count(&ask_chat(&server, QUESTION, &many).await), 150);
    let some = json!({ "max_tokens": 150, "min_tokens": 100 });
    assert!(count(&ask_chat(&server, QUESTION, &some).await) >= 100);
}

#[tokio::test]
async fn a_banned_token_never_comes() {
    let (server, _) = serve(starter()).await;
    let prompt =
        json!({ "prompt": "mesh-llm is", "temperature": 0, "max_tokens": 1, "logprobs": 1 });
    let answer = ask(&server, "/v1/completions", &prompt).await;
    let first = answer["choices"][0]["text"].as_str().unwrap().to_owned();
    let request = json!({ "content": first, "add_special": false });
    let tokens = ask(&server, "/v1/tokenize", &request).await;
    let token = tokens["tokens"][0].as_i64().unwrap().to_string();
    let mut banned = prompt.clone();
    banned["logit_bias"] = json!({ token: -100 });
    let answer = ask(&server, "/v1/completions", &banned).await;
    assert_ne!(answer["choices"][0]["text"], first);
}

#[tokio::test]
async fn choices_share_the_prompt() {
    let (server, _) = serve(starter()).await;
    let answer = ask_chat(&server, QUESTION, &json!({ "n": 3, "temperature": 1 })).await;
    let alone = ask_chat(&server, QUESTION, &json!({})).await;
    assert_eq!(answer["choices"].as_array().unwrap().len(), 3);
    assert_eq!(
        answer["usage"]["prompt_tokens"],
        alone["usage"]["prompt_tokens"]
    );
}

#[tokio::test]
async fn a_prefix_is_reused_unless_that_is_unwanted() {
    let (server, _) = serve(starter()).await;
    let text = "Tell me how I can add one more machine to my mesh, and what I need for it.";
    let cached = |answer: &Value| {
        let details = &answer["usage"]["prompt_tokens_details"];
        details["cached_tokens"].as_u64().unwrap()
    };
    let first = ask_chat(&server, text, &json!({})).await;
    let second = ask_chat(&server, text, &json!({})).await;
    assert!(cached(&second) > 0, "{second}");
    // Not even the last token is evaluated again.
    assert_eq!(second["usage"]["prompt_tokens"], cached(&second));
    assert_eq!(second["timings"]["cache_n"], cached(&second));
    assert_eq!(content(&second), content(&first));
    let unwanted = ask_chat(&server, text, &json!({ "cache_prompt": false })).await;
    assert_eq!(cached(&unwanted), 0);
    let metrics = server
        .get("/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("mesh_llm_cached_tokens_total"))
        .unwrap();
    assert!(!line.ends_with(" 0"), "{line}");
}

#[tokio::test]
async fn tokens_go_there_and_back() {
    let (server, _) = serve(starter()).await;
    let text = "h\u{e9}llo <|im_start|> \u{1f980}\n\tw\u{f6}rld";
    let request = json!({ "content": text, "add_special": false, "with_pieces": true });
    let tokens = ask(&server, "/v1/tokenize", &request).await;
    let pieces = tokens["pieces"].as_array().unwrap();
    assert_eq!(pieces.len() as u64, tokens["count"].as_u64().unwrap());
    let back = ask(
        &server,
        "/v1/detokenize",
        &json!({ "tokens": tokens["tokens"] }),
    )
    .await;
    assert_eq!(back["content"], text);
    // A conversation is counted as it is when it is answered.
    let messages = json!([{ "role": "user", "content": QUESTION }]);
    let counted = ask(&server, "/v1/tokenize", &json!({ "messages": messages })).await;
    let answered = ask_chat(&server, QUESTION, &json!({})).await;
    assert_eq!(counted["count"], answered["usage"]["prompt_tokens"]);
}

#[tokio::test]
async fn texts_are_embedded() {
    for architecture in [
        Architecture::Bert,
        Architecture::NomicBert,
        Architecture::Qwen3Embedding,
    ] {
        let (_folder, options) = random(architecture);
        let (server, _) = serve(options).await;
        let inputs = json!({ "input": ["a cat", "a dog and a cow", "a cat"] });
        let answer = ask(&server, "/v1/embeddings", &inputs).await;
        let vectors: Vec<Vec<f64>> = answer["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| serde_json::from_value(entry["embedding"].clone()).unwrap())
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert!((dot(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-3);
        assert!(dot(&vectors[0], &vectors[2]) > 0.999, "{architecture:?}");
        assert!(dot(&vectors[0], &vectors[1]) < 0.999, "{architecture:?}");
        assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
        let long = json!({ "input": "word ".repeat(10_000) });
        let response = server.post("/v1/embeddings", &long).send().await.unwrap();
        let (status, body) = json(response).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(body["error"]["code"], "context_length_exceeded", "{body}");
    }
}
