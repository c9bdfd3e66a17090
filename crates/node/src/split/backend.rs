//! A split model as a backend: the engine knows only the part that is here, so that what the model is
//! comes from the whole.

use std::sync::Arc;
use std::time::Instant;

use engine::{
    Backend, Chat, EmbedRequest, Embeddings, Engine, Error, EventStream, Load, ModelInfo, Request,
    TokenId,
};
use futures::future::BoxFuture;

/// The engine behind its true name.
pub(super) struct SplitBackend {
    engine: Engine,
    info: Arc<ModelInfo>,
}

impl SplitBackend {
    /// `whole`: the model's own header.
    pub(super) fn new(engine: Engine, whole: &gguf::Model) -> Self {
        let mut info = engine.info().as_ref().clone();
        info.parameters = whole.parameter_count();
        info.size_bytes = whole.tensor_bytes().unwrap_or(info.size_bytes);
        info.fingerprint = whole.fingerprint().to_string();
        Self {
            engine,
            info: Arc::new(info),
        }
    }
}

impl Backend for SplitBackend {
    fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    fn load(&self) -> Load {
        Backend::load(&self.engine)
    }

    fn generate(&self, request: Request) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.engine.generate(request)
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        self.engine.embed(request)
    }

    fn tokenize(
        &self,
        text: String,
        add_special: bool,
        parse_special: bool,
    ) -> BoxFuture<'_, Result<Vec<TokenId>, Error>> {
        self.engine.tokenize(text, add_special, parse_special)
    }

    fn token_bytes(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Error>> {
        self.engine.token_bytes(tokens)
    }

    fn render(&self, chat: Chat) -> BoxFuture<'_, Result<String, Error>> {
        self.engine.render(chat)
    }

    fn shutdown(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        self.engine.shutdown(deadline)
    }
}
