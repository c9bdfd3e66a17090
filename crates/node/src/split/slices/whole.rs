//! Files of whole models, for this node to serve them because members ask: they come as slices do, chunk by chunk from
//! members and from this machine's hub, are checked against the hashes of whoever asks, and are kept in the same cache.
//!
//! They are on no list of models on this disk: what one member says of weights is no reason to pass them on as this
//! machine's own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gguf::{Fingerprint, LayerMap, SliceRole};
use mesh::NodeId;
use split::layers::Loading;
use split::weights::{CachedSlice, Phase, SliceKey};

use super::Slices;
use crate::disk_free_bytes;

/// A fetch that gets on by less than a thousandth in so long is given up: sources may be silent for a minute each before
/// others are asked.
const STALLED_MAX: Duration = Duration::from_secs(180);

/// How long a fetch may take in all: whoever asks waits no longer.
const FETCH_TIME_MAX: Duration = Duration::from_secs(4 * 3_600);

/// What a model takes on this machine before it can be loaded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Need {
    /// Its layers.
    pub(crate) layers: u32,
    /// Bytes of the file that is to be fetched; 0: it is here.
    pub(crate) file_bytes: u64,
    /// Bytes of it that are not on the disk yet: an earlier fetch may have been broken off.
    pub(crate) missing_bytes: u64,
    /// Room on the disk that it would lie on. `None`: that can't be told.
    pub(crate) disk_free_bytes: Option<u64>,
    /// Bytes of weights.
    pub(crate) weight_bytes: u64,
    /// Bytes of the KV cache for a token; 0: unknown.
    pub(crate) kv_token_bytes: u64,
    /// Tokens of context that the model was trained for; 0: unknown.
    pub(crate) context_tokens: u32,
}

/// The file of a whole model.
#[derive(Debug)]
pub(crate) struct WholeFile {
    /// Where it is; the first if there are several.
    pub(crate) path: PathBuf,
    /// Holds it in the cache; `None`: it is the user's own.
    _kept: Option<CachedSlice>,
}

/// Follows how a fetch gets on. Pure.
#[derive(Debug)]
struct Headway {
    began: Instant,
    /// When it last got on, or did something else than to fetch.
    moved: Instant,
    permille: u16,
}

impl Headway {
    fn new(began: Instant) -> Self {
        Self {
            began,
            moved: began,
            permille: 0,
        }
    }

    /// Whether it is to go on.
    fn observe(&mut self, loading: Loading, now: Instant) -> bool {
        let fetches = loading.phase == Phase::Fetching;
        if fetches && loading.permille > self.permille {
            self.permille = loading.permille;
            self.moved = now;
        } else if !fetches {
            // Whoever hashes its file says that it does, and what came before a break is read.
            self.moved = now;
        }
        now.saturating_duration_since(self.moved) < STALLED_MAX
            && now.saturating_duration_since(self.began) < FETCH_TIME_MAX
    }

    fn percent(&self) -> u8 {
        u8::try_from(self.permille / 10).unwrap_or(100)
    }
}

fn key(model: Fingerprint, layers: u32) -> SliceKey {
    SliceKey {
        model,
        layers: 0..layers,
        role: SliceRole::Whole,
    }
}

impl Slices {
    /// What a model takes here. `host` has it. Blocks, as long as `goes_on` says so.
    pub(crate) fn need(
        &self,
        host: NodeId,
        model: Fingerprint,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Need, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let header = self.header(host, model, goes_on)?;
        let map = LayerMap::of(&header).map_err(|error| text(&error))?;
        let key = key(model, map.layers());
        let plan = map.plan(key.layers.clone(), key.role);
        let plan = plan.map_err(|error| text(&error))?;
        let kept = self.cache.lookup(&key).map_err(|error| text(&error))?;
        let is_here = kept.is_some() || self.find(&model.to_string()).is_some();
        let file_bytes = if is_here { 0 } else { plan.file_bytes() };
        Ok(Need {
            layers: map.layers(),
            file_bytes,
            missing_bytes: file_bytes.saturating_sub(self.cache.partial_bytes(&key)),
            disk_free_bytes: disk_free_bytes(self.cache.folder()),
            weight_bytes: plan.copied_bytes(),
            kv_token_bytes: header.metadata().kv_bytes_per_token().unwrap_or(0),
            context_tokens: header.metadata().context_length().unwrap_or_default(),
        })
    }

    /// The model's file: one of this disk, or one that is fetched. `told` is told the hundredths that are here, and stops
    /// the work with false. Blocks, for hours at most.
    pub(crate) fn fetch_whole(
        &self,
        host: NodeId,
        model: Fingerprint,
        need: &Need,
        told: &mut dyn FnMut(u8) -> bool,
    ) -> Result<WholeFile, String> {
        if let Some(path) = self.find(&model.to_string()) {
            told(100);
            return Ok(WholeFile { path, _kept: None });
        }
        let mut headway = Headway::new(Instant::now());
        let mut progress = |loading: Loading| {
            let goes_on = headway.observe(loading, Instant::now());
            told(headway.percent()) && goes_on
        };
        let file = self.obtain(host, &key(model, need.layers), &mut progress)?;
        told(100);
        Ok(WholeFile {
            path: file.path().to_path_buf(),
            _kept: Some(file),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at these seconds, with so many thousandths there; gives the second at which the fetch is given up.
    fn given_up(looks: &[(u64, Phase, u64)]) -> Option<u64> {
        let began = Instant::now();
        let mut headway = Headway::new(began);
        let mut looks = looks.iter();
        let ended = looks.find(|(second, phase, permille)| {
            let now = began + Duration::from_secs(*second);
            !headway.observe(Loading::of(*phase, *permille, 1_000), now)
        });
        ended.map(|(second, ..)| *second)
    }

    #[test]
    fn a_fetch_that_does_not_get_on_is_given_up() {
        use Phase::{Asking, Checking, Fetching};
        // Whoever has the file may read it for long, and so may this machine what is here of it.
        let patient = [
            (0, Asking, 0),
            (3_000, Asking, 0),
            (4_000, Checking, 0),
            (4_100, Fetching, 500),
            (4_279, Fetching, 500),
            (4_280, Fetching, 501),
            (4_459, Fetching, 502),
        ];
        assert_eq!(given_up(&patient), None);
        let stalled = [(0, Fetching, 1), (179, Fetching, 1), (180, Fetching, 1)];
        assert_eq!(given_up(&stalled), Some(180));
        // To lose what was there is no progress.
        let again = [(0, Fetching, 900), (100, Fetching, 1), (180, Fetching, 2)];
        assert_eq!(given_up(&again), Some(180));
        let endless: Vec<_> = (1..=200u64).map(|n| (n * 100, Fetching, n)).collect();
        assert_eq!(given_up(&endless), Some(14_400));
    }

    #[test]
    fn the_share_that_is_here_is_told_in_hundredths() {
        let began = Instant::now();
        let mut headway = Headway::new(began);
        for (permille, percent) in [(0, 0), (9, 0), (10, 1), (999, 99), (998, 99), (1_000, 100)] {
            headway.observe(Loading::of(Phase::Fetching, permille, 1_000), began);
            assert_eq!(headway.percent(), percent, "{permille}");
        }
    }
}
