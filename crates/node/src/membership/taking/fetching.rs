//! Files of models that members ask this node to serve and that it lacks: it gets them where it gets layers, from
//! members and from its own hub, and loads them if the rules still allow that. Whoever asks says which model, and nothing
//! of where it comes from.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use gguf::Fingerprint;
use mesh::NodeId;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::task::spawn_blocking;

use super::super::{Done, Keeper};
use super::room::ContextMax;
use super::rules::{Begin, Fetches, Refusal, check_context};
use super::{Ask, plan_for, while_asked};
use crate::models::Table;
use crate::node::Shared;
use crate::split::{Need, Part, WholeFile};
use crate::wire::TakeUp;

/// What the disk has left at least when a file is there that a member wanted, bytes: its owner is to notice nothing.
const DISK_LEFT_BYTES: u64 = 2 << 30;

/// Of a large file this part of its size is left at least.
const DISK_LEFT_PART: u64 = 4;

/// Ends blocking work when nobody waits for it any more.
#[derive(Debug, Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether memory and disk have room for a model with so many tokens of context; 0: that can't be told. What serving it
/// takes exactly shows when its file is here.
fn check_need(need: &Need, context_tokens: u32, memory_free_bytes: u64) -> Result<(), Refusal> {
    let kv_bytes = need.kv_token_bytes.saturating_mul(context_tokens.into());
    let left_bytes = DISK_LEFT_BYTES.max(need.file_bytes / DISK_LEFT_PART);
    let disk_bytes = need.disk_free_bytes.unwrap_or(0);
    if need.weight_bytes.saturating_add(kv_bytes) > memory_free_bytes {
        // With how much context it would have room can't be told by this: it takes more than that.
        return Err(Refusal::NoRoom(ContextMax::default()));
    }
    if need.file_bytes > 0 && need.missing_bytes.saturating_add(left_bytes) > disk_bytes {
        return Err(Refusal::NoDisk);
    }
    Ok(())
}

/// A model that a member asks for and whose file came. Whether it is loaded is decided anew: a fetch may take hours.
pub(in crate::membership) struct Fetched {
    ask: Ask,
    file: WholeFile,
    /// Tokens that it was trained for; 0: unknown.
    trained: u32,
    /// Until then nothing else is fetched or loaded for members.
    permit: Option<OwnedSemaphorePermit>,
}

/// A file that is wanted.
struct Wish {
    shared: Weak<Shared>,
    part: Part,
    /// Whoever asks.
    peer: NodeId,
    model: Fingerprint,
    context_tokens: u32,
    fetches: Fetches,
    told: watch::Sender<u8>,
}

impl Wish {
    /// Gets the file, with the tokens that the model was trained for. Dropping the future ends that, and what has come is
    /// kept.
    async fn fetch(self) -> Result<(WholeFile, u32), Refusal> {
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        let fetched = spawn_blocking(move || self.run(&stopped)).await;
        // An error is the end of the runtime, or a panic that was told of.
        fetched.unwrap_or(Err(Refusal::NotFetched))
    }

    /// The same on a thread that may block.
    fn run(&self, stopped: &AtomicBool) -> Result<(WholeFile, u32), Refusal> {
        let mut goes_on = || !stopped.load(Ordering::Relaxed);
        let failed = |reason: String| {
            tracing::warn!(reason, "the file of a model can't be fetched");
            Refusal::NotFetched
        };
        let slices = &self.part.slices;
        let need = slices.need(self.peer, self.model, &mut goes_on);
        let need = need.map_err(failed)?;
        self.check(&need)?;
        let mut told = |percent: u8| {
            self.told.send_if_modified(|known| {
                let is_more = percent > *known;
                *known = percent.max(*known);
                is_more
            });
            goes_on()
        };
        let file = slices.fetch_whole(self.peer, self.model, &need, &mut told);
        Ok((file.map_err(failed)?, need.context_tokens))
    }

    /// Whether the model can be served here, as far as its headers tell; notes the fetch if there is one. A fetch that
    /// takes hours keeps no node alive that was let go.
    fn check(&self, need: &Need) -> Result<(), Refusal> {
        let shared = self.shared.upgrade().ok_or(Refusal::Closing)?;
        let settings = &shared.settings;
        let own_tokens = settings.context_tokens.unwrap_or(0);
        let max = need.context_tokens.max(own_tokens);
        let checked = check_context(self.context_tokens, max, need.context_tokens);
        // The owner would allow so much; whether memory has room for it shows once the file is here.
        checked.map_err(|refusal| refusal.with(ContextMax::default()))?;
        let tokens = match self.context_tokens {
            0 => own_tokens,
            asked => asked,
        };
        let free_bytes = shared.models.free_bytes(settings.memory_bytes_max);
        check_need(need, tokens, free_bytes)?;
        if need.file_bytes > 0 {
            self.fetches.note(shared.ingress.now_ms());
        }
        Ok(())
    }
}

impl Keeper {
    /// Gets the file of a model that a member asks for; [`load_fetched`](Self::load_fetched) goes on with it. Ends when
    /// nobody waits for the file any more.
    pub(super) fn fetch_and_load(&mut self, shared: &Arc<Shared>, mut ask: Ask) {
        let fingerprint = ask.wanted.fingerprint.parse::<Fingerprint>();
        let (Some(part), Ok(fingerprint)) = (self.part.clone(), fingerprint) else {
            // Fails only when nobody waits any more.
            let _ = ask.answer.send(Err(Refusal::NoFetch.into()));
            return;
        };
        let (peer, wanted) = (ask.peer, &ask.wanted);
        let model = wanted.model.clone();
        tracing::info!(
            model,
            peer = peer.short(),
            "fetching a model that a member asks for"
        );
        let permit = self.taken.begin(peer, &model, &wanted.fingerprint);
        let wish = Wish {
            shared: Arc::downgrade(shared),
            part,
            peer,
            model: fingerprint,
            context_tokens: wanted.context_tokens,
            fetches: self.taken.fetched(),
            told: ask.told.clone(),
        };
        self.tasks.spawn(async move {
            let Some(fetched) = while_asked(wish.fetch(), false, &mut ask.answer).await else {
                tracing::info!(model, "nobody waits for the file of a model any more");
                return Done::Call;
            };
            match fetched {
                Ok((file, trained)) => Done::Fetched(Box::new(Fetched {
                    ask,
                    file,
                    trained,
                    permit,
                })),
                Err(refusal) => {
                    tracing::warn!(model, %refusal, "a model could not be fetched");
                    let _ = ask.answer.send(Err(refusal.into()));
                    Done::Call
                }
            }
        });
    }

    /// Loads a model whose file came, and serves it, if the rules still say so. The file stays in any case, and goes when
    /// room is short.
    pub(in crate::membership) fn load_fetched(&mut self, fetched: Fetched) {
        let Fetched {
            ask,
            file,
            trained,
            permit,
        } = fetched;
        let Some(shared) = self.shared.upgrade() else {
            // Dropping what was asked answers it.
            return;
        };
        if ask.answer.is_closed() {
            let model = &ask.wanted.model;
            tracing::info!(model, "nobody waits for a model any more that was fetched");
            return;
        }
        // It is not to be in its own way. Nothing else begins before this ends.
        let TakeUp {
            model, fingerprint, ..
        } = &ask.wanted;
        self.taken.release(ask.peer, model, fingerprint);
        drop(permit);
        let plan = plan_for(&ask.wanted, &file.path, &shared);
        match self.judge(&shared, &ask, Some(trained)) {
            Ok(Begin::Wait) => self.bring(shared, ask, None, ()),
            // There is nothing to fetch: the file is here.
            Ok(Begin::Load | Begin::Fetch) => {
                let loading = hold(file, ask.wanted.model.clone(), shared.models.watch());
                self.bring(shared, ask, Some(plan), loading);
            }
            Err(refusal) => self.refuse(&shared, ask, refusal, Some(plan)),
        }
    }
}

/// Keeps a file in the cache until what comes back is dropped, and for as long after that as a model is here that is from
/// it. On its own: what keeps this node's place in a mesh may end, and the model goes on.
fn hold(file: WholeFile, model: String, table: watch::Receiver<Table>) -> oneshot::Sender<()> {
    let (loading, loaded) = oneshot::channel();
    tokio::spawn(async move {
        // Nothing is sent: the other end is dropped.
        let _ = loaded.await;
        let_go(table, &model, &file.path).await;
        drop(file);
    });
    loading
}

/// Waits until a model is not here any more that was loaded from this file.
async fn let_go(mut table: watch::Receiver<Table>, model: &str, path: &Path) {
    // An error: the node is gone.
    let _ = table.wait_for(|table| !table.is_from(model, path)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn a_file_is_fetched_where_memory_and_disk_have_room() {
        let check = |file: u64, disk: Option<u64>, memory: u64, expected: Result<(), Refusal>| {
            let need = Need {
                file_bytes: file,
                missing_bytes: file,
                disk_free_bytes: disk,
                weight_bytes: 8 * GB,
                ..Need::default()
            };
            assert_eq!(check_need(&need, 0, memory), expected, "{need:?} {memory}");
        };
        check(8 * GB, Some(10 * GB), 8 * GB, Ok(()));
        check(8 * GB, Some(10 * GB - 1), 8 * GB, Err(Refusal::NoDisk));
        let no_room = Err(Refusal::NoRoom(ContextMax(0)));
        check(8 * GB, Some(10 * GB), 8 * GB - 1, no_room);
        check(8 * GB, None, 8 * GB, Err(Refusal::NoDisk));
        // Of a large file more is left.
        check(40 * GB, Some(50 * GB), 8 * GB, Ok(()));
        check(40 * GB, Some(50 * GB - 1), 8 * GB, Err(Refusal::NoDisk));
        check(u64::MAX, Some(u64::MAX - 1), 8 * GB, Err(Refusal::NoDisk));
        // What is here takes no disk.
        check(0, None, 8 * GB, Ok(()));
    }

    #[test]
    fn what_came_before_a_break_takes_no_more_of_the_disk() {
        let check = |missing: u64, expected: Result<(), Refusal>| {
            let need = Need {
                file_bytes: 40 * GB,
                missing_bytes: missing,
                disk_free_bytes: Some(12 * GB),
                ..Need::default()
            };
            assert_eq!(check_need(&need, 0, 0), expected, "{need:?}");
        };
        check(2 * GB, Ok(()));
        check(2 * GB + 1, Err(Refusal::NoDisk));
    }

    #[test]
    fn the_context_needs_memory_too() {
        let need = Need {
            weight_bytes: 8 * GB,
            kv_token_bytes: 1 << 20,
            ..Need::default()
        };
        let check = |tokens: u32, memory: u64, expected: Result<(), Refusal>| {
            assert_eq!(check_need(&need, tokens, memory), expected, "{tokens}");
        };
        check(1_024, 9 * GB, Ok(()));
        let no_room = Err(Refusal::NoRoom(ContextMax(0)));
        check(1_024, 9 * GB - 1, no_room);
        check(0, 8 * GB, Ok(()));
        check(u32::MAX, 9 * GB, no_room);
    }
}
