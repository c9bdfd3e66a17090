//! The OpenAPI description of the management API, made from the handlers and the wire types.

use std::collections::btree_map::Entry;

use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::Response;
use utoipa::{IntoResponses, Modify, OpenApi};

use super::{MANAGEMENT, events, route};
use crate::openai::error::ErrorBody;
use crate::openapi::Key;
use crate::route::{BodyRefusals, Refusals};

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
    modifiers(&Key, &Refused),
    tags(
        (name = "state", description = "What the node knows"),
        (name = "mesh", description = "Membership and invitations"),
        (name = "models", description = "What the node serves"),
        (name = "chat", description = "Text from models"),
    )
)]
struct Description;

/// How the reading of a body fails.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the description alone")]
enum Misread {
    #[response(status = 400, description = "The body is not as described")]
    Invalid(ErrorBody),
}

/// Tells of every route how what stands in front of it refuses requests. In one place and for all methods, so that a
/// new route can't lack it.
struct Refused;

impl Modify for Refused {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            let stays = MANAGEMENT.while_stopping.contains(&path.as_str());
            for operation in operations(item) {
                let mut refusals = Refusals::responses();
                if stays {
                    refusals.remove("503");
                }
                if operation.request_body.is_some() {
                    refusals.extend(Misread::responses());
                    refusals.extend(BodyRefusals::responses());
                }
                for (status, refusal) in refusals {
                    match operation.responses.responses.entry(status) {
                        Entry::Vacant(entry) => {
                            entry.insert(refusal);
                        }
                        Entry::Occupied(mut entry) => add_reason(entry.get_mut(), &refusal),
                    }
                }
            }
        }
    }
}

/// The operations of a path by all methods.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let by_method = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.options,
        &mut item.head,
        &mut item.patch,
        &mut item.trace,
        &mut item.query,
    ];
    let others = item.additional_operations.values_mut();
    by_method.into_iter().flatten().chain(others)
}

/// One status may have reasons of the route and of what stands in front of it.
fn add_reason(response: &mut RefOr<Response>, refusal: &RefOr<Response>) {
    if let (RefOr::T(response), RefOr::T(refusal)) = (response, refusal)
        && response.description != refusal.description
    {
        response.description = format!("{}. Or: {}", response.description, refusal.description);
    }
}

/// The OpenAPI description of the management API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[cfg(test)]
mod tests {
    use utoipa::openapi::HttpMethod;

    use super::*;

    #[test]
    fn routes_of_all_methods_tell_how_they_refuse() {
        for method in [
            HttpMethod::Get,
            HttpMethod::Post,
            HttpMethod::Put,
            HttpMethod::Delete,
            HttpMethod::Options,
            HttpMethod::Head,
            HttpMethod::Patch,
            HttpMethod::Trace,
        ] {
            let item = PathItem::new(method, Operation::default());
            let mut openapi = utoipa::openapi::OpenApi::default();
            openapi.paths.paths.insert("/api/new".to_owned(), item);
            Refused.modify(&mut openapi);
            let item = openapi.paths.paths.get_mut("/api/new").unwrap();
            let operation = operations(item).next().unwrap();
            let statuses: Vec<&String> = operation.responses.responses.keys().collect();
            assert_eq!(statuses, ["401", "403", "503"]);
        }
    }
}
