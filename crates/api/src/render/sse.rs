//! Server-sent events: one event per chunk, written into one buffer that is reused.
//!
//! The parts of a chunk that never change are put together once; per token only the choice is
//! serialised. Events that are ready at the same time leave in one write.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, BytesMut};
use engine::{Delta, Error, Event, FinishReason, Summary};
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use tokio::time::timeout;

use super::Envelope;
use crate::error::ApiError;
use crate::generation::Observed;
use crate::openai::usage::{Timings, Usage};
use crate::state::App;

/// Room for a typical chunk, bytes.
const CHUNK_BYTES: usize = 1024;
/// Bytes that are gathered before they are handed on even if more events are ready.
const WRITE_BYTES: usize = 16 * 1024;

/// What differs between the dialects' chunks.
pub(crate) trait Chunks: Send + 'static {
    /// The parts that all chunks share.
    fn head(&self) -> &Head;
    /// What comes before all else.
    fn open(&mut self, out: &mut BytesMut);
    /// New output of a choice.
    fn delta(&mut self, index: u32, delta: Delta, out: &mut BytesMut);
    /// The end of a choice; with the figures of the whole answer if nothing else follows.
    fn finish(
        &mut self,
        index: u32,
        reason: FinishReason,
        summary: Option<&Summary>,
        out: &mut BytesMut,
    );
}

/// The parts of a chunk that never change.
pub(crate) struct Head {
    /// From `data:` to the opening bracket of `choices`.
    start: Vec<u8>,
    /// Whether the token counts are wanted; OpenAI then has `usage: null` in all other chunks.
    with_usage: bool,
}

impl Head {
    pub(crate) fn new(envelope: &Envelope, object: &str, with_usage: bool) -> Self {
        let fixed = serde_json::json!({
            "id": envelope.id,
            "object": object,
            "created": envelope.created,
            "model": envelope.model,
            "system_fingerprint": envelope.fingerprint,
        })
        .to_string();
        let open = fixed.strip_suffix('}').unwrap_or(&fixed);
        Self {
            start: format!("data: {open},\"choices\":[").into_bytes(),
            with_usage,
        }
    }

    /// Writes a chunk with one choice; `summary` adds the times.
    pub(crate) fn write<T: Serialize>(
        &self,
        choice: &T,
        summary: Option<&Summary>,
        out: &mut BytesMut,
    ) {
        out.reserve(self.start.len() + CHUNK_BYTES);
        out.put_slice(&self.start);
        write_json(choice, out);
        out.put_slice(if self.with_usage {
            b"],\"usage\":null"
        } else {
            b"]"
        });
        if let Some(summary) = summary {
            self.write_timings(summary, out);
        }
        out.put_slice(b"}\n\n");
    }

    /// Writes the chunk with the token counts and without choices.
    fn write_usage(&self, summary: &Summary, out: &mut BytesMut) {
        out.put_slice(&self.start);
        out.put_slice(b"],\"usage\":");
        write_json(&Usage::from(&summary.usage), out);
        self.write_timings(summary, out);
        out.put_slice(b"}\n\n");
    }

    fn write_timings(&self, summary: &Summary, out: &mut BytesMut) {
        out.put_slice(b",\"timings\":");
        write_json(&Timings::from(summary), out);
    }
}

/// Our wire types always serialise: their maps have string keys and nothing in them can fail.
fn write_json<T: Serialize>(value: &T, out: &mut BytesMut) {
    if let Err(error) = serde_json::to_writer(out.writer(), value) {
        tracing::error!(%error, "an answer could not be serialised");
    }
}

/// Turns events into the bytes of a stream.
struct Writer<C> {
    chunks: C,
    /// The end of a choice, kept until it is known whether anything follows it.
    held: Option<(u32, FinishReason)>,
    out: BytesMut,
    ended: bool,
}

impl<C: Chunks> Writer<C> {
    fn push(&mut self, event: Result<Event, Error>) {
        let out = &mut self.out;
        if !matches!(event, Ok(Event::Done(_)))
            && let Some((index, reason)) = self.held.take()
        {
            self.chunks.finish(index, reason, None, out);
        }
        match event {
            Ok(Event::Started { .. }) => {}
            Ok(Event::Delta { choice, delta }) => self.chunks.delta(choice, delta, out),
            Ok(Event::Finished { choice, reason }) => self.held = Some((choice, reason)),
            Ok(Event::Done(summary)) => {
                let with_usage = self.chunks.head().with_usage;
                if let Some((index, reason)) = self.held.take() {
                    let last = (!with_usage).then_some(&summary);
                    self.chunks.finish(index, reason, last, out);
                }
                if with_usage {
                    self.chunks.head().write_usage(&summary, out);
                }
                out.put_slice(b"data: [DONE]\n\n");
                self.ended = true;
            }
            Err(error) => {
                // SDKs raise on an `error` member; a [DONE] after it would look like success.
                out.put_slice(b"data: ");
                write_json(&ApiError::from(error).body(), out);
                out.put_slice(b"\n\n");
                self.ended = true;
            }
        }
    }
}

/// Answers with a stream of events. An error that comes before anything else becomes a plain
/// error answer, so that it has its own status; past `keep_alive_interval` the stream begins
/// regardless, to show the client that the server lives.
pub(crate) async fn respond<C: Chunks>(
    app: &Arc<App>,
    mut events: Observed,
    chunks: C,
) -> Result<Response, ApiError> {
    let interval = app.config.keep_alive_interval;
    let mut writer = Writer {
        chunks,
        held: None,
        out: BytesMut::with_capacity(4 * CHUNK_BYTES),
        ended: false,
    };
    let first = match timeout(interval, events.next()).await {
        Ok(Some(Err(error))) => return Err(error.into()),
        Ok(first) => first,
        Err(_) => None,
    };
    writer.chunks.open(&mut writer.out);
    if let Some(first) = first {
        writer.push(first);
    }
    let mut response = Body::from_stream(stream(events, writer, interval)).into_response();
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

fn stream<C: Chunks>(
    mut events: Observed,
    mut writer: Writer<C>,
    interval: Duration,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
    async_stream::stream! {
        loop {
            // Whatever is ready goes along, up to a bound.
            while !writer.ended
                && writer.out.len() < WRITE_BYTES
                && let Some(Some(event)) = events.next().now_or_never()
            {
                writer.push(event);
            }
            if !writer.out.is_empty() {
                yield Ok(writer.out.split().freeze());
            }
            if writer.ended {
                return;
            }
            match timeout(interval, events.next()).await {
                Ok(Some(event)) => writer.push(event),
                Ok(None) => return,
                Err(_) => writer.out.put_slice(b": keep-alive\n\n"),
            }
        }
    }
}
