//! `GET /api/events`: the state, then its changes, as server-sent events.
//!
//! A reader costs one copy of the state, however slow it is: what it is sent next is computed
//! when there is room for it, from the newest state. One that takes nothing is cut by the
//! server's deadline for writes, which keep-alive comments let pass.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::Desk;
use super::change::Event;
use super::status::Status;
use crate::error::ApiError;
use crate::openai::error::ErrorBody;

/// How often figures are looked at that change without notice, such as requests that run.
const REFRESH: Duration = Duration::from_secs(1);
/// Least time between two looks: a model that loads fast changes hundreds of times a second.
const PACE: Duration = Duration::from_millis(100);

/// Follow the state
///
/// The first event is `snapshot`, whose data is what `/api/status` answers. Each further event is
/// one change of it, as it happens: `node`, `mesh` and `demand` carry the new value of that
/// member; `model`, `peer`, `target` and `link` carry an element of a list, which replaces the one
/// with the same `name`, `id`, `model` or `node`, or is new; `model_gone`, `peer_gone`,
/// `target_gone` and `link_gone` carry the `key` of an element that went. Round trips, bytes and
/// free memory are told again once they have moved noticeably. While nothing changes, comments
/// show that the connection lives. The stream ends when the node stops.
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "state",
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = 429, description = "Too many streams are open", body = ErrorBody),
    )
)]
pub(super) async fn events(State(desk): State<Desk>) -> Result<Response, ApiError> {
    let permit = desk.readers.clone().try_acquire_owned().map_err(|_| {
        ApiError::refused(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_streams",
            format!(
                "{} streams of events are open already; hint: close one, or ask /api/status",
                desk.config.readers_max
            ),
        )
    })?;
    let mut response = Body::from_stream(stream(desk, permit)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx gathers answers unless told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// What woke a reader's stream.
enum Wake {
    /// Something may have changed.
    Look,
    /// Nothing was sent for long.
    Silence,
    /// The server stops, or the node is gone.
    End,
}

fn stream(
    desk: Desk,
    permit: OwnedSemaphorePermit,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
    async_stream::stream! {
        let _permit = permit;
        let interval = desk.app.config.keep_alive_interval;
        let mut changes = desk.app.node.watch();
        changes.mark_unchanged();
        let mut told = desk.status();
        yield Ok(written(&[Event::Snapshot(told.clone())]));
        let mut silent_since = Instant::now();
        loop {
            match wait(&desk, &mut changes, silent_since + interval).await {
                Wake::Look => {}
                Wake::Silence => {
                    yield Ok(Bytes::from_static(b": keep-alive\n\n"));
                    silent_since = Instant::now();
                    continue;
                }
                Wake::End => break,
            }
            let news = news(&mut told, &desk.status());
            if !news.is_empty() {
                yield Ok(written(&news));
                silent_since = Instant::now();
            }
            sleep(PACE).await;
        }
        // The last word: that the node stops.
        let news = news(&mut told, &desk.status());
        if !news.is_empty() {
            yield Ok(written(&news));
        }
    }
}

async fn wait<T>(desk: &Desk, changes: &mut watch::Receiver<T>, silence: Instant) -> Wake {
    tokio::select! {
        biased;
        () = desk.app.drained() => Wake::End,
        () = sleep_until(silence) => Wake::Silence,
        changed = changes.changed() => if changed.is_ok() { Wake::Look } else { Wake::End },
        () = sleep(REFRESH) => Wake::Look,
    }
}

fn news(told: &mut Status, now: &Status) -> Vec<Event> {
    told.update(now).into_iter().map(Event::Change).collect()
}

fn written(events: &[Event]) -> Bytes {
    let mut text = String::new();
    for event in events {
        match event.write() {
            Ok((name, data)) => text.push_str(&format!("event: {name}\ndata: {data}\n\n")),
            // Our wire types always serialise: nothing in them can fail.
            Err(error) => tracing::error!(%error, "an event could not be serialised"),
        }
    }
    text.into()
}
