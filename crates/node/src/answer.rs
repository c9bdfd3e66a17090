//! One answer from wherever the model is, and from another host when the first is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::{Error, Event, EventStream, Request};
use futures::StreamExt;
use mesh::NodeId;

use crate::affinity::{Beginning, beginnings};
use crate::ingress::AtPeer;
use crate::journal::Journal;
use crate::models::Purpose;
use crate::node::Shared;
use crate::peer::{self, CallError, Replies};
use crate::route::{Candidate, Place, rank};
use crate::wire::{Call, Reply};

/// An answer, and who gives it at first.
pub struct Answer {
    /// Its events.
    pub events: EventStream,
    /// The machine that computes it; `None`: this one.
    pub host: Option<Computes>,
}

/// A machine that computes an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computes {
    /// Which node.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
}

/// Everything that finding the next host needs.
struct Search {
    shared: Arc<Shared>,
    journal: Journal,
    model: String,
    beginnings: Vec<Beginning>,
    /// Who failed already; each is asked once.
    tried: BTreeSet<Place>,
    /// Content of the model that the answer began with.
    fingerprint: Option<String>,
    /// What the last host said that refused.
    refusal: Option<Error>,
}

/// Where events come from.
enum Source {
    Here(EventStream),
    Peer { replies: Replies, _at: AtPeer },
}

/// Why a source ended before its answer did.
enum Broken {
    /// Others would say the same.
    Final(Error),
    /// Another host may go on.
    Lost(String),
}

/// Answers a request.
pub(crate) async fn generate(shared: &Arc<Shared>, mut request: Request) -> Result<Answer, Error> {
    let found = shared.find(&request.model, Purpose::Generate).await;
    let found = found.inspect_err(|error| shared.note_missing(error))?;
    shared.ingress.count(&found.name);
    request.model.clone_from(&found.name);
    let only_here = found
        .candidates
        .iter()
        .all(|candidate| candidate.place == Place::Here);
    if only_here {
        let backend = shared.local(&found.name, Purpose::Generate)?;
        return Ok(Answer {
            events: backend.generate(request).await?,
            host: None,
        });
    }
    // Another host must be able to draw what the first would have drawn.
    request.sampling.seed.get_or_insert_with(rand::random);
    let mut search = Search {
        shared: Arc::clone(shared),
        beginnings: beginnings(&request),
        model: found.name,
        journal: Journal::new(request),
        tried: BTreeSet::new(),
        fingerprint: None,
        refusal: None,
    };
    let (place, source) = search.next_host().await?;
    let host = search.shared.computes(place);
    Ok(Answer {
        events: events(search, place, source),
        host,
    })
}

fn events(mut search: Search, mut place: Place, mut source: Source) -> EventStream {
    Box::pin(async_stream::stream! {
        loop {
            let broken = match source.next().await {
                Ok(event) => match search.journal.note(event) {
                    Ok(Some(event)) => {
                        let is_last = matches!(event, Event::Done(_));
                        yield Ok(event);
                        if is_last {
                            return;
                        }
                        continue;
                    }
                    Ok(None) => continue,
                    Err(error) => Broken::Lost(error.to_string()),
                },
                Err(broken) => broken,
            };
            match broken {
                Broken::Final(error) => {
                    yield Err(error);
                    return;
                }
                Broken::Lost(reason) => search.lose(place, &reason),
            }
            // Ends the call at the old host before another begins.
            drop(source);
            match search.next_host().await {
                Ok(next) => (place, source) = next,
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
    })
}

impl Search {
    /// Starts, or goes on with, the answer at the best host that was not asked yet.
    async fn next_host(&mut self) -> Result<(Place, Source), Error> {
        loop {
            let Some(candidate) = self.best().await else {
                return Err(self.nobody_left());
            };
            let place = candidate.place;
            match self.start(place).await {
                Ok(source) => {
                    self.shared.ingress.warmed(&self.beginnings, place);
                    self.fingerprint = Some(candidate.fingerprint);
                    return Ok((place, source));
                }
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Lost(reason)) => self.lose(place, &reason),
            }
        }
    }

    async fn best(&self) -> Option<Candidate> {
        let found = self
            .shared
            .find(&self.model, Purpose::Generate)
            .await
            .ok()?;
        let warm = self.shared.ingress.warm(&self.beginnings);
        rank(found.candidates, warm).into_iter().find(|candidate| {
            let same = self
                .fingerprint
                .as_ref()
                .is_none_or(|first| *first == candidate.fingerprint);
            let goes_on = same || !self.journal.has_begun();
            goes_on && !self.tried.contains(&candidate.place)
        })
    }

    async fn start(&mut self, place: Place) -> Result<Source, Broken> {
        let request = self.journal.resume();
        match place {
            Place::Here => {
                let backend = self.shared.local(&self.model, Purpose::Generate);
                let backend = backend.map_err(|error| self.refused(error))?;
                let events = backend.generate(request).await;
                events
                    .map(Source::Here)
                    .map_err(|error| self.refused(error))
            }
            Place::Peer(node) => {
                let Some(mesh) = self.shared.mesh() else {
                    return Err(Broken::Lost("the mesh was left".to_owned()));
                };
                let at = self.shared.ingress.begin_at(node);
                match peer::call(&mesh, node, &Call::Generate(Box::new(request))).await {
                    Ok(replies) => Ok(Source::Peer { replies, _at: at }),
                    Err(CallError::Refused(error)) => Err(self.refused(error)),
                    Err(CallError::Lost(reason)) => Err(Broken::Lost(reason)),
                }
            }
        }
    }

    /// Whether others would refuse as well.
    fn refused(&mut self, error: Error) -> Broken {
        if !may_differ_elsewhere(&error) {
            return Broken::Final(error);
        }
        let reason = error.to_string();
        self.refusal = Some(error);
        Broken::Lost(reason)
    }

    fn lose(&mut self, place: Place, reason: &str) {
        let host = self.shared.computes(place);
        let host = host.map_or_else(|| "this node".to_owned(), |host| host.name);
        tracing::warn!(host, reason, "a host can't go on with an answer");
        self.shared.ingress.lost(place);
        self.tried.insert(place);
    }

    fn nobody_left(&mut self) -> Error {
        if let Some(error) = self.refusal.take().filter(|_| !self.journal.has_begun()) {
            return error;
        }
        let model = &self.model;
        Error::Lost(if self.journal.has_begun() {
            format!(
                "the machine that answered is gone, and no other serves `{model}`; hint: ask again"
            )
        } else {
            format!("no machine that serves `{model}` can be reached; hint: try again in a moment")
        })
    }
}

impl Source {
    async fn next(&mut self) -> Result<Event, Broken> {
        match self {
            Self::Here(events) => match events.next().await {
                Some(Ok(event)) => Ok(event),
                Some(Err(error)) => Err(error.into()),
                None => Err(Broken::Lost("it broke off".to_owned())),
            },
            Self::Peer { replies, .. } => match replies.next().await {
                Ok(Reply::Event(event)) => Ok(event),
                Ok(other) => Err(replies.unexpected(&other).into()),
                Err(error) => Err(error.into()),
            },
        }
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        if may_differ_elsewhere(&error) {
            Self::Lost(error.to_string())
        } else {
            Self::Final(error)
        }
    }
}

impl From<CallError> for Broken {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(error) => error.into(),
            CallError::Lost(reason) => Self::Lost(reason),
        }
    }
}

/// Whether another host could answer what one refused.
pub(crate) fn may_differ_elsewhere(error: &Error) -> bool {
    match error {
        // Hosts differ in room, load and health.
        Error::ModelNotFound { .. }
        | Error::ContextLengthExceeded { .. }
        | Error::QueueFull { .. }
        | Error::ShuttingDown
        | Error::Inference(_)
        | Error::Load(_)
        | Error::Lost(_) => true,
        Error::InvalidRequest { .. } | Error::Unsupported(_) => false,
    }
}
