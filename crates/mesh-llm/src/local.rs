//! Requests to a node in this process.

use ::engine::{Chat, EmbedInput, EmbedRequest, Request, ToolChoice};
use futures::StreamExt;
use node::Node;

use crate::event::{ChoiceEvents, LOGPROB_MIN, TOP_LOGPROBS_MAX};
use crate::generation::{Input, Options};
use crate::{Embeddings, Error, Event, TokenLogprob};

/// Asks `node`; the events are its own in this crate's form.
pub(crate) async fn generate(
    node: &Node,
    model: String,
    input: Input,
    options: Options,
) -> Result<ChoiceEvents, Error> {
    check(&input, &options)?;
    let mut events = node.generate(request(model, input, options)).await?;
    // The node's models stop when its last handle is dropped; an answer keeps it alive.
    let node = node.clone();
    Ok(Box::pin(async_stream::stream! {
        let _node = node;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    for event in split(event) {
                        yield Ok(event);
                    }
                }
                Err(error) => {
                    yield Err(error.into());
                    return;
                }
            }
        }
    }))
}

/// Embeds on `node`.
pub(crate) async fn embed(
    node: &Node,
    model: String,
    texts: Vec<String>,
) -> Result<Embeddings, Error> {
    let inputs = texts.into_iter().map(EmbedInput::Text).collect();
    Ok(node.embed(EmbedRequest { model, inputs }).await?)
}

/// Refuses what the API refuses too, so that a program need not know which way its requests go.
fn check(input: &Input, options: &Options) -> Result<(), Error> {
    for (field, value) in options.numbers() {
        let (min, max) = match field {
            "top_p" | "min_p" => (0.0, 1.0),
            "temperature" => (0.0, 2.0),
            // The penalty divides logits, so that zero is no value.
            "repeat_penalty" => (0.01, 100.0),
            _ => (-2.0, 2.0),
        };
        if let Some(value) = value
            && !(min..=max).contains(&value)
        {
            return Err(invalid(field, format!("{value} is not in {min} to {max}")));
        }
    }
    if options.logprobs.is_some_and(|top| top > TOP_LOGPROBS_MAX) {
        return Err(invalid(
            "logprobs",
            format!("must be 0 to {TOP_LOGPROBS_MAX}"),
        ));
    }
    if options.max_tokens == Some(0) {
        return Err(invalid("max_tokens", "must be at least 1"));
    }
    if matches!(input, Input::Chat { messages, .. } if messages.is_empty()) {
        return Err(invalid("messages", "must hold at least one message"));
    }
    Ok(())
}

fn invalid(field: &str, reason: impl Into<String>) -> Error {
    ::engine::Error::invalid(field, reason).into()
}

fn request(model: String, input: Input, options: Options) -> Request {
    let input = match input {
        Input::Text(text) => ::engine::Input::Text(text),
        Input::Chat { messages, tools } => ::engine::Input::Chat(Chat {
            messages,
            tools,
            tool_choice: options.tool_choice.unwrap_or(ToolChoice::Auto),
            parallel_tool_calls: options.parallel_tool_calls.unwrap_or(true),
            template_kwargs: options.template_kwargs,
        }),
    };
    let mut request = Request::new(model, input);
    let sampling = &mut request.sampling;
    set(&mut sampling.temperature, options.temperature);
    set(&mut sampling.top_p, options.top_p);
    set(&mut sampling.top_k, options.top_k);
    set(&mut sampling.min_p, options.min_p);
    set(&mut sampling.repeat_penalty, options.repeat_penalty);
    set(&mut sampling.presence_penalty, options.presence_penalty);
    set(&mut sampling.frequency_penalty, options.frequency_penalty);
    sampling.seed = options.seed;
    request.limits.max_tokens = options.max_tokens;
    request.limits.ignore_eos = options.ignore_eos.unwrap_or(false);
    request.limits.stop = options.stop;
    set(&mut request.n, options.n);
    request.logprobs = options.logprobs;
    set(&mut request.format, options.format);
    request
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// What an event of the engine says, with the choice it is of.
fn split(event: ::engine::Event) -> Vec<(u32, Event)> {
    match event {
        ::engine::Event::Started { .. } => Vec::new(),
        ::engine::Event::Delta { choice, delta } => {
            let mut events = Vec::new();
            if !delta.reasoning.is_empty() {
                events.push(Event::Reasoning(delta.reasoning));
            }
            if !delta.content.is_empty() {
                events.push(Event::Content(delta.content));
            }
            events.extend(delta.tool_calls.into_iter().map(Event::ToolCall));
            if !delta.logprobs.is_empty() {
                let tokens = delta.logprobs.into_iter().map(token_logprob);
                events.push(Event::Logprobs(tokens.collect()));
            }
            events.into_iter().map(|event| (choice, event)).collect()
        }
        ::engine::Event::Finished { choice, reason } => vec![(choice, Event::Finished(reason))],
        ::engine::Event::Done(summary) => vec![(0, Event::Usage(summary.usage))],
    }
}

fn token_logprob(token: ::engine::TokenLogprob) -> TokenLogprob {
    let bounded = |logprob: f32| logprob.max(LOGPROB_MIN);
    TokenLogprob {
        bytes: token.bytes,
        logprob: bounded(token.logprob),
        top: (token.top.into_iter())
            .map(|(_, bytes, logprob)| (bytes, bounded(logprob)))
            .collect(),
    }
}
