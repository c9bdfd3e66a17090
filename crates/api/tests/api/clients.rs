//! The real SDKs and an API fuzzer. `./dev test` installs them, or leaves these tests out so
//! that the runner counts them as skipped.

use std::sync::Arc;

use api::Config;
use engine::{Delta, Error, FinishReason, Format, Input, Request, TokenLogprob, ToolCallDelta};
use tokio::process::Command;

use crate::script::{Scripted, Step, delta, done, embedder, finished, info, started};
use crate::server::Server;

const KEY: &str = "secret";
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// Set by whoever wants these tests to pass without the clients.
const SKIP: &str = "MESH_LLM_TEST_SKIP_CLIENTS";

/// The value of `name`. A test that could not run must not look like one that passed: `None`
/// only if that is asked for.
fn installed(name: &str) -> Option<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let value = set(name);
    if value.is_none() {
        assert!(
            set(SKIP).is_some(),
            "{name} is not set; hint: run ./dev test, which installs the clients, \
             or eval \"$(./dev clients)\" first; {SKIP}=1 leaves these tests out"
        );
        eprintln!("skipped: {name} is not set, and {SKIP} is");
    }
    value
}

/// A model that keeps its promises: calls tools, fills schemas, reports logprobs.
fn obedient() -> Arc<Scripted> {
    Scripted::with_info(info("scripted"), |request| {
        refuse_long(request)?;
        let tools = matches!(&request.input, Input::Chat(chat)
            if !chat.tools.is_empty() && chat.tool_choice != engine::ToolChoice::None);
        let mut steps = vec![started()];
        for choice in 0..request.n {
            if tools {
                steps.extend(call(choice));
                steps.push(finished(choice, FinishReason::ToolCalls));
                continue;
            }
            let words = match request.format {
                Format::Text => vec!["It ", "is ", "sunny."],
                _ => vec!["{\"name\": \"Ulm\", ", "\"known\": true}"],
            };
            steps.extend(words.into_iter().map(|word| say(choice, word, request)));
            steps.push(finished(choice, FinishReason::Stop));
        }
        steps.push(done(3));
        Ok(steps)
    })
}

fn refuse_long(request: &Request) -> Result<(), Error> {
    let length = match &request.input {
        Input::Chat(chat) => chat.messages.iter().map(|m| m.content.len()).sum(),
        Input::Text(text) => text.len(),
        Input::Tokens(tokens) => tokens.len(),
    };
    if length > 100_000 {
        return Err(Error::ContextLengthExceeded {
            prompt_tokens: u32::try_from(length).unwrap(),
            context_tokens: 512,
        });
    }
    Ok(())
}

fn say(choice: u32, word: &str, request: &Request) -> Step {
    let logprob = TokenLogprob {
        token: 65,
        bytes: word.as_bytes().to_vec(),
        logprob: -0.5,
        top: vec![(65, word.as_bytes().to_vec(), -0.5)],
    };
    delta(
        choice,
        Delta {
            content: word.to_owned(),
            tokens: vec![65],
            logprobs: request.logprobs.map(|_| logprob).into_iter().collect(),
            ..Delta::default()
        },
    )
}

fn call(choice: u32) -> Vec<Step> {
    let piece = |first: Option<&str>, arguments: &str| {
        let piece = ToolCallDelta {
            index: 0,
            id: first.map(|_| "call_1".to_owned()),
            name: first.map(str::to_owned),
            arguments: arguments.to_owned(),
        };
        delta(
            choice,
            Delta {
                tool_calls: vec![piece],
                tokens: vec![65],
                ..Delta::default()
            },
        )
    };
    vec![
        piece(Some("weather"), ""),
        piece(None, "{\"city\": "),
        piece(None, "\"Ulm\"}"),
    ]
}

async fn server(api_key: Option<&str>) -> Server {
    let config = Config {
        api_key: api_key.map(str::to_owned),
        ..Config::default()
    };
    Server::with(vec![obedient(), embedder()], config).await
}

/// Runs `command`, which must succeed.
async fn check(mut command: Command) {
    let output = command.output().await.unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs the Python script against `server`.
async fn check_python(server: &Server, model: &str) {
    let Some(python) = installed("MESH_LLM_TEST_PYTHON") else {
        return;
    };
    let mut command = Command::new(python);
    command
        .arg(format!("{CLIENTS}/sdk.py"))
        .arg(format!("http://{}/v1", server.address))
        .args([KEY, model, "embedder"]);
    check(command).await;
}

/// Runs the JavaScript script against `server`.
async fn check_javascript(server: &Server, model: &str) {
    let Some(modules) = installed("MESH_LLM_TEST_NODE_MODULES") else {
        return;
    };
    let mut command = Command::new("node");
    command
        .env("NODE_PATH", modules)
        .arg(format!("{CLIENTS}/sdk.cjs"))
        .arg(format!("http://{}/v1", server.address))
        .args([KEY, model, "embedder"]);
    check(command).await;
}

#[tokio::test]
async fn the_python_sdk_gets_what_it_expects() {
    check_python(&server(Some(KEY)).await, "scripted").await;
}

#[tokio::test]
async fn the_javascript_sdk_gets_what_it_expects() {
    check_javascript(&server(Some(KEY)).await, "scripted").await;
}

#[cfg(feature = "solo")]
#[tokio::test]
async fn the_python_sdk_talks_to_a_real_model() {
    let (_folder, server) = crate::solo::for_clients(KEY).await;
    check_python(&server, "starter").await;
}

#[cfg(feature = "solo")]
#[tokio::test]
async fn the_javascript_sdk_talks_to_a_real_model() {
    let (_folder, server) = crate::solo::for_clients(KEY).await;
    check_javascript(&server, "starter").await;
}

#[tokio::test]
async fn the_fuzzer_finds_no_breach_of_the_description() {
    let Some(python) = installed("MESH_LLM_TEST_PYTHON") else {
        return;
    };
    let server = server(None).await;
    let mut command = Command::new(python);
    command
        .env("SCHEMATHESIS_HOOKS", format!("{CLIENTS}/fuzz_hooks.py"))
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .args(["-m", "schemathesis.cli", "run", "--checks=all", "--seed=1"])
        .args([
            "--exclude-checks=positive_data_acceptance",
            "--max-examples=25",
            "--no-color",
            "--generation-database=none",
        ])
        .arg(format!("http://{}/openapi.json", server.address));
    check(command).await;
}
