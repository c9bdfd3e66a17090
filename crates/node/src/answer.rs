//! One answer from wherever the model is, and from another host when the first is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::{Error, Event, EventStream, Request};
use futures::StreamExt;
use mesh::NodeId;
use tokio::time::{Instant, sleep};

use crate::affinity::{Beginning, beginnings};
use crate::directory::Found;
use crate::ingress::AtPeer;
use crate::journal::Journal;
use crate::models::Purpose;
use crate::node::Shared;
use crate::peer::{self, CallError, Replies};
use crate::route::{Candidate, Place, rank};
use crate::succession::{Prospect, is_between_hosts, members, prospect};
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

/// How long a stream waits for a model over several machines whose host is lost: finding that out takes
/// some ten seconds, loading the last layers on another machine from a slow disk most of the rest. The
/// client sees comments meanwhile, and after so long an error.
const HOST_WAIT_MAX: Duration = Duration::from_secs(120);

/// How long such a stream waits while nobody has room for the model: others may free some.
const STUCK_MAX: Duration = Duration::from_secs(8);

/// Who has no connection to any member for so long hears of no other host: members that all died at once are
/// declared dead by nobody.
const ALONE_MAX: Duration = Duration::from_secs(20);

/// Pause between two looks for another host; who is told of the mesh only on request asks so often.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A host that could not be reached is tried again after so long: perhaps the way to it was broken.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

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
    /// How much hope the last host has left.
    hope: Hope,
}

/// What the end of the last host says of those that may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hope {
    /// It is gone, and others know nothing of that yet.
    Open,
    /// It has no machines for the model: only a host that is seen to come can help.
    Low,
    /// It lives, and says no.
    None,
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
    /// The host says so; another may go on.
    Refused(Error),
    /// Another host may go on.
    Lost(String),
}

/// Answers a request.
pub(crate) async fn generate(shared: &Arc<Shared>, mut request: Request) -> Result<Answer, Error> {
    let found = match shared.find(&request.model, Purpose::Generate).await {
        Err(Error::ModelNotFound { .. }) if is_orphan(shared, &request.model) => {
            find_later(shared, &request.model).await
        }
        found => found,
    };
    let found = found.inspect_err(|error| shared.note_missing(error))?;
    shared.ingress.count(&found.name);
    request.model.clone_from(&found.name);
    let only_here = found
        .candidates
        .iter()
        .all(|candidate| candidate.place == Place::Here);
    // A model over several machines may go on with another host.
    if only_here && !shared.models.table().is_over_several(&found.name) {
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
        fingerprint: found
            .candidates
            .first()
            .map(|first| first.fingerprint.clone()),
        refusal: None,
        hope: Hope::Open,
    };
    let (place, source) = search.next_host().await?;
    let host = search.shared.computes(place);
    Ok(Answer {
        events: events(search, place, source),
        host,
    })
}

/// Whether a model goes from one host to another at the moment.
fn is_orphan(shared: &Shared, model: &str) -> bool {
    let view = shared.view();
    view.is_some_and(|view| is_between_hosts(&members(&view), model))
}

/// Waits until a model that goes from one host to another is there again.
async fn find_later(shared: &Arc<Shared>, model: &str) -> Result<Found, Error> {
    let began = Instant::now();
    loop {
        look_again(shared).await;
        let found = shared.find(model, Purpose::Generate).await;
        let is_late = began.elapsed() >= HOST_WAIT_MAX;
        if found.is_ok() || is_late || !is_orphan(shared, model) {
            return found;
        }
    }
}

/// Waits until the mesh may look different.
async fn look_again(shared: &Arc<Shared>) {
    let membership = shared.membership.borrow().clone();
    match membership {
        Some(membership) => membership.look_again(LOOK_INTERVAL).await,
        None => sleep(LOOK_INTERVAL).await,
    }
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
                Broken::Refused(error) => search.refuse(place, error),
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
    /// Starts, or goes on with, the answer at the best host that was not asked yet. Waits for one if the
    /// model runs on several machines and somebody will host it.
    async fn next_host(&mut self) -> Result<(Place, Source), Error> {
        let began = Instant::now();
        let (mut hopeful, mut tried, mut connected) = (began, began, began);
        loop {
            let Some(candidate) = self.best().await else {
                let now = Instant::now();
                match (self.prospect(), self.hope) {
                    (Prospect::Coming, Hope::Open | Hope::Low) => hopeful = now,
                    (Prospect::Stuck, Hope::Open) if now < hopeful + STUCK_MAX => {}
                    _ => return Err(self.nobody_left()),
                }
                if self.shared.is_connected() {
                    connected = now;
                }
                if now >= began + HOST_WAIT_MAX || now >= connected + ALONE_MAX {
                    return Err(self.nobody_left());
                }
                if now >= tried + RETRY_INTERVAL {
                    tried = now;
                    self.tried.clear();
                }
                look_again(&self.shared).await;
                continue;
            };
            let place = candidate.place;
            match self.start(place).await {
                Ok(source) => {
                    self.shared.ingress.warmed(&self.beginnings, place);
                    self.fingerprint = Some(candidate.fingerprint);
                    self.hope = Hope::Open;
                    self.refusal = None;
                    return Ok((place, source));
                }
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Lost(reason)) => self.lose(place, &reason),
                Err(Broken::Refused(error)) => self.refuse(place, error),
            }
        }
    }

    /// What may be hoped for when nobody can be asked now.
    fn prospect(&self) -> Prospect {
        match (&self.fingerprint, self.shared.view()) {
            (Some(fingerprint), Some(view)) => prospect(&members(&view), fingerprint),
            _ => Prospect::Whole,
        }
    }

    /// A host said that it can't answer, or go on.
    fn refuse(&mut self, place: Place, error: Error) {
        self.lose(place, &error.to_string());
        if !has_successor(&error) {
            self.hope = match error {
                Error::Lost(_) | Error::Inference(_) => Hope::Low,
                _ => Hope::None,
            };
            self.refusal = Some(error);
        } else if self.refusal.is_none() {
            self.refusal = Some(error);
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
                let events = backend?.generate(request).await;
                Ok(Source::Here(events?))
            }
            Place::Peer(node) => {
                let Some(mesh) = self.shared.mesh() else {
                    return Err(Broken::Lost("the mesh was left".to_owned()));
                };
                let at = self.shared.ingress.begin_at(node);
                match peer::call(&mesh, node, &Call::Generate(Box::new(request))).await {
                    Ok(replies) => Ok(Source::Peer { replies, _at: at }),
                    Err(CallError::Refused(error)) => Err(error.into()),
                    Err(CallError::Lost(reason)) => Err(Broken::Lost(reason)),
                }
            }
        }
    }

    fn lose(&mut self, place: Place, reason: &str) {
        let host = self.shared.computes(place);
        let host = host.map_or_else(|| "this node".to_owned(), |host| host.name);
        tracing::warn!(host, reason, "a host can't go on with an answer");
        self.hope = Hope::Open;
        self.shared.ingress.lost(place);
        self.tried.insert(place);
    }

    fn nobody_left(&mut self) -> Error {
        let begun = self.journal.has_begun();
        let tells = |error: &Error| !begun || !has_successor(error);
        if let Some(error) = self.refusal.take().filter(tells) {
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
            Self::Refused(error)
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

/// Whether a host that says so is about to be followed by another, or was already.
fn has_successor(error: &Error) -> bool {
    matches!(error, Error::ShuttingDown | Error::ModelNotFound { .. })
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
