//! How fast this machine is with a model, before it runs it: a short run on some layers. Where the model's file is not
//! here they are made up, because what weights hold takes no time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gguf::{Fingerprint, LayerMap, SliceRole};
use mesh::NodeId;
use split::plan::Speed;

use super::super::probe::{Trial, probe};
use super::super::trial_folder;
use super::Slices;
use super::made_up::MadeUp;
use crate::disk_free_bytes;

/// How long a model's headers may take to come: the largest ones, some 20 MiB, at 2 Mbit/s.
const HEADERS_TIME_MAX: Duration = Duration::from_secs(120);

/// What the disk has left beside the layers at least: room for the headers, and what every slice leaves. Layers that are
/// made up take next to nothing, but not on every file system.
const DISK_LEFT_BYTES: u64 = 512 << 20;

/// So long after a try the next one of the same model may begin.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Most tries in an hour, of all models together: members may ask with as many as they like, and each try takes headers
/// from the network and all cores for some seconds.
const TRIES_MAX: usize = 16;

/// How long a try counts for that.
const TRIES_TIME: Duration = Duration::from_secs(3_600);

/// What decides whether layers are made up for a trial.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// The file of the layers; 0 before the layers are known.
    bytes: u64,
    /// `None`: it can't be told.
    disk_free_bytes: Option<u64>,
    /// How long ago the model was last tried.
    last_try: Option<Duration>,
    /// Tries of all models in the last hour.
    tries: usize,
}

impl Wish {
    /// Why nothing is tried, if so.
    fn objection(&self) -> Option<&'static str> {
        let disk_bytes = self.disk_free_bytes.unwrap_or(0);
        if self.bytes.saturating_add(DISK_LEFT_BYTES) > disk_bytes {
            Some("the disk has too little room for a trial")
        } else if self.last_try.is_some_and(|ago| ago < AGAIN_AFTER) {
            Some("the model was tried a short time ago")
        } else if self.tries >= TRIES_MAX {
            Some("many models were tried in the last hour")
        } else {
            None
        }
    }
}

/// The tries of the last hour, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<Vec<Try>>);

#[derive(Debug)]
struct Try {
    model: Fingerprint,
    at: Instant,
    /// It ended because the machine had something better to do: that says nothing of the next one.
    was_broken_off: bool,
}

impl Tries {
    fn known(&self) -> MutexGuard<'_, Vec<Try>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries in the hour before `now`.
    fn count(&self, now: Instant) -> usize {
        let mut tries = self.known();
        tries.retain(|past| now.saturating_duration_since(past.at) < TRIES_TIME);
        tries.len()
    }

    /// How long before `now` a model was tried.
    fn last(&self, model: Fingerprint, now: Instant) -> Option<Duration> {
        let known = self.known();
        let mut tries = known.iter().rev();
        let last = tries.find(|past| past.model == model && !past.was_broken_off)?;
        Some(now.saturating_duration_since(last.at))
    }

    fn begin(&self, model: Fingerprint, at: Instant) {
        let mut tries = self.known();
        tries.push(Try {
            model,
            at,
            was_broken_off: false,
        });
        // More are only begun where several are at once.
        if tries.len() > TRIES_MAX {
            tries.remove(0);
        }
    }

    /// The try of a model that began `at` is over.
    fn end(&self, model: Fingerprint, at: Instant, was_broken_off: bool) {
        for past in self.known().iter_mut() {
            if past.model == model && past.at == at {
                past.was_broken_off = was_broken_off;
            }
        }
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
            None => self.measure_made_up(host, model, memory_bytes, is_free),
        }
    }

    /// The same where the file is not here: `host` gives the model's headers, and no weights travel. What is kept
    /// of it is removed in the end, so that nobody who asks for trials can fill the disk.
    fn measure_made_up(
        &self,
        host: NodeId,
        model: Fingerprint,
        memory_bytes: u64,
        is_free: &dyn Fn() -> bool,
    ) -> Result<Speed, String> {
        let began = Instant::now();
        let wish = Wish {
            bytes: 0,
            // Headers go to the one, layers beside it.
            disk_free_bytes: match trial_folder(&self.settings).parent() {
                Some(beside) => disk_free_bytes(self.cache.folder()).min(disk_free_bytes(beside)),
                None => None,
            },
            last_try: self.tries.last(model, began),
            tries: self.tries.count(began),
        };
        // Headers take room too, so this is asked before they come.
        if let Some(objection) = wish.objection() {
            return Err(objection.to_owned());
        }
        self.tries.begin(model, began);
        let measured = self.make_up_and_run(host, model, memory_bytes, wish, is_free);
        let was_broken_off = measured.is_err() && !is_free();
        self.tries.end(model, began, was_broken_off);
        self.cache.forget_headers(model);
        measured
    }

    fn make_up_and_run(
        &self,
        host: NodeId,
        model: Fingerprint,
        memory_bytes: u64,
        wish: Wish,
        is_free: &dyn Fn() -> bool,
    ) -> Result<Speed, String> {
        let began = Instant::now();
        let mut goes_on = || is_free() && began.elapsed() < HEADERS_TIME_MAX;
        let header = self.header(host, model, &mut goes_on)?;
        let memory_max = self.settings.memory_bytes_max.unwrap_or(u64::MAX);
        let trial = Trial::of(&header, memory_bytes.min(memory_max))?;
        let map = LayerMap::of(&header).map_err(|error| error.to_string())?;
        let plan = map.plan(trial.layers.clone(), SliceRole::Stage);
        let plan = plan.map_err(|error| error.to_string())?;
        let wish = Wish {
            bytes: plan.file_bytes(),
            ..wish
        };
        if let Some(objection) = wish.objection() {
            return Err(objection.to_owned());
        }
        // Stages have come meanwhile: they tell more than a trial.
        if !is_free() {
            return Err("this machine runs layers by now".to_owned());
        }
        let made_up = MadeUp::write(&plan, &trial_folder(&self.settings))?;
        trial.run(made_up.path(), &self.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn layers_are_made_up_where_there_is_room_and_not_too_often() {
        let wish = Wish {
            bytes: GB,
            disk_free_bytes: Some(GB + DISK_LEFT_BYTES),
            last_try: None,
            tries: TRIES_MAX - 1,
        };
        let check = |wish: Wish, objects: &str| {
            let objection = wish.objection().unwrap_or_default();
            assert_eq!(objection.is_empty(), objects.is_empty(), "{wish:?}");
            assert!(objection.contains(objects), "{wish:?}: {objection}");
        };
        check(wish, "");
        for bytes in [GB + 1, u64::MAX] {
            check(Wish { bytes, ..wish }, "the disk has too little room");
        }
        for disk_free_bytes in [None, Some(0), Some(GB)] {
            let full = Wish {
                disk_free_bytes,
                ..wish
            };
            check(full, "the disk has too little room");
        }
        let tries = TRIES_MAX;
        check(Wish { tries, ..wish }, "many models");
        let tried = |last_try: Duration| Wish {
            last_try: Some(last_try),
            ..wish
        };
        check(tried(Duration::ZERO), "a short time ago");
        check(tried(AGAIN_AFTER), "");
    }

    fn model(number: u8) -> Fingerprint {
        Fingerprint([number; 32])
    }

    #[test]
    fn tries_of_all_models_are_counted_for_an_hour() {
        let tries = Tries::default();
        let began = Instant::now();
        for number in 0..TRIES_MAX as u8 {
            let at = began + Duration::from_secs(number.into());
            tries.begin(model(number), at);
        }
        let last = began + Duration::from_secs(60);
        assert_eq!(tries.count(last), TRIES_MAX);
        let ago = tries.last(model(0), last);
        assert_eq!(ago, Some(Duration::from_secs(60)));
        assert_eq!(tries.last(model(99), last), None);
        assert_eq!(tries.count(began + TRIES_TIME), TRIES_MAX - 1);
        assert_eq!(tries.last(model(0), last), None);
        assert!(tries.last(model(1), last).is_some());
    }

    #[test]
    fn a_try_that_was_broken_off_counts_only_among_all() {
        let tries = Tries::default();
        let at = Instant::now();
        for (number, was_broken_off) in [(0, false), (1, true)] {
            let model = model(number);
            tries.begin(model, at);
            tries.end(model, at, was_broken_off);
            assert_eq!(tries.last(model, at).is_none(), was_broken_off);
        }
        assert_eq!(tries.count(at), 2);
    }
}
