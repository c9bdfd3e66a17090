//! The OpenAI-compatible HTTP API of a node.
//!
//! Owns the dialect: wire types, the conversion to the engine's [`engine::Request`], the rendering
//! of its events as JSON or server-sent events, and the server around it (who may call, bounds,
//! deadlines, orderly stop). Decides nothing about models: it asks a [`node::Node`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod body;
mod config;
mod convert;
mod error;
mod generation;
mod guard;
mod metrics;
pub mod openai;
mod openapi;
mod render;
mod route;
mod router;
mod server;
mod state;

pub use config::Config;
pub use openapi::openapi;
pub use server::serve;

/// The API as a router, for embedding into another server.
///
/// Deadlines for slow peers, the bound on connections and the orderly stop belong to [`serve`].
pub fn router(node: node::Node, config: Config) -> axum::Router {
    router::build(state::App::new(node, config))
}
