//! How fast this machine is with a model, before it runs it: a short run on some layers, which are fetched where the
//! model's file is not here.

use std::collections::BTreeMap;
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

/// Most bytes of layers that are fetched for a trial: some seconds of a home network. Where a layer is larger, a guess
/// does until the machine has run some.
const FETCH_BYTES_MAX: u64 = 256 << 20;

/// How long that may take: the most bytes at 18 Mbit/s.
const FETCH_TIME_MAX: Duration = Duration::from_secs(120);

/// What the disk has left at least: the gigabyte that every fetch leaves, and more, so that nothing is removed from the
/// cache for a trial.
const DISK_LEFT_BYTES: u64 = 1_280 << 20;

/// So long after a try the next one of the same model may fetch again. What came the last time is kept.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Models whose tries are remembered; hosts have few. The oldest goes first.
const TRIES_MAX: usize = 64;

/// What decides whether layers are fetched for a trial.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// The layers' weights.
    bytes: u64,
    /// `None`: it can't be told.
    disk_free_bytes: Option<u64>,
    mesh_is_published: bool,
    /// How long ago they were last fetched, or tried to be.
    last_try: Option<Duration>,
}

impl Wish {
    /// Why nothing is fetched, if so.
    fn objection(&self) -> Option<&'static str> {
        let disk_bytes = self.disk_free_bytes.unwrap_or(0);
        // What a giver's own user says, the giver minds.
        if !shares_weights(self.mesh_is_published, None) {
            Some("members of a published mesh fetch nothing unasked")
        } else if self.bytes > FETCH_BYTES_MAX {
            Some("the layers are too large to fetch them for a trial")
        } else if self.bytes.saturating_add(DISK_LEFT_BYTES) > disk_bytes {
            Some("the disk has too little room for a trial")
        } else if self.last_try.is_some_and(|ago| ago < AGAIN_AFTER) {
            Some("to fetch the layers was tried a short time ago")
        } else {
            None
        }
    }
}

/// What was fetched for trials, or tried to be.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<BTreeMap<Fingerprint, Try>>);

#[derive(Debug)]
struct Try {
    at: Instant,
    /// What is in the cache of it, if that is for the trial alone.
    slice: Option<SliceKey>,
}

impl Tries {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, Try>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self, model: Fingerprint) -> Option<Duration> {
        self.known().get(&model).map(|last| last.at.elapsed())
    }

    fn note(&self, key: &SliceKey, at: Instant) {
        let mut known = self.known();
        let slice = Some(key.clone());
        known.insert(key.model, Try { at, slice });
        while known.len() > TRIES_MAX {
            let oldest = known.iter().min_by_key(|(_, last)| last.at);
            let Some(oldest) = oldest.map(|(model, _)| *model) else {
                break;
            };
            known.remove(&oldest);
        }
    }

    /// The slice that a trial has left in the cache; told once.
    fn take(&self, model: Fingerprint) -> Option<SliceKey> {
        self.known().get_mut(&model)?.slice.take()
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
    /// comes from outside the mesh is to be what a plan needs, and nothing else.
    fn measure_fetched(
        &self,
        host: NodeId,
        model: Fingerprint,
        memory_bytes: u64,
        is_free: &dyn Fn() -> bool,
    ) -> Result<Speed, String> {
        let began = Instant::now();
        let mut goes_on = || is_free() && began.elapsed() < FETCH_TIME_MAX;
        let header = self.header(host, model, &mut goes_on)?;
        let memory_max = self.settings.memory_bytes_max.unwrap_or(u64::MAX);
        let trial = Trial::of(&header, memory_bytes.min(memory_max))?;
        let key = SliceKey {
            model,
            layers: trial.layers.clone(),
            role: SliceRole::Stage,
        };
        let here = self.cache.lookup(&key);
        let slice = match here.map_err(|error| error.to_string())? {
            Some(slice) => slice,
            None => {
                let wish = Wish {
                    bytes: trial.weight_bytes,
                    disk_free_bytes: disk_free_bytes(self.cache.folder()),
                    mesh_is_published: MESH_IS_PUBLISHED,
                    last_try: self.tries.last(model),
                };
                if let Some(objection) = wish.objection() {
                    return Err(objection.to_owned());
                }
                self.tries.note(&key, began);
                self.obtain(host, &key, false, &mut |_| goes_on())?
            }
        };
        // Stages have come meanwhile: they tell more than a trial.
        if !is_free() {
            return Err("this machine runs layers by now".to_owned());
        }
        trial.run(slice.path(), &self.settings)
    }

    /// Removes what a trial has fetched, once a stage of the model is here: its layers are in that one too, or somebody
    /// else's.
    pub(super) fn forget_trial(&self, stage: &SliceKey) {
        if let Some(key) = self.tries.take(stage.model).filter(|key| key != stage) {
            self.cache.forget(&key);
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
            mesh_is_published: false,
            last_try: None,
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
            check(full, "too little room");
        }
        let tried = |last_try: Duration| Wish {
            last_try: Some(last_try),
            ..wish
        };
        check(tried(Duration::ZERO), "a short time ago");
        check(tried(AGAIN_AFTER), "");
    }

    #[test]
    fn some_tries_are_remembered_and_what_they_left_is_told_once() {
        let tries = Tries::default();
        let key = |number: u8| SliceKey {
            model: Fingerprint([number; 32]),
            layers: 3..4,
            role: SliceRole::Stage,
        };
        let began = Instant::now();
        for number in 0..=TRIES_MAX as u8 {
            let at = began + Duration::from_millis(number.into());
            tries.note(&key(number), at);
        }
        assert_eq!(tries.last(key(0).model), None);
        assert_eq!(tries.take(key(0).model), None);
        assert_eq!(tries.take(key(1).model), Some(key(1)));
        assert_eq!(tries.take(key(1).model), None);
        assert!(tries.last(key(1).model).is_some());
    }
}
