//! An engine whose answers are known: token `i` is the text `i `, and each waits for a permit.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use engine::{
    Backend, Chat, Delta, EmbedRequest, Embeddings, Error, Event, EventStream, FinishReason, Load,
    ModelInfo, Request, Summary, TokenId,
};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::sync::Semaphore;

/// The engine.
pub(crate) struct Script {
    info: Arc<ModelInfo>,
    /// One is taken for each token.
    pub(crate) permits: Arc<Semaphore>,
    /// What was asked for.
    pub(crate) asked: Mutex<Vec<Request>>,
    /// Answers that run.
    pub(crate) running: Arc<AtomicU32>,
    /// What to refuse requests with.
    pub(crate) refuses: Mutex<Option<Error>>,
}

/// Tokens of an answer unless the request limits them.
const TOKENS: u32 = 20;

impl Script {
    /// An engine that answers at once.
    pub(crate) fn new(name: &str, size_bytes: u64) -> Arc<Self> {
        Self::with(name, size_bytes, Semaphore::MAX_PERMITS)
    }

    /// An engine that gives so many tokens before it waits for more permits.
    pub(crate) fn with(name: &str, size_bytes: u64, permits: usize) -> Arc<Self> {
        let info = ModelInfo {
            name: name.into(),
            architecture: "qwen3".into(),
            quantization: "Q8_0".into(),
            parameters: 7,
            size_bytes,
            context_tokens: 4096,
            trained_context_tokens: 4096,
            embedding_width: 2,
            vocabulary_tokens: 1000,
            slots: 4,
            generates: !name.starts_with("embed"),
            embeds: name.starts_with("embed"),
            tools: true,
            reasoning: false,
            created_unix_s: 1,
            fingerprint: format!("{:0>64}", name.len()),
        };
        Self::of(info, permits)
    }

    /// The same that says this of itself.
    pub(crate) fn of(info: ModelInfo, permits: usize) -> Arc<Self> {
        Arc::new(Self {
            info: Arc::new(info),
            permits: Arc::new(Semaphore::new(permits)),
            asked: Mutex::default(),
            running: Arc::default(),
            refuses: Mutex::default(),
        })
    }

    pub(crate) fn running(&self) -> u32 {
        self.running.load(Ordering::SeqCst)
    }
}

/// Counts a running answer until dropped.
struct Runs(Arc<AtomicU32>);

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn token(choice: u32, index: u32) -> Event {
    Event::Delta {
        choice,
        delta: Delta {
            content: format!("{index} "),
            tokens: vec![index as TokenId],
            ..Delta::default()
        },
    }
}

impl Backend for Script {
    fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    fn load(&self) -> Load {
        Load {
            running: self.running(),
            ..Load::default()
        }
    }

    fn generate(&self, request: Request) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.asked.lock().unwrap().push(request.clone());
        if let Some(error) = self.refuses.lock().unwrap().clone() {
            return ready(Err(error)).boxed();
        }
        self.running.fetch_add(1, Ordering::SeqCst);
        let runs = Runs(Arc::clone(&self.running));
        let permits = Arc::clone(&self.permits);
        let events: EventStream = Box::pin(async_stream::stream! {
            let _runs = runs;
            yield Ok(Event::Started { prompt_tokens: 3, cached_tokens: 0 });
            let total = request.limits.max_tokens.unwrap_or(TOKENS);
            for choice in 0..request.n {
                let resumed = request.resume.get(choice as usize).cloned().unwrap_or_default();
                if resumed.finished {
                    continue;
                }
                for index in 0..total {
                    if index as usize >= resumed.tokens.len() {
                        permits.acquire().await.unwrap().forget();
                    }
                    yield Ok(token(choice, index));
                }
                yield Ok(Event::Finished { choice, reason: FinishReason::Length });
            }
            yield Ok(Event::Done(Summary::default()));
        });
        ready(Ok(events)).boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        ready(Ok(Embeddings {
            vectors: vec![vec![1.0, 0.0]; request.inputs.len()],
            prompt_tokens: 2,
        }))
        .boxed()
    }

    fn tokenize(
        &self,
        text: String,
        _: bool,
        _: bool,
    ) -> BoxFuture<'_, Result<Vec<TokenId>, Error>> {
        ready(Ok(text.bytes().map(TokenId::from).collect())).boxed()
    }

    fn token_bytes(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Error>> {
        ready(Ok(tokens.iter().map(|token| vec![*token as u8]).collect())).boxed()
    }

    fn render(&self, chat: Chat) -> BoxFuture<'_, Result<String, Error>> {
        ready(Ok(format!("{} messages", chat.messages.len()))).boxed()
    }

    /// As the real one: waits for running answers until the deadline.
    fn shutdown(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        async move {
            while self.running() > 0 && Instant::now() < deadline {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        .boxed()
    }
}
