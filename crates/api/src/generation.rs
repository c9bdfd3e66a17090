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
    let choices = requests.iter().map(|request| request.n as usize);
    let clock = Clock::new(choices.sum());
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
    Ok(Observed::new(app, events, model, host, arrived, clock))
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

/// When the latest token of each choice came.
struct Clock {
    latest: Vec<Option<Instant>>,
}

/// What a token was waited for.
#[derive(Debug, PartialEq)]
enum Wait {
    /// The first one of all choices.
    First,
    /// Time from the token before it in the same choice, s. Of several that came together, each
    /// took its part of that.
    Next(f64),
}

impl Clock {
    fn new(choices: usize) -> Self {
        Self {
            latest: vec![None; choices],
        }
    }

    /// Notes that `count` tokens of `choice` came at `now`. `None`: there is nothing to compare
    /// with, because another choice was first, or nobody asked for this one.
    fn note(&mut self, choice: u32, count: usize, now: Instant) -> Option<Wait> {
        let silent = self.latest.iter().all(Option::is_none);
        let latest = self.latest.get_mut(choice as usize)?;
        match latest.replace(now) {
            Some(earlier) => {
                let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX).max(1));
                Some(Wait::Next((now - earlier).as_secs_f64() / count))
            }
            None => silent.then_some(Wait::First),
        }
    }
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
    clock: Clock,
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
        clock: Clock,
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
            clock,
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
            Ok(Event::Delta { choice, delta }) if !delta.tokens.is_empty() => {
                let now = Instant::now();
                match self.clock.note(*choice, delta.tokens.len(), now) {
                    Some(Wait::First) => {
                        self.first_token.observe((now - self.arrived).as_secs_f64());
                    }
                    Some(Wait::Next(seconds)) => self.per_token.observe(seconds),
                    None => {}
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_choice_is_timed_by_its_own_tokens() {
        let start = Instant::now();
        let mut clock = Clock::new(2);
        // Choice, tokens, when, s, and what follows from it.
        for (choice, count, seconds, expected) in [
            (1, 1, 1, Some(Wait::First)),
            (0, 1, 2, None),
            (1, 1, 4, Some(Wait::Next(3.0))),
            (0, 4, 10, Some(Wait::Next(2.0))),
            (0, 1, 11, Some(Wait::Next(1.0))),
            (1, 2, 11, Some(Wait::Next(3.5))),
            (2, 1, 12, None),
        ] {
            let now = start + Duration::from_secs(seconds);
            let wait = clock.note(choice, count, now);
            assert_eq!(wait, expected, "choice {choice} after {seconds} s");
        }
    }
}
