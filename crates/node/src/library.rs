//! The models on this machine's disk, as the mesh is told of them: names, fingerprints, memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gguf::Model;

use crate::Settings;
use crate::loader::{Loader, Source};
use crate::source::{Search, name_of};
use crate::store::plan;

/// One model on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Name by which it can be served.
    pub(crate) name: String,
    /// Its first file.
    pub(crate) path: PathBuf,
    /// Identity of its content.
    pub(crate) fingerprint: String,
    /// Size of all its files, bytes.
    pub(crate) size_bytes: u64,
    /// Context length that it was trained for, tokens.
    pub(crate) context_tokens: u32,
    /// Memory that serving it takes, bytes.
    pub(crate) needed_bytes: u64,
    /// Whether it could run on several machines.
    pub(crate) can_split: bool,
}

/// What was found at the last look. Headers are read again only when a file has changed.
#[derive(Debug, Default)]
pub(crate) struct Library {
    known: BTreeMap<PathBuf, (Stamp, Option<Volume>)>,
}

/// Tells whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Library {
    /// Looks through the models folders; files that can't be served are left out. Blocks on file
    /// reads.
    pub(crate) fn look(&mut self, settings: &Settings, loader: &dyn Loader) -> Vec<Volume> {
        let folders = &settings.models_dirs;
        let mut known = std::mem::take(&mut self.known);
        let mut volumes: Vec<Volume> = Vec::new();
        for path in (Search { folders }).files() {
            let Ok(metadata) = std::fs::metadata(&path) else {
                continue;
            };
            let stamp = Stamp {
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
            };
            let volume = match known.remove(&path) {
                Some((before, volume)) if before == stamp => volume,
                _ => read(&path, settings, loader),
            };
            if let Some(volume) = &volume
                && !volumes.iter().any(|other| other.name == volume.name)
            {
                volumes.push(volume.clone());
            }
            self.known.insert(path, (stamp, volume));
        }
        volumes
    }
}

fn read(path: &Path, settings: &Settings, loader: &dyn Loader) -> Option<Volume> {
    let model = Model::open(path).ok()?;
    // Vision projectors are not models of their own.
    if model.metadata().architecture().ok()? == "clip" {
        return None;
    }
    let name = name_of(path);
    let plan = plan(name.clone(), Source::File(path.to_path_buf()), settings);
    Some(Volume {
        needed_bytes: loader.memory_needed(&plan).ok()?,
        can_split: gguf::LayerMap::of(&model).is_ok(),
        name,
        path: path.to_path_buf(),
        fingerprint: model.fingerprint().to_string(),
        size_bytes: model.file_bytes().unwrap_or_default(),
        context_tokens: model.metadata().context_length().unwrap_or_default(),
    })
}
