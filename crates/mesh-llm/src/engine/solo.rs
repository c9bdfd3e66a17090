//! Engines that run a model in this process.

use std::future::IntoFuture;
use std::path::PathBuf;

use node::{Draft, ModelSource, Node, Settings, name_of};

use super::{Connect, Engine, Starting};
use crate::Error;

/// The model inside the library: it explains mesh-llm, and needs no file and no network.
pub const STARTER: &[u8] = include_bytes!("../../../../assets/starter.gguf");
/// Name under which [`STARTER`] is served.
pub const STARTER_NAME: &str = "starter";

/// Where a running node is looked for.
const NODE_URL: &str = "http://127.0.0.1:9337";

impl Engine {
    /// Loads the GGUF file at `path` into this process. Await the result.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), mesh_llm::Error> {
    /// use mesh_llm::{Engine, Message};
    ///
    /// let engine = Engine::solo("Qwen3-4B-Q4_K_M.gguf").context_tokens(8192).await?;
    /// println!("{}", engine.chat([Message::user("Hello")]).text().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn solo(path: impl Into<PathBuf>) -> Solo {
        Solo::new(ModelSource::Path(path.into()))
    }

    /// Loads the model inside the library, see [`STARTER`]. Await the result.
    pub fn starter() -> Solo {
        Solo::new(ModelSource::Embedded {
            name: STARTER_NAME.to_owned(),
            bytes: STARTER,
        })
    }

    /// Uses the node that runs on this machine, if one does; otherwise loads the GGUF file at
    /// `path` like [`Engine::solo`]. Await the result.
    ///
    /// A running node is asked for the file's model if it serves that, otherwise for its
    /// default; [`Engine::is_remote`] tells which way it went.
    pub fn auto(path: impl Into<PathBuf>) -> Auto {
        Auto {
            solo: Self::solo(path),
            connect: Self::connect(NODE_URL),
        }
    }
}

/// A model about to be loaded; await it for the [`Engine`].
#[derive(Debug, Clone)]
#[must_use = "nothing is loaded until this is awaited"]
pub struct Solo {
    settings: Settings,
}

impl Solo {
    fn new(model: ModelSource) -> Self {
        Self {
            settings: Settings {
                models: vec![model],
                ..Settings::default()
            },
        }
    }

    /// Tokens that all running requests share, and the most that one can hold.
    pub fn context_tokens(mut self, tokens: u32) -> Self {
        self.settings.context_tokens = Some(tokens);
        self
    }

    /// Requests that run at the same time.
    pub fn slots(mut self, slots: u32) -> Self {
        self.settings.slots = Some(slots);
        self
    }

    /// Layers to keep on the GPU.
    pub fn gpu_layers(mut self, layers: u32) -> Self {
        self.settings.gpu_layers = Some(layers);
        self
    }

    /// Device to run on, by llama.cpp's name.
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.settings.device = Some(device.into());
        self
    }

    /// Threads that compute.
    pub fn threads(mut self, threads: u32) -> Self {
        self.settings.threads = Some(threads);
        self
    }

    /// A smaller model with the same vocabulary that drafts tokens for this one to check.
    pub fn draft(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.draft = Draft::Model(ModelSource::Path(path.into()));
        self
    }

    /// No speculation, not even by prompt lookup.
    pub fn no_draft(mut self) -> Self {
        self.settings.draft = Draft::None;
        self
    }

    async fn start(self) -> Result<Engine, Error> {
        let node = Node::start(self.settings).await?;
        node.ready().await?;
        Ok(Engine::from_node(node))
    }
}

impl IntoFuture for Solo {
    type Output = Result<Engine, Error>;
    type IntoFuture = Starting;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// See [`Engine::auto`]; await it for the [`Engine`].
#[derive(Clone)]
#[must_use = "nothing happens until this is awaited"]
pub struct Auto {
    solo: Solo,
    connect: Connect,
}

impl Auto {
    /// Looks for a node there, instead of on port 9337 of this machine.
    pub fn at(mut self, connect: Connect) -> Self {
        self.connect = connect;
        self
    }

    async fn start(self) -> Result<Engine, Error> {
        if !self.connect.answers().await {
            return self.solo.start().await;
        }
        let engine = self.connect.await?;
        let wanted = match self.solo.settings.models.first() {
            Some(ModelSource::Path(path)) => name_of(path),
            _ => String::new(),
        };
        let served = engine.models().await?;
        if served.iter().any(|name| name.eq_ignore_ascii_case(&wanted)) {
            return Ok(engine.with_model(wanted));
        }
        tracing::info!(%wanted, "the running node does not serve this model, its default is used");
        Ok(engine)
    }
}

impl IntoFuture for Auto {
    type Output = Result<Engine, Error>;
    type IntoFuture = Starting;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
