//! One handler per route: parse, ask the node, answer.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mesh::NodeId;
use mesh::admission::TicketId;
use mesh::ticket::Ticket;
use node::{MeshRequestError, ModelSource};

use super::invite::{Invitation, InvitationRequest, Invitations, Invited, Revoked, now_unix_ms};
use super::request::{JoinRequest, Joined, ModelNamed, ModelRequest};
use super::status::Status;
use super::{Desk, failure};
use crate::body::Json;
use crate::error::ApiError;
use crate::openai::chat::{ChatCompletion, ChatRequest};
use crate::openai::error::ErrorBody;
use crate::openai::sampling::StreamEvent;
use crate::state::App;

/// Longest name or path of a model, bytes: what file systems allow.
const MODEL_BYTES_MAX: usize = 4096;

const FRONT: &str = "\
mesh-llm: management API

GET /api/status          state of this node and its mesh
GET /api/events          the same, then its changes, as server-sent events
GET /api/openapi.json    all routes

In a terminal: mesh-llm status --watch
";

/// What this port is
#[utoipa::path(
    get,
    path = "/",
    tag = "state",
    responses((status = 200, description = "Where to go", body = String, content_type = "text/plain"))
)]
pub(super) async fn front() -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(header::CONTENT_TYPE, plain)], FRONT).into_response()
}

/// The state of this node and its mesh
#[utoipa::path(
    get,
    path = "/api/status",
    tag = "state",
    responses((status = 200, description = "The state at this moment", body = Status))
)]
pub(super) async fn status(State(desk): State<Desk>) -> axum::Json<Status> {
    axum::Json(desk.status())
}

/// Join a mesh
///
/// Returns once a member has admitted this node. It leaves the mesh that it was in, and comes back
/// to that if it is not admitted.
#[utoipa::path(
    post,
    path = "/api/join",
    tag = "mesh",
    request_body = JoinRequest,
    responses(
        (status = 200, description = "The node is a member", body = Joined),
        (status = 400, description = "That is no ticket", body = ErrorBody),
        (status = 403, description = "The ticket does not admit this node", body = ErrorBody),
        (status = 502, description = "No member can be reached", body = ErrorBody),
    )
)]
pub(super) async fn join(
    State(desk): State<Desk>,
    Json(wire): Json<JoinRequest>,
) -> Result<axum::Json<Joined>, ApiError> {
    let ticket: Ticket = parsed("ticket", &wire.ticket)?;
    let mesh = desk.orders.join(ticket).await?;
    Ok(axum::Json(Joined {
        mesh_id: mesh.to_string(),
    }))
}

/// Leave the mesh
///
/// The others are told. Models of this node go on for requests that come in here.
#[utoipa::path(
    post,
    path = "/api/leave",
    tag = "mesh",
    responses(
        (status = 204, description = "The node is in no mesh"),
        (status = 409, description = "It was in none", body = ErrorBody),
    )
)]
pub(super) async fn leave(State(desk): State<Desk>) -> Result<StatusCode, ApiError> {
    desk.orders.leave().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the tickets that this node made
#[utoipa::path(
    get,
    path = "/api/invites",
    tag = "mesh",
    responses(
        (status = 200, description = "The tickets, the newest first", body = Invitations),
        (status = 409, description = "The node is in no mesh", body = ErrorBody),
    )
)]
pub(super) async fn invites(
    State(app): State<Arc<App>>,
) -> Result<axum::Json<Invitations>, ApiError> {
    let list = app.node.invites().await.map_err(failure::of_mesh)?;
    let now = now_unix_ms();
    let invites = list.iter().map(|state| Invitation::of(state, now));
    Ok(axum::Json(Invitations {
        invites: invites.collect(),
    }))
}

/// Make a ticket
///
/// With relays this takes some seconds if none answers.
#[utoipa::path(
    post,
    path = "/api/invites",
    tag = "mesh",
    request_body = InvitationRequest,
    responses(
        (status = 201, description = "The ticket", body = Invited),
        (status = 400, description = "A value can't be used", body = ErrorBody),
        (status = 403, description = "This node may not invite", body = ErrorBody),
        (status = 409, description = "The node is in no mesh", body = ErrorBody),
    )
)]
pub(super) async fn invite(
    State(app): State<Arc<App>>,
    Json(wire): Json<InvitationRequest>,
) -> Result<(StatusCode, axum::Json<Invited>), ApiError> {
    let ticket = app.node.invite(wire.invite()?).await;
    let ticket = ticket.map_err(failure::of_mesh)?;
    Ok((StatusCode::CREATED, axum::Json(Invited::from(&ticket))))
}

/// Take a ticket back
///
/// Nodes that came by it lose their membership. Tickets that this node made long ago may be missing
/// in its list; they are taken back all the same.
#[utoipa::path(
    delete,
    path = "/api/invites/{id}",
    tag = "mesh",
    params(("id" = String, Path, description = "Id of the ticket, 16 hexadecimal digits")),
    responses(
        (status = 200, description = "It admits nobody any more", body = Revoked),
        (status = 400, description = "That is no id", body = ErrorBody),
        (status = 403, description = "This node may not revoke", body = ErrorBody),
        (status = 409, description = "The node is in no mesh", body = ErrorBody),
    )
)]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<axum::Json<Revoked>, ApiError> {
    let id: TicketId = parsed("id", &id)?;
    revoked(id, app.node.revoke(id).await)
}

/// Expel a node
///
/// It loses its membership, and so do those that it admitted; new tickets do not bring it back. The
/// originator of the mesh may expel anybody, other nodes whom they admitted, and whom those did.
#[utoipa::path(
    delete,
    path = "/api/peers/{id}",
    tag = "mesh",
    params(("id" = String, Path, description = "Id of the node, 64 hexadecimal digits")),
    responses(
        (status = 200, description = "It is no member any more", body = Revoked),
        (status = 400, description = "That is no id", body = ErrorBody),
        (status = 403, description = "This node may not expel that one", body = ErrorBody),
        (status = 409, description = "The node is in no mesh, or nobody can expel that one", body = ErrorBody),
    )
)]
pub(super) async fn expel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<axum::Json<Revoked>, ApiError> {
    let id: NodeId = parsed("id", &id)?;
    revoked(id, app.node.expel(id).await)
}

/// The value of a parameter that is given as text.
fn parsed<T>(param: &str, text: &str) -> Result<T, ApiError>
where
    T: FromStr<Err: Display>,
{
    text.parse()
        .map_err(|error| ApiError::invalid(param, format!("{param}: {error}")))
}

/// The answer once a ticket or a node was taken back, or was not.
fn revoked(
    id: impl Display,
    known: Result<bool, MeshRequestError>,
) -> Result<axum::Json<Revoked>, ApiError> {
    let known = known.map_err(failure::of_mesh)?;
    let id = id.to_string();
    Ok(axum::Json(Revoked { id, known }))
}

/// Load a model
///
/// Returns once it has begun; `/api/events` tells how it goes on. A model that is there already
/// is left alone.
#[utoipa::path(
    post,
    path = "/api/models/load",
    tag = "models",
    request_body = ModelRequest,
    responses(
        (status = 202, description = "It is being loaded", body = ModelNamed),
        (status = 400, description = "It can't be read", body = ErrorBody),
        (status = 404, description = "There is no such model on this machine", body = ErrorBody),
        (status = 409, description = "It does not fit", body = ErrorBody),
    )
)]
pub(super) async fn load(
    State(desk): State<Desk>,
    Json(wire): Json<ModelRequest>,
) -> Result<(StatusCode, axum::Json<ModelNamed>), ApiError> {
    let source = source(&wire.model, &desk.config.embedded)?;
    let loaded = desk.app.node.load_model(source).await;
    let model = loaded.map_err(|error| failure::of_start(&error))?;
    Ok((StatusCode::ACCEPTED, axum::Json(ModelNamed { model })))
}

/// Drop a model
///
/// It takes no new requests at once; its memory is free once running answers have ended.
#[utoipa::path(
    post,
    path = "/api/models/drop",
    tag = "models",
    request_body = ModelRequest,
    responses(
        (status = 202, description = "It is being dropped", body = ModelNamed),
        (status = 404, description = "This node does not serve it", body = ErrorBody),
    )
)]
pub(super) async fn drop(
    State(app): State<Arc<App>>,
    Json(wire): Json<ModelRequest>,
) -> Result<(StatusCode, axum::Json<ModelNamed>), ApiError> {
    check_model(&wire.model)?;
    let dropped = app.node.drop_model(&wire.model).await;
    dropped.map_err(|error| failure::of_drop(&error))?;
    Ok((
        StatusCode::ACCEPTED,
        axum::Json(ModelNamed { model: wire.model }),
    ))
}

fn source(model: &str, embedded: &[ModelSource]) -> Result<ModelSource, ApiError> {
    check_model(model)?;
    let inside = embedded.iter().find(|source| match source {
        ModelSource::Embedded { name, .. } => name.eq_ignore_ascii_case(model),
        ModelSource::Named(_) | ModelSource::Path(_) => false,
    });
    Ok(match inside {
        Some(source) => source.clone(),
        None => ModelSource::parse(model),
    })
}

fn check_model(model: &str) -> Result<(), ApiError> {
    let wrong = |reason: &str| {
        let hint = "name a model that `mesh-llm models` lists";
        Err(ApiError::invalid(
            "model",
            format!("model: {reason}; hint: {hint}"),
        ))
    };
    if model.trim().is_empty() {
        return wrong("it is empty");
    }
    if model.len() > MODEL_BYTES_MAX {
        return wrong("it is too long");
    }
    if model.contains('\0') {
        return wrong("no name has a NUL in it");
    }
    Ok(())
}

/// Answer a conversation
///
/// Takes and answers what `/v1/chat/completions` of the inference API does.
#[utoipa::path(
    post,
    path = "/api/chat",
    tag = "chat",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer", content(
            (ChatCompletion = "application/json"),
            (StreamEvent = "text/event-stream"),
        )),
        crate::route::Failures,
    )
)]
pub(super) async fn chat(
    app: State<Arc<App>>,
    wire: Json<ChatRequest>,
) -> Result<Response, ApiError> {
    crate::route::chat::chat(app, wire).await
}

/// This description
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "state",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn description() -> Result<Response, ApiError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    crate::route::status::described(&TEXT, super::openapi)
}
