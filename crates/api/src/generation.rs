//! Running engine requests: several prompts as one stream, observed for the metrics.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use engine::{Error, Event, EventStream, Request, Summary};
use futures::stream::{Stream, StreamExt, select_all};
use node::Computes;
use prometheus_client::metrics::histogram::Histogram;

use crate::error::ApiError;
use crate::metrics::{ModelLabels, OutcomeLabels};
use crate::state::App;

/// Starts `requests`, all for the same model and with the same `n`; the choices of the second
/// follow those of the first, and so on. `arrived` is when the HTTP request came in.
///
/// Dropping the stream cancels all of them.
pub(crate) async fn run(
    app: &Arc<App>,
    mut requests: Vec<Request>,
    arrived: Instant,
) -> Result<Observed, ApiError> {
    let model = requests
        .first()
        .map(|request| request.model.clone())
        .unwrap_or_default();
    let (events, host) = if requests.len() == 1 {
        let answer = app.node.answer(requests.remove(0)).await?;
        (answer.events, answer.host)
    } else {
        let n = requests.first().map_or(1, |request| request.n);
        let mut streams = Vec::with_capacity(requests.len());
        let mut host = None;
        for request in requests {
            let answer = app.node.answer(request).await?;
            host = host.or(answer.host);
            streams.push(answer.events);
        }
        (merge(streams, n), host)
    };
    Ok(Observed::new(app, events, model, host, arrived))
}

/// One stream of the events of all `streams`, which have `n` choices each.
fn merge(streams: Vec<EventStream>, n: u32) -> EventStream {
    Box::pin(async_stream::stream! {
        let mut left = streams.len();
        let mut first_choice = 0_u32;
        let mut all = select_all(streams.into_iter().map(|stream| {
            let offset = first_choice;
            first_choice = first_choice.saturating_add(n);
            stream.map(move |event| (offset, event)).boxed()
        }));
        let mut total = Summary::default();
        while let Some((offset, event)) = all.next().await {
            match event {
                Ok(Event::Done(summary)) => {
                    add(&mut total, &summary);
                    left -= 1;
                    if left == 0 {
                        yield Ok(Event::Done(total));
                        return;
                    }
                }
                Ok(Event::Delta { choice, delta }) => {
                    yield Ok(Event::Delta { choice: choice.saturating_add(offset), delta });
                }
                Ok(Event::Finished { choice, reason }) => {
                    yield Ok(Event::Finished { choice: choice.saturating_add(offset), reason });
                }
                Ok(started @ Event::Started { .. }) => yield Ok(started),
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
    })
}

fn add(total: &mut Summary, one: &Summary) {
    let (sum, part) = (&mut total.usage, &one.usage);
    for (sum, part) in [
        (&mut sum.prompt_tokens, part.prompt_tokens),
        (&mut sum.cached_tokens, part.cached_tokens),
        (&mut sum.completion_tokens, part.completion_tokens),
        (&mut sum.reasoning_tokens, part.reasoning_tokens),
        (&mut sum.drafted_tokens, part.drafted_tokens),
        (&mut sum.accepted_tokens, part.accepted_tokens),
    ] {
        *sum = sum.saturating_add(part);
    }
    let (times, part) = (&mut total.timings, &one.timings);
    // Prompts are evaluated one after the other, answers are generated side by side.
    times.queue_ms = times.queue_ms.max(part.queue_ms);
    times.prompt_ms += part.prompt_ms;
    times.decode_ms = times.decode_ms.max(part.decode_ms);
}

/// Events of a generation; notes times and the outcome as they pass.
pub(crate) struct Observed {
    events: EventStream,
    app: Arc<App>,
    model: String,
    host: Option<Computes>,
    first_token: Histogram,
    per_token: Histogram,
    arrived: Instant,
    /// When the latest token came.
    latest: Option<Instant>,
    outcome: &'static str,
    ended: bool,
}

impl Observed {
    fn new(
        app: &Arc<App>,
        events: EventStream,
        model: String,
        host: Option<Computes>,
        arrived: Instant,
    ) -> Self {
        let labels = ModelLabels {
            model: model.clone(),
        };
        Self {
            events,
            app: Arc::clone(app),
            model,
            host,
            first_token: app.metrics.first_token.get_or_create(&labels).clone(),
            per_token: app.metrics.per_token.get_or_create(&labels).clone(),
            arrived,
            latest: None,
            outcome: "cancelled",
            ended: false,
        }
    }

    /// The other machine that computes the answer at first, if there is one.
    pub(crate) fn host(&self) -> Option<&Computes> {
        self.host.as_ref()
    }

    fn note(&mut self, event: &Result<Event, Error>) {
        match event {
            Ok(Event::Delta { delta, .. }) if !delta.tokens.is_empty() => {
                let now = Instant::now();
                match self.latest.replace(now) {
                    None => self.first_token.observe((now - self.arrived).as_secs_f64()),
                    Some(earlier) => {
                        let count = f64::from(u32::try_from(delta.tokens.len()).unwrap_or(1));
                        self.per_token
                            .observe((now - earlier).as_secs_f64() / count);
                    }
                }
            }
            Ok(Event::Done(_)) => self.outcome = "completed",
            Err(_) => self.outcome = "failed",
            Ok(_) => {}
        }
    }
}

impl Stream for Observed {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match self.events.poll_next_unpin(context) {
            Poll::Pending => return Poll::Pending,
            // A stream that ends without its last event is a fault below; say so once.
            Poll::Ready(next) => next.unwrap_or_else(|| {
                Err(Error::Inference("the answer ended unexpectedly".to_owned()))
            }),
        };
        self.ended = matches!(next, Err(_) | Ok(Event::Done(_)));
        self.note(&next);
        Poll::Ready(Some(next))
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        let labels = OutcomeLabels {
            model: std::mem::take(&mut self.model),
            outcome: self.outcome,
        };
        self.app.metrics.generations.get_or_create(&labels).inc();
    }
}
