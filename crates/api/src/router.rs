//! Routes, and what surrounds every one of them: who may call, counting, refusal while stopping.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRef, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::error::ApiError;
use crate::guard;
use crate::metrics::RequestLabels;
use crate::route::{Answered, chat, completion, embedding, model, status, token};
use crate::state::{Active, App};
use crate::surface::Surface;

/// What port 9337 offers.
pub(crate) const INFERENCE: Surface = Surface {
    routes: &[
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model}"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/tokenize"),
        ("POST", "/v1/detokenize"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ],
    prefix: "/v1",
    description: "/openapi.json",
    without_key: &["/health"],
    while_stopping: &["/health", "/metrics"],
};

/// Status under which requests are counted whose client left before there was an answer: nginx's.
const CLIENT_LEFT: u16 = 499;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The routes of port 9337 with everything around them.
pub(crate) fn build(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/v1/models", get(model::list))
        // Names of models may hold slashes.
        .route("/v1/models/{*model}", get(model::get))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completion::complete))
        .route("/v1/embeddings", post(embedding::embed))
        .route("/v1/tokenize", post(token::tokenize))
        .route("/v1/detokenize", post(token::detokenize))
        .route("/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(status::description));
    surround(routes, Arc::clone(&app), &app)
}

/// Puts around `routes` what every server needs. `state` is what their handlers share.
pub(crate) fn surround<S>(routes: Router<S>, state: S, app: &Arc<App>) -> Router
where
    S: Clone + Send + Sync + 'static,
    Arc<App>: FromRef<S>,
{
    let app = || Arc::clone(app);
    routes
        .fallback(status::no_route)
        .method_not_allowed_fallback(status::no_method)
        .layer(middleware::from_fn_with_state(app(), refuse_late))
        .layer(middleware::from_fn_with_state(app(), guard::check))
        .layer(middleware::from_fn_with_state(app(), account))
        .with_state(state)
}

/// Refuses what would start work once the server was told to stop; probes still get answers.
async fn refuse_late(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let answered = app.surface.while_stopping.contains(&request.uri().path());
    if app.is_draining() && !answered {
        return ApiError::shutting_down().into_response();
    }
    next.run(request).await
}

/// Counts the request, gives it an identifier, and holds the server's stop back until its last
/// byte is out.
async fn account(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let active = app.begin();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("(none)", MatchedPath::as_str)
        .to_owned();
    let mut count = Count {
        app,
        labels: RequestLabels {
            route,
            model: String::new(),
            status: CLIENT_LEFT,
        },
    };
    let mut response = next.run(request).await;
    if let Some(Answered(model)) = response.extensions_mut().remove() {
        count.labels.model = model;
    }
    count.labels.status = response.status().as_u16();
    let id = uuid::Uuid::new_v4().simple().to_string();
    tracing::debug!(%id, request = ?count.labels, "request answered");
    drop(count);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.map(|inner| {
        Body::new(Counted {
            inner,
            _active: active,
        })
    })
}

/// Counts a request when dropped, be it that it was answered or that its client left before.
struct Count {
    app: Arc<App>,
    labels: RequestLabels,
}

impl Drop for Count {
    fn drop(&mut self) {
        self.app.metrics.requests.get_or_create(&self.labels).inc();
    }
}

/// A body that counts as an answer under way until it is dropped.
struct Counted {
    inner: Body,
    _active: Active,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
