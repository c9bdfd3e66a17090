//! `GET /health`, `GET /metrics`, `GET /openapi.json`, and what answers unknown routes.

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use node::ModelState;

use super::Refusals;
use crate::error::ApiError;
use crate::metrics;
use crate::openai::error::ErrorBody;
use crate::openai::token::Health;
use crate::state::{App, is_idle};
use crate::surface::Surface;

/// Longest path that is compared with the known ones; the comparison is quadratic.
const PATH_BYTES_MAX: usize = 128;
/// Edits that make a path a likely slip.
const EDITS_MAX: usize = 4;

/// Is the server ready?
#[utoipa::path(
    get,
    path = "/health",
    tag = "status",
    security(()),
    responses(
        (status = 200, description = "At least one model answers", body = Health),
        (
            status = 403,
            description = "The host name or the web page's origin is not allowed",
            body = ErrorBody,
        ),
        (status = 503, description = "Idle, loading, failed or shutting down", body = Health),
    )
)]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let snapshot = app.node.snapshot();
    let number = |wanted: fn(&ModelState) -> bool| {
        snapshot
            .models
            .iter()
            .filter(|model| wanted(&model.state))
            .count()
    };
    let ready = number(|state| matches!(state, ModelState::Ready));
    let loading = number(|state| matches!(state, ModelState::Loading { .. }));
    let failed = number(|state| matches!(state, ModelState::Failed { .. }));
    let status = if app.is_draining() {
        "shutting_down"
    } else if is_idle(&snapshot) {
        "idle"
    } else if ready > 0 || !snapshot.targets.is_empty() || (loading == 0 && failed == 0) {
        // While this node's own models load, the mesh may answer.
        "ok"
    } else if loading > 0 {
        "loading"
    } else {
        "failed"
    };
    let code = if status == "ok" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let health = Health {
        status,
        version: snapshot.version,
        models_ready: ready,
        models_loading: loading,
        models_failed: failed,
    };
    (code, Json(health)).into_response()
}

/// Figures for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "status",
    responses(
        (
            status = 200,
            description = "All figures, OpenMetrics text",
            body = String,
            content_type = "application/openmetrics-text",
        ),
        Refusals,
    )
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = app
        .metrics
        .encode()
        .map_err(|error| ApiError::internal(format!("the figures can't be written: {error}")))?;
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((kind, text).into_response())
}

/// This description
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "status",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object),
        Refusals,
    )
)]
pub(crate) async fn description() -> Result<Response, ApiError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    described(&TEXT, crate::openapi)
}

/// A description as JSON, written once and kept in `text`.
pub(crate) fn described(
    text: &'static OnceLock<String>,
    describe: fn() -> utoipa::openapi::OpenApi,
) -> Result<Response, ApiError> {
    let text = match text.get() {
        Some(text) => text,
        None => {
            let written = describe().to_json().map_err(|error| {
                ApiError::internal(format!("the description can't be written: {error}"))
            })?;
            text.get_or_init(|| written)
        }
    };
    let kind = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    Ok((kind, text.as_str()).into_response())
}

/// Answers paths that are no route, with the likeliest one that is.
pub(crate) async fn no_route(State(app): State<Arc<App>>, method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    let shown: String = path.chars().take(PATH_BYTES_MAX).collect();
    let hint = match near(path, app.surface) {
        Some((method, route)) => format!("did you mean {method} {route}?"),
        None => format!("the routes are listed in {}", app.surface.description),
    };
    ApiError::no_route(format!("no route {method} {shown}; hint: {hint}"))
}

/// Answers methods that a route does not know; the router adds `Allow`.
pub(crate) async fn no_method(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(PATH_BYTES_MAX).collect();
    ApiError::method_not_allowed(format!("{path} does not take {method}"))
}

/// The known route nearest to `path`.
fn near(path: &str, surface: &Surface) -> Option<(&'static str, &'static str)> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let path = path.trim_end_matches('/').to_ascii_lowercase();
    let path = path.strip_prefix(surface.prefix).unwrap_or(&path);
    let (distance, method, route) = surface
        .routes
        .iter()
        .map(|&(method, route)| {
            let bare = route.strip_prefix(surface.prefix).unwrap_or(route);
            (strsim::levenshtein(path, bare), method, route)
        })
        .min_by_key(|&(distance, ..)| distance)?;
    (distance <= EDITS_MAX).then_some((method, route))
}
