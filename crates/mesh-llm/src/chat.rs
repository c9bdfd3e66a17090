//! `mesh-llm chat`: a conversation in the terminal, or one question from a script.

mod session;

use std::io::{IsTerminal, Read, Write};

use mesh_llm::{Engine, Error, Message, Reply};
use serde_json::json;

use crate::cli::ChatArguments;
use crate::console::Console;
use crate::failure::Failure;
use crate::key;
use crate::settings::Settings;

/// Longest question that is read from a pipe, bytes. Longer than any model's context.
const PIPED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Chats with a running node, or with a model of its own. A single answer is JSON if that is asked
/// for here or of all output.
pub(crate) async fn run(settings: Settings, arguments: &ChatArguments) -> Result<(), Failure> {
    let question = match &arguments.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if std::io::stdin().is_terminal() => None,
        None => Some(read_pipe()?),
    };
    let console = Console::new(settings.log_format);
    let is_json = arguments.json || console.is_json();
    if question.is_none() && is_json {
        let hint = "ask one question after `chat`, or leave out --json and use --log-format pretty";
        return Err(Failure::settings(format!(
            "a conversation in a terminal can't be JSON; hint: {hint}"
        )));
    }
    let engine = engine(&settings, arguments, console).await?;
    match question {
        Some(question) => answer_once(&engine, arguments, &question, is_json).await,
        None => session::run(&engine, arguments, &settings.home).await,
    }
}

fn read_pipe() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(PIPED_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::other(format!("can't read the question: {error}")))?;
    let text = text.trim();
    if text.is_empty() {
        let hint = "pipe some text in, or give it after `chat`";
        return Err(Failure::settings(format!(
            "there is no question; hint: {hint}"
        )));
    }
    Ok(text.to_owned())
}

/// A named server, else the node on this machine if it has the wanted model, else our own.
async fn engine(
    settings: &Settings,
    arguments: &ChatArguments,
    console: Console,
) -> Result<Engine, Failure> {
    let own_url = format!("http://127.0.0.1:{}", settings.port);
    let url = arguments.url.as_deref().unwrap_or(&own_url);
    let mut connect = Engine::connect(url);
    let kept = || {
        arguments
            .url
            .is_none()
            .then(|| key::kept(&settings.home))
            .flatten()
    };
    if let Some(key) = settings.api_key.clone().or_else(kept) {
        connect = connect.api_key(key);
    }
    if arguments.url.is_none() && !connect.answers().await {
        return solo(settings, console).await;
    }
    let engine = connect.await?;
    if settings.node.models.is_empty() {
        return Ok(engine);
    }
    let served = engine.models().await?;
    let names = settings.node.models.iter().map(name_of_source);
    let found = names.into_iter().find_map(|name| {
        let same = |known: &&String| known.eq_ignore_ascii_case(&name);
        served.iter().find(same).cloned()
    });
    match found {
        Some(name) => Ok(engine.with_model(name)),
        None if arguments.url.is_none() => solo(settings, console).await,
        None => Err(Failure::other(format!(
            "{url} does not serve that model; hint: it serves {}",
            served.join(", ")
        ))),
    }
}

fn name_of_source(source: &node::ModelSource) -> String {
    match source {
        node::ModelSource::Named(name) | node::ModelSource::Embedded { name, .. } => name.clone(),
        node::ModelSource::Path(path) => node::name_of(path),
    }
}

#[cfg(feature = "solo")]
async fn solo(settings: &Settings, console: Console) -> Result<Engine, Failure> {
    let mut settings = settings.node.clone();
    if settings.models.is_empty() {
        settings.models.extend(crate::settings::starter());
    }
    let node = node::Node::start(settings).await?;
    crate::progress::show_loading(&node, console).await;
    node.ready().await?;
    Ok(Engine::from_node(node))
}

#[cfg(not(feature = "solo"))]
async fn solo(settings: &Settings, _: Console) -> Result<Engine, Failure> {
    let port = settings.port;
    Err(Failure::other(format!(
        "no node answers on port {port} of this machine; hint: start one with `mesh-llm`, or name a server with --url"
    )))
}

async fn answer_once(
    engine: &Engine,
    arguments: &ChatArguments,
    question: &str,
    is_json: bool,
) -> Result<(), Failure> {
    let mut messages = opening(arguments.system.as_deref());
    messages.push(Message::user(question));
    let generation = request(engine, arguments, messages);
    if is_json {
        let reply = generation.reply().await?;
        return crate::cli::print(format!("{}\n", to_json(&reply)).as_bytes());
    }
    let mut events = generation.await?;
    while let Some(event) = events.next().await {
        if let mesh_llm::Event::Content(text) = event? {
            crate::cli::print(text.as_bytes())?;
        }
    }
    crate::cli::print(b"\n")
}

/// The messages that a conversation begins with.
fn opening(system: Option<&str>) -> Vec<Message> {
    system.map(Message::system).into_iter().collect()
}

fn request(
    engine: &Engine,
    arguments: &ChatArguments,
    messages: Vec<Message>,
) -> mesh_llm::Generation {
    let mut generation = engine.chat(messages);
    if let Some(temperature) = arguments.temperature {
        generation = generation.temperature(temperature);
    }
    if let Some(seed) = arguments.seed {
        generation = generation.seed(seed);
    }
    if let Some(tokens) = arguments.max_tokens {
        generation = generation.max_tokens(tokens);
    }
    generation
}

fn to_json(reply: &Reply) -> serde_json::Value {
    json!({
        "content": reply.content,
        "reasoning": reply.reasoning,
        "finish": match reply.finish {
            mesh_llm::FinishReason::Stop => "stop",
            mesh_llm::FinishReason::Length => "length",
            mesh_llm::FinishReason::ToolCalls => "tool_calls",
        },
        "usage": {
            "prompt_tokens": reply.usage.prompt_tokens,
            "cached_tokens": reply.usage.cached_tokens,
            "completion_tokens": reply.usage.completion_tokens,
        },
    })
}

/// Writes a piece of an answer at once.
fn show(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::BrokenOff(format!("can't write the answer: {error}")))
}
