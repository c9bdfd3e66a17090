//! What a loaded model offers. Long texts are read on blocking threads, so that nobody's connection waits for
//! somebody else's text.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::decode::Command;
use super::{BLOCKING_TEXT_BYTES, Engine, Inner, chat_bytes};
use crate::{
    Backend, Chat, EmbedInput, EmbedRequest, Embeddings, Error, EventStream, Load, ModelInfo,
    Request, TokenId,
};

impl Backend for Engine {
    fn info(&self) -> &Arc<ModelInfo> {
        &self.inner.info
    }

    fn load(&self) -> Load {
        self.inner.shared.load()
    }

    fn generate(&self, request: Request) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.start(request).boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        async move {
            let Some(embedder) = &self.inner.embedder else {
                return Err(Error::Unsupported(format!(
                    "`{}` is no embedding model; hint: start one with --model",
                    self.inner.info.name
                )));
            };
            if self.inner.shared.closed.load(Relaxed) {
                return Err(Error::ShuttingDown);
            }
            let engine = self.clone();
            let tokenize = move || -> Result<Vec<Vec<TokenId>>, Error> {
                let vocabulary = engine.inner.model.vocabulary();
                let tokens = |(index, input)| match input {
                    EmbedInput::Text(text) => vocabulary
                        .tokenize(&text, true, true)
                        .map_err(|e| Error::invalid(format!("input[{index}]"), e.to_string())),
                    EmbedInput::Tokens(tokens) => {
                        match tokens.iter().find(|t| !vocabulary.contains(**t)) {
                            Some(t) => Err(Error::invalid(
                                format!("input[{index}]"),
                                format!("{t} is no token of the model"),
                            )),
                            None => Ok(tokens),
                        }
                    }
                };
                request.inputs.into_iter().enumerate().map(tokens).collect()
            };
            let inputs = tokio::task::spawn_blocking(tokenize)
                .await
                .map_err(|e| Error::Inference(format!("tokenising failed: {e}")))??;
            embedder.embed(inputs).await
        }
        .boxed()
    }

    fn tokenize(
        &self,
        text: String,
        add_special: bool,
        parse_special: bool,
    ) -> BoxFuture<'_, Result<Vec<TokenId>, Error>> {
        let engine = self.clone();
        by_size(text.len(), move || {
            let vocabulary = engine.inner.model.vocabulary();
            let tokens = vocabulary.tokenize(&text, add_special, parse_special);
            tokens.map_err(|e| Error::invalid("content", e.to_string()))
        })
    }

    fn token_bytes(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Error>> {
        let engine = self.clone();
        // A token is about as much work as a byte is when it is tokenised.
        by_size(tokens.len(), move || {
            let vocabulary = engine.inner.model.vocabulary();
            let bytes = |(index, token): (usize, TokenId)| {
                if !vocabulary.contains(token) {
                    let field = format!("tokens[{index}]");
                    return Err(Error::invalid(
                        field,
                        format!("{token} is no token of the model"),
                    ));
                }
                Ok(vocabulary.token_bytes(token, true))
            };
            tokens.into_iter().enumerate().map(bytes).collect()
        })
    }

    fn render(&self, chat: Chat) -> BoxFuture<'_, Result<String, Error>> {
        let engine = self.clone();
        by_size(chat_bytes(&chat), move || engine.inner.format.render(&chat))
    }

    fn shutdown(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        let engine = self.clone();
        async move {
            engine.inner.shared.closed.store(true, Relaxed);
            // A panic has been told already.
            let _ = tokio::task::spawn_blocking(move || engine.inner.end(deadline)).await;
        }
        .boxed()
    }
}

impl Inner {
    /// Waits for the model's thread, until the deadline and a step or batch longer at most. Blocks.
    fn end(&self, deadline: Instant) {
        if let Some(embedder) = &self.embedder {
            embedder.shutdown(deadline);
        }
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // Waits while the channel is full; the thread empties it.
            let _ = self.commands.send(Command::Shutdown { deadline });
            let _ = thread.join();
        }
    }
}

/// Does `work` where it is asked for, or on a blocking thread if there is much to read.
fn by_size<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> BoxFuture<'static, Result<T, Error>> {
    async move {
        if bytes < BLOCKING_TEXT_BYTES {
            return work();
        }
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|e| Err(Error::Inference(format!("a long text failed: {e}"))))
    }
    .boxed()
}
