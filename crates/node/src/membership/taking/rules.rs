//! Which models a node takes up because a member asks, and why it refuses the others. Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::NodeId;
use mesh::announcement::NodeInfo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::room::ContextMax;
use crate::ModelState;
use crate::models::{is_auto, is_called};
use crate::wire::TakeUp;

/// Models that one member may have this node keep. Whoever has more of them may split the rest.
const KEPT_MAX: usize = 2;

/// A model that could not be loaded is not tried again for others so soon, ms: a try may keep a disk busy for minutes,
/// and somebody has to mend the file.
const RETRY_MS: u64 = 5 * 60_000;

/// Requests that run at once for others at most, where the owner of this node names no number: as many as the engine
/// runs where nobody does.
const SLOTS_MAX: u32 = 8;

/// Files that are fetched for members in an hour at most, so that nobody makes this node download one after the other.
const FETCHES_MAX: usize = 4;

/// For one member it is looked no more often how much context a model could have here, ms: that keeps a core busy for a
/// moment.
const LOOK_MS: u64 = 30_000;

/// How long a fetch counts for that, ms.
const FETCHES_MS: u64 = 3_600_000;

/// A context of fewer tokens is of little use to the mesh, and would keep a longer one from the name. No more is asked of
/// models that were trained for less.
pub(super) const CONTEXT_MIN: u32 = 2_048;

/// A model of this node's table.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) state: ModelState,
    /// Identity of its content, as far as it is known: what is loaded from elsewhere than the models folders shows it
    /// once it answers.
    pub(super) fingerprint: Option<String>,
    /// Tokens that fit into its context, once it answers.
    pub(super) context_tokens: Option<u32>,
    pub(super) is_split: bool,
}

impl Known {
    /// What has failed is in nobody's way.
    fn has_failed(&self) -> bool {
        matches!(self.state, ModelState::Failed { .. })
    }
}

/// What is known at one moment.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) is_client: bool,
    /// The node is about to stop.
    pub(super) is_closing: bool,
    /// Whether the owner of this node wants it to run what others ask for.
    pub(super) is_willing: bool,
    /// Whether whoever asks serves models too.
    pub(super) is_from_server: bool,
    /// Whether it tells the mesh that it hosts the model, by this very name.
    pub(super) is_claimed: bool,
    /// Whether a member answers for another model by that name.
    pub(super) is_name_taken: bool,
    /// Whether the owner of this node dropped the model not long ago.
    pub(super) was_dropped: bool,
    /// Whether it could not be loaded not long ago.
    pub(super) has_failed: bool,
    /// Whether a model is being loaded because a member asked.
    pub(super) is_loading: bool,
    /// Whether this node could get the file of a model from members at all.
    pub(super) could_fetch: bool,
    /// Files that were fetched for members in the last hour, or tried to be.
    pub(super) fetches: usize,
    /// Models that are here for whoever asks.
    pub(super) kept: usize,
    /// The most tokens of context that the model gets here; `None`: no file on the disk has its content.
    pub(super) context_max: Option<u32>,
    /// Tokens that the model was trained for; 0: unknown.
    pub(super) context_trained: u32,
    pub(super) known: Vec<Known>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Load it.
    Load,
    /// Get its file, and load it.
    Fetch,
    /// It is loaded, or answers already.
    Wait,
}

/// Why a model is not taken up, as a sentence about this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is a client and runs no models")]
    Client,
    #[error("it is about to stop")]
    Closing,
    #[error("too many ask it at once")]
    TooMany,
    #[error("its owner wants no models there that others ask for")]
    Unwilling,
    #[error("it takes models up for members that serve some")]
    NoServer,
    #[error("whoever asks does not tell the mesh of the model")]
    Unclaimed,
    #[error("no model may have this name")]
    BadName,
    #[error("another model has this name")]
    NameTaken,
    #[error("it serves the model under another name")]
    OtherName,
    #[error("it runs the model over several machines")]
    Split,
    #[error("it does not serve the model any more")]
    Leaving,
    #[error("its owner has dropped the model")]
    Dropped,
    /// More context is asked for than the model may have here.
    #[error("it has less context for the model{0}")]
    Context(ContextMax),
    /// It is served with so many tokens.
    #[error("it serves the model with less context, {0} tokens")]
    LessContext(u32),
    #[error("it loads no model with so little context")]
    LittleContext,
    #[error("it has no file of the model")]
    NoFile,
    #[error("it fetches no file of the model")]
    NoFetch,
    #[error("it has fetched enough files for now")]
    Fetched,
    #[cfg(feature = "solo")]
    #[error("its disk has too little room for the model")]
    NoDisk,
    #[cfg(feature = "solo")]
    #[error("it could not get the file of the model")]
    NotFetched,
    #[error("it has no memory for the model{0}")]
    NoRoom(ContextMax),
    #[error("the model could not be loaded there")]
    Failed,
    #[error("its load of the model does not get on")]
    Stalled,
    #[error("it loads another model")]
    Busy,
    #[error("it keeps enough models for whoever asks")]
    Enough,
}

impl Refusal {
    /// The same where so much context would have room.
    pub(super) fn with(self, most: ContextMax) -> Self {
        match self {
            Self::Context(_) => Self::Context(most),
            Self::NoRoom(_) => Self::NoRoom(most),
            refusal => refusal,
        }
    }
}

/// Whether a member tells the mesh that it hosts the model.
pub(super) fn claims(info: &NodeInfo, wanted: &TakeUp) -> bool {
    let mut splits = info.splits.iter().map(|split| &split.model);
    splits.any(|model| model.name == wanted.model && model.fingerprint == wanted.fingerprint)
}

/// Whether a member answers for another model by that name.
pub(super) fn is_claimed_otherwise(info: &NodeInfo, wanted: &TakeUp) -> bool {
    let mut serving = info.serving.iter().map(|served| &served.model);
    serving.any(|model| {
        is_same_name(&model.name, &wanted.model) && model.fingerprint != wanted.fingerprint
    })
}

/// Whether users who ask for one of two models could be given the other.
fn is_same_name(one: &str, other: &str) -> bool {
    one == other || is_called(one, other) || is_called(other, one)
}

/// Requests that a model runs at once, if a member asks for so many and the owner of this node names `own`; 0: as many as
/// the owner wants.
pub(super) fn slots(asked: u32, own: Option<u32>) -> u32 {
    asked.min(own.unwrap_or(SLOTS_MAX))
}

/// The first of some rules that is broken.
fn check<const N: usize>(rules: [(bool, Refusal); N]) -> Result<(), Refusal> {
    let mut broken = rules.into_iter().filter(|(is_broken, _)| *is_broken);
    broken.next().map_or(Ok(()), |(_, refusal)| Err(refusal))
}

/// Whether to take a model up; else why not.
pub(super) fn decide(wanted: &TakeUp, scene: &Scene) -> Result<Begin, Refusal> {
    check([
        (scene.is_client, Refusal::Client),
        (scene.is_closing, Refusal::Closing),
        (!scene.is_from_server, Refusal::NoServer),
        (is_auto(&wanted.model), Refusal::BadName),
        (!scene.is_claimed, Refusal::Unclaimed),
    ])?;
    // Waiting for what is there takes nothing of anybody.
    if let Some(begin) = find(wanted, &scene.known)? {
        return Ok(begin);
    }
    let lacks = scene.context_max.is_none();
    check([
        (!scene.is_willing, Refusal::Unwilling),
        (scene.is_name_taken, Refusal::NameTaken),
        (scene.was_dropped, Refusal::Dropped),
        (lacks && !wanted.fetch, Refusal::NoFile),
        (lacks && !scene.could_fetch, Refusal::NoFetch),
    ])?;
    if let Some(context_max) = scene.context_max {
        check_context(wanted.context_tokens, context_max, scene.context_trained)?;
    }
    check([
        (scene.has_failed, Refusal::Failed),
        (scene.kept >= KEPT_MAX, Refusal::Enough),
        (scene.is_loading, Refusal::Busy),
        (lacks && scene.fetches >= FETCHES_MAX, Refusal::Fetched),
    ])?;
    Ok(match lacks {
        // Its context is looked at once its headers are here.
        true => Begin::Fetch,
        false => Begin::Load,
    })
}

/// Whether a model gets so many tokens of context here, if it may have `max` and was trained for `trained`.
pub(super) fn check_context(tokens: u32, max: u32, trained: u32) -> Result<(), Refusal> {
    // With 0 this node's own is meant.
    let is_little = (1..CONTEXT_MIN.min(trained)).contains(&tokens);
    check([
        (tokens > max, Refusal::Context(ContextMax(max))),
        (is_little, Refusal::LittleContext),
    ])
}

/// What to do where the table has the model, or another one of that name; `None`: neither.
fn find(wanted: &TakeUp, known: &[Known]) -> Result<Option<Begin>, Refusal> {
    let same_content = |known: &Known| {
        let content = known.fingerprint.as_ref();
        content.map(|fingerprint| *fingerprint == wanted.fingerprint)
    };
    let living = || known.iter().filter(|known| !known.has_failed());
    let exact = living().find(|known| known.name == wanted.model);
    let similar = || {
        living().find(|known| {
            same_content(known) == Some(true) || is_same_name(&known.name, &wanted.model)
        })
    };
    let Some(found) = exact.or_else(similar) else {
        return Ok(None);
    };
    match (&found.state, same_content(found)) {
        (_, Some(false)) => Err(Refusal::NameTaken),
        _ if found.is_split => Err(Refusal::Split),
        (_, Some(true)) if found.name != wanted.model => Err(Refusal::OtherName),
        // What it is shows once it is loaded.
        _ if found.name != wanted.model => Err(Refusal::NameTaken),
        (ModelState::Ready, _) => match found.context_tokens {
            Some(tokens) if tokens < wanted.context_tokens => Err(Refusal::LessContext(tokens)),
            _ => Ok(Some(Begin::Wait)),
        },
        (ModelState::Loading { .. }, Some(true)) => Ok(Some(Begin::Wait)),
        // It may be another one, and that would show after hours only.
        (ModelState::Loading { .. }, None) => Err(Refusal::Busy),
        _ => Err(Refusal::Leaving),
    }
}

/// A model that was taken up for a member.
#[derive(Debug)]
struct Kept {
    peer: NodeId,
    model: String,
    fingerprint: String,
}

/// When files were fetched for members, ms. Copies are of the same list: whether a file must be fetched shows on another
/// thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetches(Arc<Mutex<Vec<u64>>>);

impl Fetches {
    fn times_ms(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file is about to be fetched. It is forgotten in an hour, and there are no more than rules allow.
    #[cfg(any(test, feature = "solo"))]
    pub(super) fn note(&self, now_ms: u64) {
        self.times_ms().push(now_ms);
    }
}

/// What this node has taken up because members asked, and what it could not.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Of which there is one, for whoever loads.
    loads: Arc<Semaphore>,
    /// Of which there is one, for whoever looks how much context a model could have: that reads headers.
    looks: Arc<Semaphore>,
    /// When it was looked last for a member. As many as a mesh has.
    looked_ms: BTreeMap<NodeId, u64>,
    kept: Vec<Kept>,
    /// When models could not be loaded, by fingerprint.
    failed_ms: BTreeMap<String, u64>,
    fetched: Fetches,
}

impl Default for Taken {
    fn default() -> Self {
        Self {
            loads: Arc::new(Semaphore::new(1)),
            looks: Arc::new(Semaphore::new(1)),
            looked_ms: BTreeMap::new(),
            kept: Vec::new(),
            failed_ms: BTreeMap::new(),
            fetched: Fetches::default(),
        }
    }
}

impl Taken {
    /// Forgets what is not in the table any more, and old failures.
    pub(super) fn forget(&mut self, known: &[Known], now_ms: u64) {
        self.failed_ms.retain(|_, at| now_ms < *at + RETRY_MS);
        let mut fetched_ms = self.fetched.times_ms();
        fetched_ms.retain(|at| now_ms < *at + FETCHES_MS);
        drop(fetched_ms);
        if self.is_loading() {
            // It may be about to come into the table.
            return;
        }
        let is_there = |kept: &Kept| {
            let living = known.iter().filter(|known| !known.has_failed());
            let mut named = living.filter(|known| known.name == kept.model);
            named.any(|known| {
                let content = known.fingerprint.as_ref();
                content.is_none_or(|fingerprint| *fingerprint == kept.fingerprint)
            })
        };
        self.kept.retain(is_there);
    }

    /// A model is loaded for a member from now on, until what comes back is dropped. `None`: another one is.
    pub(super) fn begin(
        &mut self,
        peer: NodeId,
        model: &str,
        fingerprint: &str,
    ) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.loads).try_acquire_owned().ok()?;
        // One that could not be loaded may still be there.
        self.release(peer, model, fingerprint);
        self.kept.push(Kept {
            peer,
            model: model.to_owned(),
            fingerprint: fingerprint.to_owned(),
        });
        Some(permit)
    }

    /// A model counts no more as one that is here for a member.
    pub(super) fn release(&mut self, peer: NodeId, model: &str, fingerprint: &str) {
        self.kept.retain(|kept| {
            kept.peer != peer || kept.model != model || kept.fingerprint != fingerprint
        });
    }

    /// It is looked for a member how much context a model could have, until what comes back is dropped. `None`: of another
    /// one it is, or it was for this member not long ago.
    pub(super) fn look(&mut self, peer: NodeId, now_ms: u64) -> Option<OwnedSemaphorePermit> {
        self.looked_ms.retain(|_, at| now_ms < *at + LOOK_MS);
        if self.looked_ms.contains_key(&peer) {
            return None;
        }
        let permit = Arc::clone(&self.looks).try_acquire_owned().ok()?;
        self.looked_ms.insert(peer, now_ms);
        Some(permit)
    }

    pub(super) fn is_loading(&self) -> bool {
        self.loads.available_permits() == 0
    }

    pub(super) fn kept_for(&self, peer: NodeId) -> usize {
        self.kept.iter().filter(|kept| kept.peer == peer).count()
    }

    /// The fingerprint of a model that was taken up.
    pub(super) fn fingerprint(&self, model: &str) -> Option<String> {
        let kept = self.kept.iter().find(|kept| kept.model == model);
        kept.map(|kept| kept.fingerprint.clone())
    }

    /// Where files are noted that are fetched.
    #[cfg(any(test, feature = "solo"))]
    pub(super) fn fetched(&self) -> Fetches {
        self.fetched.clone()
    }

    /// Files that were fetched in the last hour, or tried to be.
    pub(super) fn fetches(&self, now_ms: u64) -> usize {
        let is_recent = |at: &&u64| now_ms < **at + FETCHES_MS;
        self.fetched.times_ms().iter().filter(is_recent).count()
    }

    /// A model could not be loaded.
    pub(super) fn fail(&mut self, fingerprint: String, now_ms: u64) {
        self.failed_ms.insert(fingerprint, now_ms);
    }

    pub(super) fn has_failed(&self, fingerprint: &str, now_ms: u64) -> bool {
        let at = self.failed_ms.get(fingerprint);
        at.is_some_and(|at| now_ms < *at + RETRY_MS)
    }
}

#[cfg(test)]
mod tests;
