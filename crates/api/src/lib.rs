//! The HTTP APIs of a node: OpenAI's dialect for inference, and the management of the node itself.
//!
//! Owns the dialect: wire types, the conversion to the engine's [`engine::Request`], the rendering
//! of its events as JSON or server-sent events, and the server around it (who may call, bounds,
//! deadlines, orderly stop). Decides nothing about models or the mesh: it asks a [`node::Node`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod body;
mod config;
mod convert;
mod error;
mod generation;
mod guard;
pub mod management;
mod metrics;
pub mod openai;
mod openapi;
mod render;
mod route;
mod router;
mod server;
mod state;
mod surface;

use std::io;
use std::sync::Arc;

use node::Node;
use tokio::net::TcpListener;

pub use config::Config;
pub use openapi::openapi;

use crate::metrics::Metrics;
use crate::state::App;

/// The APIs of one node. Its servers share the figures that `/metrics` shows. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    node: Node,
    metrics: Arc<Metrics>,
}

impl Api {
    /// The APIs of `node`.
    #[must_use]
    pub fn new(node: Node) -> Self {
        let metrics = Arc::new(Metrics::new(node.clone()));
        Self { node, metrics }
    }

    /// Serves inference on `listener` until `shutdown` resolves and the answers under way are out.
    ///
    /// After `shutdown` no connection is accepted, and requests on open ones get a 503. How long
    /// running answers may take is the caller's decision: [`Node::shutdown`] ends them. Dropping
    /// the future closes everything at once.
    ///
    /// # Errors
    /// When the listener has no address, or is reachable from other machines while no API key is
    /// set.
    pub async fn serve(
        &self,
        listener: TcpListener,
        config: Config,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let app = self.app(config, &router::INFERENCE);
        server::serve(listener, Arc::clone(&app), router::build(app), shutdown).await
    }

    /// Serves the management of the node on `listener`, in the same way as [`Api::serve`].
    ///
    /// # Errors
    /// As [`Api::serve`].
    pub async fn serve_management(
        &self,
        listener: TcpListener,
        config: management::Config,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let app = self.app(config.server.clone(), &management::MANAGEMENT);
        let router = management::build(Arc::clone(&app), config);
        server::serve(listener, app, router, shutdown).await
    }

    fn app(&self, config: Config, surface: &'static surface::Surface) -> Arc<App> {
        let metrics = Arc::clone(&self.metrics);
        App::new(self.node.clone(), metrics, config, surface)
    }
}

/// Serves `node`'s inference alone; see [`Api::serve`].
///
/// # Errors
/// As [`Api::serve`].
pub async fn serve(
    listener: TcpListener,
    node: Node,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    Api::new(node).serve(listener, config, shutdown).await
}

/// The inference API as a router, for embedding into another server.
///
/// Deadlines for slow peers, the bound on connections and the orderly stop belong to [`serve`].
pub fn router(node: Node, config: Config) -> axum::Router {
    router::build(Api::new(node).app(config, &router::INFERENCE))
}
