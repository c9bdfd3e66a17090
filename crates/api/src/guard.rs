//! Who may talk to the server: host names, web origins, the API key.
//!
//! A web page in the user's browser can reach loopback. Two rules keep it out: a request must
//! name a host that is this machine (else a page could point its own name at 127.0.0.1), and a
//! request that a page of another origin makes is refused, not only hidden from the page.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::Config;
use crate::error::ApiError;
use crate::state::App;

/// Seconds for which a browser may remember the answer to a preflight.
const PREFLIGHT_MAX_AGE_S: &str = "600";
/// Methods that a page may use.
const METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";

/// Lets a request through, answers a preflight, or refuses.
pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let config = &app.config;
    if let Err(error) = check_host(config, request.uri(), request.headers()) {
        return error.into_response();
    }
    let origin = match check_origin(config, request.uri(), request.headers()) {
        Ok(origin) => origin,
        Err(error) => return error.into_response(),
    };
    if let Some(origin) = &origin
        && is_preflight(&request)
    {
        return preflight(origin, request.headers());
    }
    let mut response = match check_key(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-request-id, retry-after"),
        );
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    response
}

fn check_host(config: &Config, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if config.listen_all {
        return Ok(());
    }
    let refused = |name: &str| {
        let name: String = name.chars().take(64).collect();
        ApiError::forbidden(
            "host_not_allowed",
            format!(
                "the host `{name}` is not served; \
                 hint: use 127.0.0.1 or localhost, or add the name to the allowed hosts"
            ),
        )
    };
    match authority(uri, headers) {
        Some(authority) => {
            let host = authority.host();
            let configured = config
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(host));
            if is_loopback(host) || configured {
                Ok(())
            } else {
                Err(refused(host))
            }
        }
        None => Err(refused("(none)")),
    }
}

/// The host that a request names. An absolute target wins over the header, as RFC 9112 says.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next()?;
    if hosts.next().is_some() {
        return None;
    }
    Authority::try_from(host.as_bytes()).ok()
}

/// Whether `host` (without port; IPv6 in brackets) is this machine for sure. Names under
/// `localhost` are left out: resolvers differ on them.
fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The origin to allow in the answer, if the request comes from a web page.
fn check_origin(
    config: &Config,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(None);
    };
    let text = origin.to_str().unwrap_or_default();
    let configured = config
        .cors_origins
        .iter()
        .any(|known| known == "*" || known.eq_ignore_ascii_case(text));
    let host = authority(uri, headers);
    if configured || is_local_page(text, host.as_ref()) {
        return Ok(Some(origin.clone()));
    }
    let text: String = text.chars().take(64).collect();
    Err(ApiError::forbidden(
        "origin_not_allowed",
        format!(
            "web pages of the origin `{text}` may not use this server; \
             hint: add it to the allowed origins"
        ),
    ))
}

/// Whether `origin` is a page of this machine, or one that was served under the very name that
/// the request uses.
fn is_local_page(origin: &str, host: Option<&Authority>) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else {
        return false;
    };
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    uri.authority()
        .is_some_and(|authority| web && (is_loopback(authority.host()) || Some(authority) == host))
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight(origin: &HeaderValue, asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    // SDKs send a dozen headers of their own; the origin is trusted, so its headers are.
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    if asked.contains_key("access-control-request-private-network") {
        headers.insert(
            "access-control-allow-private-network",
            HeaderValue::from_static("true"),
        );
    }
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static(PREFLIGHT_MAX_AGE_S),
    );
    headers.insert(
        header::VARY,
        HeaderValue::from_static(
            "origin, access-control-request-method, access-control-request-headers",
        ),
    );
    response
}

fn check_key(app: &App, request: &Request) -> Result<(), ApiError> {
    let Some(expected) = &app.config.api_key else {
        return Ok(());
    };
    if app.surface.without_key.contains(&request.uri().path()) {
        return Ok(());
    }
    let headers = request.headers();
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let key = bearer.or_else(|| headers.get("x-api-key").map(HeaderValue::as_bytes));
    match key {
        None => Err(ApiError::unauthorized(
            "no API key; hint: send it as `Authorization: Bearer KEY`",
        )),
        // Takes the same time wherever the first difference is.
        Some(key) if bool::from(key.trim_ascii().ct_eq(expected.as_bytes())) => Ok(()),
        Some(_) => Err(ApiError::unauthorized("the API key is wrong")),
    }
}
