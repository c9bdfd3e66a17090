//! The management API of a node: its state and how it changes, joining and leaving a mesh,
//! invitations, models. Served on a port of its own, 3131 by default.
//!
//! Owns the wire form of [`node::Snapshot`] and of the requests to a [`node::Node`]. Who may call,
//! error bodies and bounds are those of the inference API.

mod change;
mod events;
mod failure;
mod invite;
mod openapi;
mod orders;
mod request;
mod route;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{delete, get, post};
use node::{ModelSource, Node};
use tokio::sync::Semaphore;

pub use change::{Change, Event};
pub use invite::{Invitation, InvitationPhase, InvitationRequest, Invitations, Invited, Revoked};
pub use openapi::openapi;
pub use request::{JoinRequest, Joined, ModelNamed, ModelRequest};
pub use status::{
    Demand, Host, HostedModel, Link, Liveness, Mesh, Model, ModelPhase, NodeStatus, PathKind, Peer,
    Role, SCHEMA, Split, SplitFirstToken, SplitLoading, SplitPhase, SplitStage, Status, Target,
};

use self::orders::Orders;
use crate::Api;
use crate::router::surround;
use crate::state::App;
use crate::surface::Surface;

/// What the management port offers.
pub(crate) const MANAGEMENT: Surface = Surface {
    routes: &[
        ("GET", "/"),
        ("GET", "/api/status"),
        ("GET", "/api/events"),
        ("POST", "/api/join"),
        ("POST", "/api/leave"),
        ("GET", "/api/invites"),
        ("POST", "/api/invites"),
        ("DELETE", "/api/invites/{id}"),
        ("DELETE", "/api/peers/{id}"),
        ("POST", "/api/models/load"),
        ("POST", "/api/models/drop"),
        ("POST", "/api/chat"),
        ("GET", "/api/openapi.json"),
    ],
    prefix: "/api",
    description: "/api/openapi.json",
    without_key: &[],
    while_stopping: &["/", "/api/status", "/api/events", "/api/openapi.json"],
};

/// Settings of the management API.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who may call, and the bounds; as for the inference API.
    pub server: crate::Config,
    /// URL of the inference API, told to whoever asks for the state.
    pub api_url: Option<String>,
    /// Models inside the program: a request that names one means it, and no file.
    pub embedded: Vec<ModelSource>,
    /// Most streams of events at once. Each holds one copy of the state.
    pub readers_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: crate::Config::default(),
            api_url: None,
            embedded: Vec::new(),
            // Some windows of a console and some scripts.
            readers_max: 32,
        }
    }
}

/// What the handlers of the management API share.
#[derive(Clone)]
struct Desk {
    app: Arc<App>,
    config: Arc<Config>,
    orders: Arc<Orders>,
    /// Places for streams of events.
    readers: Arc<Semaphore>,
}

impl FromRef<Desk> for Arc<App> {
    fn from_ref(desk: &Desk) -> Self {
        Arc::clone(&desk.app)
    }
}

impl Desk {
    fn status(&self) -> Status {
        Status::of(&self.app.node.snapshot(), self.config.api_url.as_deref())
    }
}

/// The routes with everything around them. Must be called in a runtime.
pub(crate) fn build(app: Arc<App>, config: Config) -> Router {
    let desk = Desk {
        orders: Arc::new(Orders::start(app.node.clone())),
        readers: Arc::new(Semaphore::new(config.readers_max)),
        config: Arc::new(config),
        app: Arc::clone(&app),
    };
    let routes = Router::new()
        .route("/", get(route::front))
        .route("/api/status", get(route::status))
        .route("/api/events", get(events::events))
        .route("/api/join", post(route::join))
        .route("/api/leave", post(route::leave))
        .route("/api/invites", get(route::invites).post(route::invite))
        .route("/api/invites/{id}", delete(route::revoke))
        .route("/api/peers/{id}", delete(route::expel))
        .route("/api/models/load", post(route::load))
        .route("/api/models/drop", post(route::drop))
        .route("/api/chat", post(route::chat))
        .route("/api/openapi.json", get(route::description));
    surround(routes, desk, &app)
}

/// The management API as a router, for embedding into another server; see [`crate::router`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn router(node: Node, config: Config) -> Router {
    let app = Api::new(node).app(config.server.clone(), &MANAGEMENT);
    build(app, config)
}
