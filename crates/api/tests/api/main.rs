//! The API over real HTTP, on models that are scripts: no weights, no luck, no waiting.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod access;
mod chat;
mod clients;
mod completion;
mod connection;
mod embedding;
mod house;
mod management;
mod request;
mod script;
mod server;
mod shutdown;
#[cfg(feature = "solo")]
mod solo;
mod status;
mod token;
