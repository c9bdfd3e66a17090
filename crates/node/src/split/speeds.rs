//! How fast machines were, kept between runs: bandwidths of this one, and what each machine does with a model.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use mesh::NodeId;
use serde::{Deserialize, Serialize};
use split::plan::Speed;

/// Figures that are kept; the oldest go first. Some models on some machines.
const ENTRIES_MAX: usize = 512;

/// Most bytes of the file; 512 entries take about 100 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A figure that differs by less is no news for the disk.
const NEWS_SHARE: f64 = 0.05;

/// Name of the file among those that can be made again.
const FILE: &str = "speeds.json";

/// One figure, bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Entry {
    decode: f64,
    prefill: f64,
    unix_s: u64,
}

#[derive(Debug, Default)]
struct Known {
    entries: BTreeMap<String, Entry>,
    is_news: bool,
}

/// All figures of this process.
#[derive(Debug)]
pub(crate) struct Speeds {
    /// `None`: they are not kept.
    path: Option<PathBuf>,
    known: Mutex<Known>,
}

impl Speeds {
    /// Those kept in a folder, as far as they can be read.
    pub(super) fn open(folder: Option<PathBuf>) -> Self {
        let path = folder.map(|folder| folder.join(FILE));
        let entries = path.as_deref().and_then(read).unwrap_or_default();
        let is_news = false;
        Self {
            path,
            known: Mutex::new(Known { entries, is_news }),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How fast a machine with so many threads computes a model.
    pub(super) fn of_model(&self, model: &str, node: NodeId, threads: u32) -> Option<Speed> {
        let entry = *self.known().entries.get(&key(model, node, threads))?;
        let speed = Speed::from_times(1, 1.0 / entry.decode, 1.0 / entry.prefill);
        speed.ok()
    }

    /// Notes that.
    pub(super) fn note_model(&self, model: &str, node: NodeId, threads: u32, speed: Speed) {
        let (decode, prefill) = speed.bytes_per_s();
        self.note(key(model, node, threads), decode, prefill);
    }

    /// Bytes a second that this machine reads from memory.
    pub(super) fn bandwidth(&self, processor: &str, threads: u32) -> Option<f64> {
        let known = self.known();
        let entry = known
            .entries
            .get(&format!("memory/{processor}/{threads}"))?;
        Some(entry.decode)
    }

    /// Notes that.
    pub(super) fn note_bandwidth(&self, processor: &str, threads: u32, bytes_per_s: f64) {
        let key = format!("memory/{processor}/{threads}");
        self.note(key, bytes_per_s, bytes_per_s);
    }

    fn note(&self, key: String, decode: f64, prefill: f64) {
        let mut known = self.known();
        let before = known.entries.get(&key).copied();
        let differs = |old: f64, new: f64| (old - new).abs() > old * NEWS_SHARE;
        let is_news =
            before.is_none_or(|old| differs(old.decode, decode) || differs(old.prefill, prefill));
        known.is_news |= is_news;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_s = now.map_or(0, |now| now.as_secs());
        let entry = Entry {
            decode,
            prefill,
            unix_s,
        };
        known.entries.insert(key, entry);
        while known.entries.len() > ENTRIES_MAX {
            let oldest = known.entries.iter().min_by_key(|(_, entry)| entry.unix_s);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            known.entries.remove(&oldest);
        }
    }

    /// Writes down what is new. Blocks. What can't be written is measured again.
    pub(super) fn save(&self) {
        let Some(path) = &self.path else {
            return;
        };
        let bytes = {
            let mut known = self.known();
            if !std::mem::take(&mut known.is_news) {
                return;
            }
            serde_json::to_vec(&known.entries)
        };
        let written = bytes.map_err(io::Error::other).and_then(|bytes| {
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            // Two processes may write at a time: the last one stays.
            let draft = folder.join(format!(".{:016x}.part", rand::random::<u64>()));
            std::fs::write(&draft, bytes)?;
            std::fs::rename(&draft, path)
        });
        if let Err(error) = written {
            tracing::debug!(%error, "measured speeds are not kept");
        }
    }
}

fn key(model: &str, node: NodeId, threads: u32) -> String {
    format!("model/{model}/{node}/{threads}")
}

fn read(path: &Path) -> Option<BTreeMap<String, Entry>> {
    if std::fs::metadata(path).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let entries: BTreeMap<String, Entry> =
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    // Nonsense is found out where speeds are made of it.
    Some(entries.into_iter().take(ENTRIES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_outlive_the_process_and_nonsense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeId::from_bytes([1; 32]);
        let speeds = Speeds::open(Some(folder.path().into()));
        assert_eq!(speeds.of_model("m", node, 2), None);
        let speed = Speed::from_times(1_000_000, 0.001, 0.000_2).unwrap();
        speeds.note_model("m", node, 2, speed);
        speeds.note_bandwidth("a processor", 2, 30e9);
        speeds.save();
        let again = Speeds::open(Some(folder.path().into()));
        let (decode, prefill) = again.of_model("m", node, 2).unwrap().bytes_per_s();
        assert!((decode - 1e9).abs() < 1e3 && (prefill - 5e9).abs() < 1e4);
        assert_eq!(again.of_model("m", node, 4), None);
        assert_eq!(again.bandwidth("a processor", 2), Some(30e9));
        assert_eq!(again.bandwidth("another", 2), None);
        for bytes in ["", "[]", "{\"model/m/x/1\": 3}", "{"] {
            std::fs::write(folder.path().join(FILE), bytes).unwrap();
            let speeds = Speeds::open(Some(folder.path().into()));
            assert_eq!(speeds.bandwidth("a processor", 2), None);
        }
        let absurd = format!(
            "{{\"{}\": {{\"decode\": -1.0, \"prefill\": 0.0, \"unix_s\": 1}}}}",
            key("m", node, 2)
        );
        std::fs::write(folder.path().join(FILE), absurd).unwrap();
        assert_eq!(
            Speeds::open(Some(folder.path().into())).of_model("m", node, 2),
            None
        );
    }

    #[test]
    fn no_more_is_kept_than_some() {
        let folder = tempfile::tempdir().unwrap();
        let speeds = Speeds::open(Some(folder.path().into()));
        for threads in 0..ENTRIES_MAX as u32 + 10 {
            speeds.note_bandwidth("p", threads, 1e9);
        }
        assert_eq!(speeds.known().entries.len(), ENTRIES_MAX);
    }
}
