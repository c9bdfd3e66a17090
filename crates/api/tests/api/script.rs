//! Models that follow a script.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use engine::{
    Backend, Chat, Delta, EmbedRequest, Embeddings, Error, Event, EventStream, FinishReason, Load,
    ModelInfo, Request, Summary, Timings, TokenId, Usage,
};
use futures::future::{BoxFuture, ready};
use futures::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, watch};

/// One step of an answer.
pub(crate) enum Step {
    Say(Result<Event, Error>),
    /// Goes on when the semaphore gives a permit.
    Wait(Arc<Semaphore>),
    /// Never goes on.
    Hang,
}

/// What a model answers to a request.
pub(crate) type Script = dyn Fn(&Request) -> Result<Vec<Step>, Error> + Send + Sync;

/// A model whose answers follow a script; its vocabulary is the 256 bytes.
pub(crate) struct Scripted {
    info: Arc<ModelInfo>,
    script: Box<Script>,
    /// Requests that came, oldest first.
    pub(crate) seen: Mutex<Vec<Request>>,
    /// Streams that are not dropped yet.
    pub(crate) live: watch::Sender<usize>,
}

impl Scripted {
    pub(crate) fn new(
        script: impl Fn(&Request) -> Result<Vec<Step>, Error> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::with_info(info("scripted"), script)
    }

    pub(crate) fn with_info(
        info: ModelInfo,
        script: impl Fn(&Request) -> Result<Vec<Step>, Error> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            info: Arc::new(info),
            script: Box::new(script),
            seen: Mutex::default(),
            live: watch::Sender::new(0),
        })
    }

    /// Waits until `count` streams live.
    pub(crate) async fn until_live(&self, count: usize) {
        let mut live = self.live.subscribe();
        live.wait_for(|&live| live == count).await.unwrap();
    }

    /// The only request that came.
    pub(crate) fn only_request(&self) -> Request {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }
}

pub(crate) fn info(name: &str) -> ModelInfo {
    ModelInfo {
        name: name.to_owned(),
        architecture: "script".to_owned(),
        quantization: "none".to_owned(),
        parameters: 1,
        size_bytes: 4,
        context_tokens: 512,
        trained_context_tokens: 1024,
        embedding_width: 4,
        vocabulary_tokens: 256,
        slots: 4,
        generates: true,
        embeds: false,
        tools: true,
        reasoning: true,
        created_unix_s: 1_700_000_000,
        fingerprint: "0123456789abcdef".to_owned(),
    }
}

/// A model that embeds: the vector counts the inputs' bytes.
pub(crate) fn embedder() -> Arc<Scripted> {
    let info = ModelInfo {
        generates: false,
        embeds: true,
        ..info("embedder")
    };
    Scripted::with_info(info, |_| Err(Error::Unsupported("no text".to_owned())))
}

/// Steps that say `words` in choice 0 and end with `stop`.
pub(crate) fn say(words: &[&str]) -> Vec<Step> {
    let mut steps = vec![started()];
    steps.extend(words.iter().map(|word| text(0, word)));
    steps.push(finished(0, FinishReason::Stop));
    steps.push(done(u32::try_from(words.len()).unwrap()));
    steps
}

pub(crate) fn started() -> Step {
    Step::Say(Ok(Event::Started {
        prompt_tokens: 7,
        cached_tokens: 3,
    }))
}

pub(crate) fn text(choice: u32, text: &str) -> Step {
    delta(
        choice,
        Delta {
            content: text.to_owned(),
            tokens: vec![65],
            ..Delta::default()
        },
    )
}

pub(crate) fn delta(choice: u32, delta: Delta) -> Step {
    Step::Say(Ok(Event::Delta { choice, delta }))
}

pub(crate) fn finished(choice: u32, reason: FinishReason) -> Step {
    Step::Say(Ok(Event::Finished { choice, reason }))
}

pub(crate) fn done(completion_tokens: u32) -> Step {
    Step::Say(Ok(Event::Done(Summary {
        usage: Usage {
            prompt_tokens: 7,
            cached_tokens: 3,
            completion_tokens,
            reasoning_tokens: 1,
            drafted_tokens: 6,
            accepted_tokens: 5,
        },
        timings: Timings {
            queue_ms: 1.0,
            prompt_ms: 2.0,
            decode_ms: 4.0,
        },
    })))
}

/// Counts a stream as live until dropped.
struct Live(watch::Sender<usize>);

impl Live {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Backend for Scripted {
    fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    fn load(&self) -> Load {
        Load {
            running: u32::try_from(*self.live.borrow()).unwrap(),
            kv_total_tokens: 2048,
            prompt_tokens_total: 70,
            cached_tokens_total: 30,
            drafted_tokens_total: 6,
            accepted_tokens_total: 5,
            ..Load::default()
        }
    }

    fn generate(&self, request: Request) -> BoxFuture<'_, Result<EventStream, Error>> {
        let steps = (self.script)(&request);
        self.seen.lock().unwrap().push(request);
        let live = Live::new(&self.live);
        async move {
            let steps = steps?;
            let stream = futures::stream::iter(steps).filter_map(|step| async {
                match step {
                    Step::Say(event) => Some(event),
                    Step::Wait(gate) => {
                        gate.acquire().await.unwrap().forget();
                        None
                    }
                    Step::Hang => std::future::pending().await,
                }
            });
            let stream = stream.map(move |event| {
                let _ = &live;
                event
            });
            Ok(stream.boxed() as EventStream)
        }
        .boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        let count = u32::try_from(request.inputs.len()).unwrap();
        async move {
            Ok(Embeddings {
                vectors: vec![vec![0.5, -0.5, 0.5, -0.5]; request.inputs.len()],
                prompt_tokens: count * 2,
            })
        }
        .boxed()
    }

    fn tokenize(
        &self,
        text: String,
        add_special: bool,
        _: bool,
    ) -> BoxFuture<'_, Result<Vec<TokenId>, Error>> {
        let start = add_special.then_some(1);
        let tokens = start
            .into_iter()
            .chain(text.bytes().map(TokenId::from))
            .collect();
        ready(Ok(tokens)).boxed()
    }

    fn token_bytes(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Error>> {
        let bytes = tokens
            .iter()
            .map(|&token| vec![u8::try_from(token).unwrap()])
            .collect();
        ready(Ok(bytes)).boxed()
    }

    fn render(&self, chat: Chat) -> BoxFuture<'_, Result<String, Error>> {
        let texts: Vec<_> = chat.messages.iter().map(|m| m.content.as_str()).collect();
        ready(Ok(texts.join("|"))).boxed()
    }

    fn shutdown(&self, _: Instant) -> BoxFuture<'_, ()> {
        let mut live = self.live.subscribe();
        async move {
            live.wait_for(|&live| live == 0).await.unwrap();
        }
        .boxed()
    }
}
