//! The management API over real HTTP.

mod access;
mod events;
mod loader;
mod routes;
mod state;
