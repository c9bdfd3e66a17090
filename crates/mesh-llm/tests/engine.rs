//! One suite over an engine in this process and one behind HTTP: same events, same errors.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use mesh_llm::{
    Engine, Error, Event, FinishReason, Generation, Message, Reply, Tool, ToolChoice, Usage, Value,
    json,
};
use node::{ModelSource, Node, Settings};
use testkit::model::{Architecture, ModelSpec};
use tokio::sync::oneshot;

/// The same node, reached both ways.
struct Both {
    local: Engine,
    remote: Engine,
    node: Node,
    stop: Option<oneshot::Sender<()>>,
}

fn starter() -> ModelSource {
    ModelSource::Embedded {
        name: "starter".into(),
        bytes: mesh_llm::STARTER,
    }
}

async fn both() -> Both {
    both_with(vec![starter()]).await
}

async fn both_with(models: Vec<ModelSource>) -> Both {
    let settings = Settings {
        models,
        context_tokens: Some(1024),
        ..Settings::default()
    };
    let node = Node::start(settings).await.unwrap();
    node.ready().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = api::serve(listener, node.clone(), api::Config::default(), async {
        let _ = stopped.await;
    });
    tokio::spawn(serving);
    Both {
        local: Engine::from_node(node.clone()),
        remote: Engine::connect(format!("http://{address}")).await.unwrap(),
        node,
        stop: Some(stop),
    }
}

impl Both {
    /// Asks both ways and compares everything but what the KV cache and speculation saved.
    async fn ask(&self, make: impl Fn(&Engine) -> Generation) -> Result<Reply, Error> {
        let (local_kinds, local) = collect(make(&self.local)).await;
        let (remote_kinds, remote) = collect(make(&self.remote)).await;
        assert_eq!(local_kinds, remote_kinds);
        match (&local, &remote) {
            (Ok(local), Ok(remote)) => assert_eq!(without_savings(local), without_savings(remote)),
            (Err(local), Err(remote)) => assert_eq!(
                std::mem::discriminant(local),
                std::mem::discriminant(remote),
                "{local:?} and {remote:?}"
            ),
            _ => panic!("{local:?} and {remote:?}"),
        }
        remote
    }

    async fn refuse(&self, make: impl Fn(&Engine) -> Generation) -> Error {
        match self.ask(make).await {
            Err(error) => error,
            Ok(reply) => panic!("answered: {reply:?}"),
        }
    }
}

/// The order of events, runs of one kind as one, and what they say.
async fn collect(generation: Generation) -> (Vec<&'static str>, Result<Reply, Error>) {
    let mut kinds = Vec::new();
    let mut events = match generation.await {
        Ok(events) => events,
        Err(error) => return (kinds, Err(error)),
    };
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        let kind = match &event {
            Ok(Event::Content(text)) => {
                assert!(!text.is_empty());
                "content"
            }
            Ok(Event::Reasoning(_)) => "reasoning",
            Ok(Event::ToolCall(_)) => "tool call",
            Ok(Event::Logprobs(_)) => "logprobs",
            Ok(Event::Finished(_)) => "finished",
            Ok(Event::Usage(_)) => "usage",
            Err(_) => "error",
        };
        if kinds.last() != Some(&kind) {
            kinds.push(kind);
        }
        seen.push(event);
    }
    (kinds, gather(seen))
}

fn gather(events: Vec<Result<Event, Error>>) -> Result<Reply, Error> {
    let mut reply = Reply {
        content: String::new(),
        reasoning: String::new(),
        tool_calls: Vec::new(),
        logprobs: Vec::new(),
        finish: FinishReason::Stop,
        usage: Usage::default(),
    };
    for event in events {
        match event? {
            Event::Content(text) => reply.content.push_str(&text),
            Event::Reasoning(text) => reply.reasoning.push_str(&text),
            Event::ToolCall(delta) => {
                if let (Some(id), Some(name)) = (delta.id, delta.name) {
                    let arguments = String::new();
                    reply.tool_calls.push(mesh_llm::ToolCall {
                        id,
                        name,
                        arguments,
                    });
                }
                let call = &mut reply.tool_calls[delta.index as usize];
                call.arguments.push_str(&delta.arguments);
            }
            Event::Logprobs(tokens) => reply.logprobs.extend(tokens),
            Event::Finished(reason) => reply.finish = reason,
            Event::Usage(usage) => reply.usage = usage,
        }
    }
    Ok(reply)
}

fn without_savings(reply: &Reply) -> Reply {
    let mut reply = reply.clone();
    // Neither is the same when a request comes a second time.
    reply.usage.cached_tokens = 0;
    (reply.usage.drafted_tokens, reply.usage.accepted_tokens) = (0, 0);
    // Identifiers of calls are drawn anew for each answer.
    for call in &mut reply.tool_calls {
        assert!(!call.id.is_empty());
        call.id.clear();
    }
    reply
}

fn question() -> [Message; 1] {
    [Message::user("What is mesh-llm?")]
}

fn weather() -> Tool {
    Tool {
        name: "get_weather".into(),
        description: Some("Weather of a city".into()),
        parameters: Some(json!({
            "type": "object",
            "properties": { "city": { "type": "string", "maxLength": 20 } },
            "required": ["city"],
            "additionalProperties": false,
        })),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_the_same_both_ways() {
    let both = both().await;
    let reply = both
        .ask(|engine| engine.chat(question()).temperature(0.0).max_tokens(100))
        .await
        .unwrap();
    assert!(!reply.content.is_empty() && reply.usage.completion_tokens > 0);
    assert!(reply.usage.prompt_tokens > 0);

    let cut = both
        .ask(|engine| engine.chat(question()).temperature(0.0).max_tokens(3))
        .await
        .unwrap();
    assert_eq!(
        (cut.finish, cut.usage.completion_tokens),
        (FinishReason::Length, 3)
    );

    let word = reply.content.split_whitespace().nth(2).unwrap();
    let stopped = both
        .ask(|engine| {
            engine
                .chat(question())
                .temperature(0.0)
                .max_tokens(100)
                .stop(word)
        })
        .await
        .unwrap();
    assert_eq!(stopped.finish, FinishReason::Stop);
    assert!(!stopped.content.contains(word) && reply.content.starts_with(&stopped.content));

    let seeded = |seed| {
        both.ask(move |engine| {
            engine
                .complete("mesh-llm is")
                .temperature(1.5)
                .seed(seed)
                .max_tokens(12)
        })
    };
    assert_eq!(
        seeded(7).await.unwrap().content,
        seeded(7).await.unwrap().content
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_and_formats_are_the_same_both_ways() {
    let both = both().await;
    let reply = both
        .ask(|engine| {
            engine
                .chat_with_tools(
                    [Message::user("What is the weather in Paris?")],
                    [weather()],
                )
                .tool_choice(ToolChoice::Required)
                .temperature(0.0)
                .max_tokens(200)
        })
        .await
        .unwrap();
    assert_eq!(reply.finish, FinishReason::ToolCalls);
    let call = &reply.tool_calls[0];
    assert_eq!(call.name, "get_weather");
    let arguments: Value = call.arguments.parse().unwrap();
    assert!(arguments["city"].is_string(), "{arguments}");

    let mut calling = Message::assistant("");
    calling.tool_calls.clone_from(&reply.tool_calls);
    let conversation = [
        Message::user("What is the weather in Paris?"),
        calling,
        Message::tool(&call.id, r#"{"sky":"clear"}"#),
    ];
    let answer = both
        .ask(|engine| {
            engine
                .chat_with_tools(conversation.clone(), [weather()])
                .tool_choice(ToolChoice::None)
                .temperature(0.0)
                .max_tokens(60)
        })
        .await
        .unwrap();
    assert!(answer.tool_calls.is_empty());

    let schema = json!({
        "type": "object",
        "properties": { "count": { "type": "integer", "minimum": 0, "maximum": 9 } },
        "required": ["count"],
        "additionalProperties": false,
    });
    let reply = both
        .ask(|engine| {
            let generation = engine.chat([Message::user("Count.")]).temperature(0.0);
            generation.json_schema(schema.clone()).max_tokens(60)
        })
        .await
        .unwrap();
    let value: Value = reply.content.parse().unwrap();
    assert!(value["count"].is_u64(), "{value}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_answers_and_logprobs_are_the_same_both_ways() {
    let both = both().await;
    let make = |engine: &Engine| {
        let generation = engine.chat(question()).temperature(1.0).seed(3);
        generation.n(3).logprobs(2).max_tokens(8).ignore_eos()
    };
    let mut ways = Vec::new();
    for engine in [&both.local, &both.remote] {
        let error = make(engine).await.unwrap_err();
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
        let replies = make(engine).replies().await.unwrap();
        assert_eq!(replies.len(), 3);
        for reply in &replies {
            assert_eq!(reply.usage.completion_tokens, 24);
            assert_eq!(reply.finish, FinishReason::Length);
            assert_eq!(reply.logprobs.len(), 8);
            for token in &reply.logprobs {
                assert!((-9999.0..=0.0).contains(&token.logprob), "{token:?}");
                assert_eq!(token.top.len(), 2, "{token:?}");
                assert!(token.top[0].1 >= token.top[1].1, "{token:?}");
            }
        }
        let text = |reply: &Reply| reply.content.clone();
        ways.push(replies.iter().map(text).collect::<Vec<_>>());
    }
    assert_eq!(ways[0], ways[1]);

    let reply = both
        .ask(|engine| {
            let generation = engine.complete("mesh-llm is").temperature(0.0);
            generation.logprobs(1).max_tokens(4)
        })
        .await
        .unwrap();
    assert_eq!(reply.logprobs.len(), 4);
    for wrong in [0, 1000] {
        let error = both.refuse(|engine| engine.chat(question()).n(wrong)).await;
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_the_same_both_ways() {
    let both = both().await;
    let error = both
        .refuse(|engine| engine.chat(question()).model("nonesuch"))
        .await;
    assert!(matches!(error, Error::ModelNotFound { .. }), "{error:?}");

    let long = "word ".repeat(4000);
    let error = both.refuse(|engine| engine.complete(long.as_str())).await;
    assert!(
        matches!(error, Error::ContextLengthExceeded { .. }),
        "{error:?}"
    );

    let wrong: [fn(Generation) -> Generation; 6] = [
        |generation| generation.temperature(-1.0),
        |generation| generation.temperature(f32::NAN),
        |generation| generation.top_p(1.5),
        |generation| generation.repeat_penalty(0.0),
        |generation| generation.max_tokens(0),
        |generation| generation.grammar("root ::= nonesuch"),
    ];
    for set in wrong {
        let error = both.refuse(|engine| set(engine.chat(question()))).await;
        assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    }
    let error = both.refuse(|engine| engine.chat([])).await;
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");

    for engine in [&both.local, &both.remote] {
        let error = engine.embed(["a"]).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_embedded_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("embedder.gguf");
    let spec = ModelSpec {
        context: 1024,
        ..ModelSpec::tiny(Architecture::NomicBert)
    };
    testkit::model::write(&spec, &path).unwrap();
    // The first model makes none: who names no model gets the second.
    let both = both_with(vec![starter(), ModelSource::Path(path)]).await;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let mut answers = Vec::new();
    for engine in [&both.local, &both.remote] {
        let named = engine.clone().with_model("embedder");
        for engine in [engine, &named] {
            let answer = engine.embed(["a cat", "a dog and a cow", "a cat"]).await;
            answers.push(answer.unwrap());
        }
        let starter = engine.clone().with_model("starter");
        let error = starter.embed(["a cat"]).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
        let nobody = engine.clone().with_model("nonesuch");
        let error = nobody.embed(["a cat"]).await.unwrap_err();
        assert!(matches!(error, Error::ModelNotFound { .. }), "{error:?}");
    }
    for answer in &answers {
        let vectors = &answer.vectors;
        assert_eq!(vectors.len(), 3);
        for (vector, first) in vectors.iter().zip(&answers[0].vectors) {
            assert_eq!(vector.len(), spec.width as usize);
            assert!((dot(vector, vector) - 1.0).abs() < 1e-3);
            assert!(dot(vector, first) > 0.999);
        }
        assert!(dot(&vectors[0], &vectors[2]) > 0.999);
        assert!(dot(&vectors[0], &vectors[1]) < 0.999);
        assert!(answer.prompt_tokens > 0);
        assert_eq!(answer.prompt_tokens, answers[0].prompt_tokens);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_answers_with_a_typed_error_both_ways() {
    let mut both = both().await;
    let endless = |engine: &Engine| {
        // Its own end lies beyond the context's.
        engine
            .complete("a")
            .grammar("root ::= text text\ntext ::= [a-z ]{2000}")
            .temperature(1.0)
    };
    let mut streams = Vec::new();
    for engine in [&both.local, &both.remote] {
        let mut events = endless(engine).await.unwrap();
        assert!(matches!(events.next().await, Some(Ok(Event::Content(_)))));
        streams.push(events);
    }
    let node = both.node.clone();
    both.stop.take().unwrap().send(()).unwrap();
    node.shutdown(std::time::Duration::ZERO).await;
    for events in streams {
        match events.reply().await {
            Err(Error::ShuttingDown) => {}
            // A fast machine may reach the end of the context first.
            Ok(reply) => assert_eq!(reply.finish, FinishReason::Length),
            Err(error) => panic!("{error:?}"),
        }
    }
    let refused = both.local.chat(question()).text().await;
    assert_eq!(refused, Err(Error::ShuttingDown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_uses_a_running_node_and_else_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alone.gguf");
    std::fs::write(&path, mesh_llm::STARTER).unwrap();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let nobody = Engine::connect(format!("http://{closed}"));
    let alone = Engine::auto(&path).at(nobody).await.unwrap();
    assert!(!alone.is_remote());
    assert_eq!(alone.models().await.unwrap(), ["alone"]);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let Both { node, .. } = both().await;
    let serving = api::serve(
        listener,
        node,
        api::Config::default(),
        std::future::pending(),
    );
    let server = tokio::spawn(serving);
    let somebody = Engine::connect(format!("http://{address}"));
    let joined = Engine::auto(&path).at(somebody).await.unwrap();
    assert!(joined.is_remote());
    assert_eq!(joined.models().await.unwrap(), ["starter"]);
    server.abort();
}
