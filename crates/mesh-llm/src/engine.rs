//! The handle to models, wherever they run.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use node::Node;

use crate::generation::Input;
use crate::remote::Remote;
use crate::{Embeddings, Error, Generation, Message, Tool};

#[cfg(feature = "solo")]
mod solo;
#[cfg(feature = "solo")]
pub use solo::{Auto, STARTER, STARTER_NAME, Solo};

/// How long a server may stay silent before a request fails. A long prompt on a slow machine
/// takes minutes to its first token.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node may take to answer a probe. On the same machine it does so in about 1 ms, and
/// a closed port refuses at once.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

type Starting = Pin<Box<dyn Future<Output = Result<Engine, Error>> + Send>>;

/// Models in this process or behind a URL. Cheap to clone; clones share the models.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Inner,
    /// Model asked when a request names none.
    pub(crate) model: String,
}

#[derive(Clone)]
pub(crate) enum Inner {
    Local(Node),
    Remote(Arc<Remote>),
}

impl Engine {
    /// Talks to the OpenAI-compatible server at `url`, with or without `/v1`. Await the result;
    /// that fails if nobody answers there.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), mesh_llm::Error> {
    /// use mesh_llm::{Engine, Message};
    ///
    /// let engine = Engine::connect("http://127.0.0.1:9337").await?;
    /// println!("{}", engine.chat([Message::user("Hello")]).text().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect(url: impl Into<String>) -> Connect {
        Connect {
            url: url.into(),
            api_key: None,
            model: None,
            silence_max: SILENCE_MAX,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// Uses the models of a node that runs in this process.
    #[must_use]
    pub fn from_node(node: Node) -> Self {
        Self {
            inner: Inner::Local(node),
            model: String::new(),
        }
    }

    /// The same engine with another default model.
    #[must_use]
    pub fn with_model(mut self, name: impl Into<String>) -> Self {
        self.model = name.into();
        self
    }

    /// Whether requests leave this process.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.inner, Inner::Remote(_))
    }

    /// Names of the models that can be asked.
    ///
    /// # Errors
    /// Only a server can fail to tell.
    pub async fn models(&self) -> Result<Vec<String>, Error> {
        match &self.inner {
            Inner::Local(node) => Ok(node.models().iter().map(|info| info.name.clone()).collect()),
            Inner::Remote(remote) => {
                let models = remote.models().await?;
                Ok(models.into_iter().map(|model| model.id).collect())
            }
        }
    }

    /// Answers a conversation.
    pub fn chat(&self, messages: impl IntoIterator<Item = Message>) -> Generation {
        self.chat_with_tools(messages, [])
    }

    /// Answers a conversation; the answer may call `tools`.
    ///
    /// To go on after a call, add the assistant's message with its `tool_calls` and one
    /// [`Message::tool`] with the result of each call.
    pub fn chat_with_tools(
        &self,
        messages: impl IntoIterator<Item = Message>,
        tools: impl IntoIterator<Item = Tool>,
    ) -> Generation {
        let input = Input::Chat {
            messages: messages.into_iter().collect(),
            tools: tools.into_iter().collect(),
        };
        Generation::new(self.clone(), input)
    }

    /// Continues a text, without a chat template.
    pub fn complete(&self, prompt: impl Into<String>) -> Generation {
        Generation::new(self.clone(), Input::Text(prompt.into()))
    }

    /// Embeds texts with the engine's model. If none was chosen, a node takes the largest that makes
    /// embeddings, another server the first that it lists.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model makes no embeddings.
    pub async fn embed(
        &self,
        texts: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Embeddings, Error> {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        match &self.inner {
            Inner::Local(node) => crate::local::embed(node, self.model.clone(), texts).await,
            Inner::Remote(remote) => remote.embed(&self.model, &texts).await,
        }
    }

    /// Stops models that run in this process: running answers may finish within `grace`. Does
    /// nothing to a server.
    pub async fn shutdown(&self, grace: Duration) {
        if let Inner::Local(node) = &self.inner {
            node.shutdown(grace).await;
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("is_remote", &self.is_remote())
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// A connection while it is being set up; await it for the [`Engine`].
#[derive(Clone)]
#[must_use = "nothing is connected until this is awaited"]
pub struct Connect {
    url: String,
    api_key: Option<String>,
    model: Option<String>,
    silence_max: Duration,
    connect_timeout: Duration,
}

impl Connect {
    /// Key to send as a bearer token.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Model to ask when a request names none. Without it, a node takes the largest that can answer,
    /// another server the first that it lists.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// How long the server may stay silent before a request fails with [`Error::Timeout`].
    pub fn silence_max(mut self, limit: Duration) -> Self {
        self.silence_max = limit;
        self
    }

    /// How long a connection may take to open.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Whether a healthy mesh-llm or llama.cpp server answers at the URL, asked briefly.
    pub async fn answers(&self) -> bool {
        match self.remote() {
            Ok(remote) => remote.is_healthy(PROBE_TIMEOUT).await,
            Err(_) => false,
        }
    }

    fn remote(&self) -> Result<Remote, Error> {
        let key = self.api_key.as_deref();
        Remote::new(&self.url, key, self.connect_timeout, self.silence_max)
    }

    async fn start(self) -> Result<Engine, Error> {
        let remote = self.remote()?;
        let model = match self.model {
            Some(model) => model,
            None => remote.default_model().await?,
        };
        Ok(Engine {
            inner: Inner::Remote(Arc::new(remote)),
            model,
        })
    }
}

impl IntoFuture for Connect {
    type Output = Result<Engine, Error>;
    type IntoFuture = Starting;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
