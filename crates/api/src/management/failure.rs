//! Refusals of the node as answers: the one place where its errors become status codes.

use axum::http::StatusCode;
use mesh::net::MeshError;
use node::{DropError, MeshRequestError, StartError};

use crate::error::ApiError;

/// The answer to a request about the mesh that failed.
pub(super) fn of_mesh(error: MeshRequestError) -> ApiError {
    let message = error.to_string();
    match error {
        MeshRequestError::NotInMesh => {
            ApiError::refused(StatusCode::CONFLICT, "not_in_mesh", message)
        }
        MeshRequestError::NoLastMesh => {
            ApiError::refused(StatusCode::CONFLICT, "no_last_mesh", message)
        }
        MeshRequestError::ShuttingDown => ApiError::shutting_down(),
        MeshRequestError::Mesh(error) => of_mesh_itself(&error, message),
    }
}

fn of_mesh_itself(error: &MeshError, message: String) -> ApiError {
    match error {
        MeshError::Ticket(_) => ApiError::invalid("ticket", message),
        MeshError::Refused(_) => ApiError::forbidden("refused", message),
        MeshError::ClientsCannot => ApiError::forbidden("clients_cannot", message),
        MeshError::NotAMember(_) => {
            ApiError::refused(StatusCode::CONFLICT, "not_a_member", message)
        }
        MeshError::Stopped => ApiError::refused(StatusCode::CONFLICT, "not_in_mesh", message),
        MeshError::ExpelsItself | MeshError::ExpelsOriginator(_) => {
            ApiError::refused(StatusCode::CONFLICT, "cannot_expel", message)
        }
        MeshError::TooMany(_) => {
            ApiError::refused(StatusCode::TOO_MANY_REQUESTS, "too_many", message)
        }
        MeshError::Unreachable(_) | MeshError::Peer { .. } => {
            ApiError::failed(StatusCode::BAD_GATEWAY, "unreachable", message)
        }
        MeshError::Relay(_) | MeshError::NoPath | MeshError::Bind(_) | MeshError::PortInUse(_) => {
            ApiError::failed(StatusCode::INTERNAL_SERVER_ERROR, "network", message)
        }
        MeshError::Identity(_) => {
            ApiError::failed(StatusCode::INTERNAL_SERVER_ERROR, "files", message)
        }
        _ => ApiError::failed(StatusCode::INTERNAL_SERVER_ERROR, "mesh_failed", message),
    }
}

/// The answer to a model that can't be loaded.
pub(super) fn of_start(error: &StartError) -> ApiError {
    let message = error.to_string();
    let (status, code) = match error {
        StartError::NotFound { .. } => (StatusCode::NOT_FOUND, "model_not_found"),
        StartError::Ambiguous { .. } => (StatusCode::BAD_REQUEST, "ambiguous_model"),
        StartError::Unreadable { .. } => (StatusCode::BAD_REQUEST, "unreadable_model"),
        StartError::Duplicate { .. } => (StatusCode::CONFLICT, "duplicate_model"),
        StartError::Memory { .. } => (StatusCode::CONFLICT, "not_enough_memory"),
        StartError::Client => (StatusCode::FORBIDDEN, "client"),
        StartError::Load { .. } => (StatusCode::BAD_REQUEST, "model_not_loaded"),
        StartError::NoEngine => {
            return ApiError::failed(StatusCode::NOT_IMPLEMENTED, "no_engine", message);
        }
        StartError::ShutDown => return ApiError::shutting_down(),
    };
    ApiError::refused(status, code, message).at("model")
}

/// The answer to a model that can't be dropped.
pub(super) fn of_drop(error: &DropError) -> ApiError {
    let message = error.to_string();
    match error {
        DropError::NotServed { .. } => {
            ApiError::refused(StatusCode::NOT_FOUND, "model_not_found", message).at("model")
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use mesh::admission::Refusal;
    use mesh::{MeshId, NodeId};

    use super::*;

    /// Each error has a status and a code that tell it from the others.
    #[test]
    fn each_refusal_has_its_answer() {
        let check = |error: ApiError, status: u16, code: &str| {
            let body = error.body();
            assert_eq!(body.error.code.as_deref(), Some(code), "{body:?}");
            assert_eq!(error.into_response().status().as_u16(), status, "{body:?}");
        };
        let mesh = |error: MeshError| of_mesh(MeshRequestError::Mesh(error));
        check(of_mesh(MeshRequestError::NotInMesh), 409, "not_in_mesh");
        check(of_mesh(MeshRequestError::NoLastMesh), 409, "no_last_mesh");
        check(
            of_mesh(MeshRequestError::ShuttingDown),
            503,
            "shutting_down",
        );
        check(mesh(Refusal::TicketExpired.into()), 403, "refused");
        check(mesh(MeshError::ClientsCannot), 403, "clients_cannot");
        let id = MeshId::from_bytes([1; 32]);
        check(mesh(MeshError::NotAMember(id)), 409, "not_a_member");
        check(mesh(MeshError::Stopped), 409, "not_in_mesh");
        let node = NodeId::from_bytes([1; 32]);
        check(mesh(Refusal::NotAbove.into()), 403, "refused");
        check(mesh(MeshError::ExpelsItself), 409, "cannot_expel");
        check(mesh(MeshError::ExpelsOriginator(node)), 409, "cannot_expel");
        check(mesh(MeshError::TooMany("streams")), 429, "too_many");
        check(mesh(MeshError::Unreachable(Vec::new())), 502, "unreachable");
        let reason = "it is off".to_owned();
        check(mesh(MeshError::Peer { node, reason }), 502, "unreachable");
        check(mesh(MeshError::NoPath), 500, "network");
        let model = || "m".to_owned();
        let not_found = StartError::NotFound {
            model: model(),
            hint: String::new(),
        };
        check(of_start(&not_found), 404, "model_not_found");
        check(of_start(&StartError::NoEngine), 501, "no_engine");
        check(of_start(&StartError::Client), 403, "client");
        let twice = StartError::Duplicate { name: model() };
        check(of_start(&twice), 409, "duplicate_model");
        let not_served = DropError::NotServed {
            model: model(),
            hint: String::new(),
        };
        check(of_drop(&not_served), 404, "model_not_found");
    }
}
