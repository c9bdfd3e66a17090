//! The OpenAPI description of the management API, made from the handlers and the wire types.

use utoipa::OpenApi;

use super::{events, route};
use crate::openapi::Key;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mesh-llm management",
        description = "State and control of one node and its place in a mesh.",
    ),
    paths(
        route::front,
        route::status,
        events::events,
        route::join,
        route::leave,
        route::invites,
        route::invite,
        route::revoke,
        route::expel,
        route::load,
        route::drop,
        route::chat,
        route::description,
    ),
    components(schemas(crate::openai::chat::ChatChunk)),
    security((), ("api_key" = [])),
    modifiers(&Key),
    tags(
        (name = "state", description = "What the node knows"),
        (name = "mesh", description = "Membership and invitations"),
        (name = "models", description = "What the node serves"),
        (name = "chat", description = "Text from models"),
    )
)]
struct Description;

/// The OpenAPI description of the management API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
