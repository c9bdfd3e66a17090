//! How fast this machine is with a model, before it runs it: a short run on some layers, which are fetched where the
//! model's file is not here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gguf::{Fingerprint, SliceRole};
use mesh::NodeId;
use split::plan::Speed;
use split::weights::{SliceKey, shares_weights};

use super::super::probe::{Trial, probe};
use super::super::{MESH_IS_PUBLISHED, trial_folder};
use super::Slices;
use crate::disk_free_bytes;

/// Most bytes of layers that are fetched for a trial: some seconds of a fast network. Where a single layer is larger, a
/// guess does until the machine has run some.
const FETCH_BYTES_MAX: u64 = 256 << 20;

/// How long that may take: the most bytes at 18 Mbit/s.
const FETCH_TIME_MAX: Duration = Duration::from_secs(120);

/// What the disk has left at least: the gigabyte that every fetch leaves, and more, so that nothing is removed from the
/// cache for a trial.
const DISK_LEFT_BYTES: u64 = 1_280 << 20;

/// What the cache has room for beside the layers at least, for the same reason: headers, and what stages still fetch.
const CACHE_LEFT_BYTES: u64 = 1 << 30;

/// So long after a try the next one of the same model may fetch again.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Most tries in an hour, of all models together: members may ask with as many as they like, and each try takes up to
/// [`FETCH_BYTES_MAX`] of the network.
const TRIES_MAX: usize = 16;

/// How long a try counts for that.
const TRIES_TIME: Duration = Duration::from_secs(3_600);

/// Slices of earlier trials that could not be removed yet, because they are in use. With so many nothing is fetched.
const LEFT_MAX: usize = 4;

/// What decides whether layers are fetched for a trial.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// The layers' weights; 0 before the layers are known.
    bytes: u64,
    /// `None`: it can't be told.
    disk_free_bytes: Option<u64>,
    /// What fits into the cache before anything is removed. `None`: it can't be told.
    cache_room_bytes: Option<u64>,
    mesh_is_published: bool,
    /// How long ago they were last fetched, or tried to be.
    last_try: Option<Duration>,
    /// Tries of all models in the last hour.
    tries: usize,
    /// Slices of earlier trials that are still here.
    left: usize,
}

impl Wish {
    /// Why nothing is fetched, if so.
    fn objection(&self) -> Option<&'static str> {
        let disk_bytes = self.disk_free_bytes.unwrap_or(0);
        let cache_bytes = self.cache_room_bytes.unwrap_or(0);
        // What a giver's own user says, the giver minds.
        if !shares_weights(self.mesh_is_published, None) {
            Some("members of a published mesh fetch nothing unasked")
        } else if self.bytes > FETCH_BYTES_MAX {
            Some("the layers are too large to fetch them for a trial")
        } else if self.bytes.saturating_add(DISK_LEFT_BYTES) > disk_bytes {
            Some("the disk has too little room for a trial")
        } else if self.bytes.saturating_add(CACHE_LEFT_BYTES) > cache_bytes {
            Some("the cache has too little room for a trial")
        } else if self.left >= LEFT_MAX {
            Some("what earlier trials have fetched is still in use")
        } else if self.last_try.is_some_and(|ago| ago < AGAIN_AFTER) {
            Some("to fetch the layers was tried a short time ago")
        } else if self.tries >= TRIES_MAX {
            Some("many models were tried in the last hour")
        } else {
            None
        }
    }
}

/// What was fetched for trials, or tried to be.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of the last hour, the oldest first.
    tries: Vec<Try>,
    /// What is in the cache for trials alone.
    fetched: Vec<Fetched>,
}

#[derive(Debug)]
struct Try {
    model: Fingerprint,
    at: Instant,
    /// It ended because the machine had something better to do: that says nothing of the next one.
    was_broken_off: bool,
}

#[derive(Debug)]
struct Fetched {
    key: SliceKey,
    /// A trial fetches or runs it.
    is_in_use: bool,
}

impl Tries {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries in the hour before `now`.
    fn count(&self, now: Instant) -> usize {
        let mut known = self.known();
        let is_recent = |past: &Try| now.saturating_duration_since(past.at) < TRIES_TIME;
        known.tries.retain(is_recent);
        known.tries.len()
    }

    /// How long before `now` a model was tried.
    fn last(&self, model: Fingerprint, now: Instant) -> Option<Duration> {
        let known = self.known();
        let mut tries = known.tries.iter().rev();
        let last = tries.find(|past| past.model == model && !past.was_broken_off)?;
        Some(now.saturating_duration_since(last.at))
    }

    fn begin(&self, model: Fingerprint, at: Instant) {
        let mut known = self.known();
        known.tries.push(Try {
            model,
            at,
            was_broken_off: false,
        });
        // More are only begun where several are at once.
        if known.tries.len() > TRIES_MAX {
            known.tries.remove(0);
        }
    }

    /// A slice is about to be fetched.
    fn fetch(&self, key: &SliceKey) {
        let mut known = self.known();
        known.fetched.retain(|fetched| fetched.key != *key);
        known.fetched.push(Fetched {
            key: key.clone(),
            is_in_use: true,
        });
    }

    /// The try of a model that began `at` is over.
    fn end(&self, model: Fingerprint, at: Instant, was_broken_off: bool) {
        let mut known = self.known();
        for past in &mut known.tries {
            if past.model == model && past.at == at {
                past.was_broken_off = was_broken_off;
            }
        }
        for fetched in &mut known.fetched {
            if fetched.key.model == model {
                fetched.is_in_use = false;
            }
        }
    }

    /// Slices that are of no more use.
    fn left(&self) -> Vec<SliceKey> {
        let known = self.known();
        let left = known.fetched.iter().filter(|fetched| !fetched.is_in_use);
        left.map(|fetched| fetched.key.clone()).collect()
    }

    /// A slice that was of no more use is gone.
    fn gone(&self, key: &SliceKey) {
        let mut known = self.known();
        known
            .fetched
            .retain(|fetched| fetched.key != *key || fetched.is_in_use);
    }

    /// A slice belongs to a stage, and stays.
    fn keep(&self, stage: &SliceKey) {
        self.known().fetched.retain(|fetched| fetched.key != *stage);
    }
}

impl Slices {
    /// Runs some layers of a model. Blocks, for some minutes at most.
    pub(super) fn measure(
        &self,
        host: NodeId,
        model: Fingerprint,
        is_free: &dyn Fn() -> bool,
    ) -> Result<Speed, String> {
        let memory_bytes = self.loader.memory_available();
        match self.find(&model.to_string()) {
            Some(path) => {
                let folder = trial_folder(&self.settings);
                probe(&path, &self.settings, &folder, memory_bytes)
            }
            None => self.measure_fetched(host, model, memory_bytes, is_free),
        }
    }

    /// The same where the file is not here: the layers come from members, as those of stages do. Not from the hub: what
    /// comes from outside the mesh is to be what a plan needs, and nothing else. What has come is removed in the end, so
    /// that nobody who asks for trials can fill the disk.
    fn measure_fetched(
        &self,
        host: NodeId,
        model: Fingerprint,
        memory_bytes: u64,
        is_free: &dyn Fn() -> bool,
    ) -> Result<Speed, String> {
        self.remove_fetched();
        let began = Instant::now();
        let wish = Wish {
            bytes: 0,
            disk_free_bytes: disk_free_bytes(self.cache.folder()),
            cache_room_bytes: self.cache.room_bytes().ok(),
            mesh_is_published: MESH_IS_PUBLISHED,
            last_try: self.tries.last(model, began),
            tries: self.tries.count(began),
            left: self.tries.left().len(),
        };
        // Headers take room too, so this is asked before they come.
        if let Some(objection) = wish.objection() {
            return Err(objection.to_owned());
        }
        self.tries.begin(model, began);
        let measured = self.fetch_and_run(host, model, memory_bytes, wish, is_free);
        let was_broken_off = measured.is_err() && !is_free();
        self.tries.end(model, began, was_broken_off);
        self.remove_fetched();
        self.cache.forget_headers(model);
        measured
    }

    fn fetch_and_run(
        &self,
        host: NodeId,
        model: Fingerprint,
        memory_bytes: u64,
        wish: Wish,
        is_free: &dyn Fn() -> bool,
    ) -> Result<Speed, String> {
        let began = Instant::now();
        let mut goes_on = || is_free() && began.elapsed() < FETCH_TIME_MAX;
        let header = self.header(host, model, &mut goes_on)?;
        let memory_max = self.settings.memory_bytes_max.unwrap_or(u64::MAX);
        let trial = Trial::of(&header, FETCH_BYTES_MAX, memory_bytes.min(memory_max))?;
        let wish = Wish {
            bytes: trial.weight_bytes,
            ..wish
        };
        if let Some(objection) = wish.objection() {
            return Err(objection.to_owned());
        }
        let key = SliceKey {
            model,
            layers: trial.layers.clone(),
            role: SliceRole::Stage,
        };
        let here = self.cache.lookup(&key);
        let slice = match here.map_err(|error| error.to_string())? {
            Some(slice) => slice,
            None => {
                self.tries.fetch(&key);
                self.obtain(host, &key, false, &mut |_| goes_on())?
            }
        };
        // Stages have come meanwhile: they tell more than a trial.
        if !is_free() {
            return Err("this machine runs layers by now".to_owned());
        }
        trial.run(slice.path(), &self.settings)
    }

    /// Keeps the slice of a stage, also if a trial has fetched it, and removes what trials have left else.
    pub(super) fn forget_trials(&self, stage: &SliceKey) {
        self.tries.keep(stage);
        self.remove_fetched();
    }

    /// Removes what was fetched for trials that are over. What is in use is asked about again the next time.
    fn remove_fetched(&self) {
        for key in self.tries.left() {
            if self.cache.forget(&key) {
                self.tries.gone(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn layers_are_fetched_for_a_trial_where_that_is_cheap_and_allowed() {
        let wish = Wish {
            bytes: FETCH_BYTES_MAX,
            disk_free_bytes: Some(2 * GB),
            cache_room_bytes: Some(2 * GB),
            mesh_is_published: false,
            last_try: None,
            tries: TRIES_MAX - 1,
            left: LEFT_MAX - 1,
        };
        let check = |wish: Wish, objects: &str| {
            let objection = wish.objection().unwrap_or_default();
            assert_eq!(objection.is_empty(), objects.is_empty(), "{wish:?}");
            assert!(objection.contains(objects), "{wish:?}: {objection}");
        };
        check(wish, "");
        let bytes = FETCH_BYTES_MAX + 1;
        check(Wish { bytes, ..wish }, "too large");
        let bytes = u64::MAX;
        check(Wish { bytes, ..wish }, "too large");
        let mesh_is_published = true;
        let published = Wish {
            mesh_is_published,
            ..wish
        };
        check(published, "published mesh");
        for disk_free_bytes in [None, Some(0), Some(GB)] {
            let full = Wish {
                disk_free_bytes,
                ..wish
            };
            check(full, "the disk has too little room");
        }
        for cache_room_bytes in [None, Some(0), Some(GB)] {
            let full = Wish {
                cache_room_bytes,
                ..wish
            };
            check(full, "the cache has too little room");
        }
        let tries = TRIES_MAX;
        check(Wish { tries, ..wish }, "many models");
        let left = LEFT_MAX;
        check(Wish { left, ..wish }, "still in use");
        let tried = |last_try: Duration| Wish {
            last_try: Some(last_try),
            ..wish
        };
        check(tried(Duration::ZERO), "a short time ago");
        check(tried(AGAIN_AFTER), "");
    }

    fn key(number: u8) -> SliceKey {
        SliceKey {
            model: Fingerprint([number; 32]),
            layers: 3..4,
            role: SliceRole::Stage,
        }
    }

    #[test]
    fn tries_of_all_models_are_counted_for_an_hour() {
        let tries = Tries::default();
        let began = Instant::now();
        for number in 0..TRIES_MAX as u8 {
            let at = began + Duration::from_secs(number.into());
            tries.begin(key(number).model, at);
        }
        let last = began + Duration::from_secs(60);
        assert_eq!(tries.count(last), TRIES_MAX);
        let ago = tries.last(key(0).model, last);
        assert_eq!(ago, Some(Duration::from_secs(60)));
        assert_eq!(tries.last(key(99).model, last), None);
        assert_eq!(tries.count(began + TRIES_TIME), TRIES_MAX - 1);
        assert_eq!(tries.last(key(0).model, last), None);
        assert!(tries.last(key(1).model, last).is_some());
    }

    #[test]
    fn a_try_that_was_broken_off_counts_only_among_all() {
        let tries = Tries::default();
        let at = Instant::now();
        for (number, was_broken_off) in [(0, false), (1, true)] {
            let model = key(number).model;
            tries.begin(model, at);
            tries.end(model, at, was_broken_off);
            assert_eq!(tries.last(model, at).is_none(), was_broken_off);
        }
        assert_eq!(tries.count(at), 2);
    }

    #[test]
    fn what_a_trial_has_fetched_is_known_until_it_is_gone_or_a_stage_has_it() {
        let tries = Tries::default();
        let at = Instant::now();
        for number in [0, 1, 2] {
            tries.fetch(&key(number));
        }
        assert!(tries.left().is_empty());
        tries.gone(&key(0));
        tries.keep(&key(1));
        for number in [0, 1, 2] {
            tries.end(key(number).model, at, false);
        }
        assert_eq!(tries.left(), [key(0), key(2)]);
        tries.gone(&key(0));
        assert_eq!(tries.left(), [key(2)]);
    }
}
