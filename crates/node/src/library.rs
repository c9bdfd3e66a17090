//! The models on this machine's disk, as the mesh is told of them: names, fingerprints, memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gguf::Model;

use crate::loader::{Loader, Source};
use crate::source::{Search, first_part, name_of};
use crate::store::plan;
use crate::{Draft, ModelSource, Settings};

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
    /// Looks through the models folders; files that can't be served are left out, and so is the model
    /// that drafts for others. Blocks on file reads.
    pub(crate) fn look(&mut self, settings: &Settings, loader: &dyn Loader) -> Vec<Volume> {
        let folders = &settings.models_dirs;
        let mut known = std::mem::take(&mut self.known);
        let drafts = draft_file(settings);
        let mut volumes: Vec<Volume> = Vec::new();
        for path in (Search { folders }).files() {
            // Under any path: caches of models are full of links.
            if drafts.is_some() && path.canonicalize().ok() == drafts {
                continue;
            }
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

/// The real path of the model that drafts for this node's models, if there is one.
fn draft_file(settings: &Settings) -> Option<PathBuf> {
    let folders = &settings.models_dirs;
    let path = match &settings.draft {
        Draft::Model(ModelSource::Path(path)) => first_part(path),
        Draft::Model(ModelSource::Named(name)) => Search { folders }.find(name).ok()?,
        Draft::Model(ModelSource::Embedded { .. }) | Draft::None | Draft::Auto => return None,
    };
    path.canonicalize().ok()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::{Backend, Error};
    use gguf::{Metadata, Value};

    use super::*;
    use crate::{Plan, Progress};

    /// Finds room for everything and loads nothing.
    struct Roomy;

    impl Loader for Roomy {
        fn memory_needed(&self, _: &Plan) -> Result<u64, Error> {
            Ok(1)
        }

        fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
            Err(Error::Load("nothing is loaded here".into()))
        }
    }

    fn write(path: &Path) {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", Value::String("qwen3".into()));
        metadata.set("qwen3.context_length", Value::U32(2048));
        let bytes = gguf::Plan::new(metadata).unwrap().header_bytes().unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_model_that_drafts_for_others_is_none_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        for file in ["big.gguf", "tiny.gguf"] {
            write(&inside(file));
        }
        std::fs::create_dir(inside("sub")).unwrap();
        let check = |draft: Draft, names: &[&str]| {
            let settings = Settings {
                models_dirs: vec![folder.path().to_path_buf()],
                draft,
                ..Settings::default()
            };
            let mut library = Library::default();
            // The second look knows the files already.
            for _ in 0..2 {
                let volumes = library.look(&settings, &Roomy);
                let found: Vec<&str> = volumes.iter().map(|v| v.name.as_str()).collect();
                assert_eq!(found, names, "{:?}", settings.draft);
            }
        };
        let path = |path: PathBuf| Draft::Model(ModelSource::Path(path));
        check(Draft::Auto, &["big", "tiny"]);
        check(Draft::None, &["big", "tiny"]);
        check(Draft::Model(ModelSource::parse("tiny")), &["big"]);
        check(path(inside("tiny.gguf")), &["big"]);
        check(path(inside("sub/../tiny.gguf")), &["big"]);
        check(path(inside("gone.gguf")), &["big", "tiny"]);
        #[cfg(unix)]
        {
            let elsewhere = tempfile::tempdir().unwrap();
            let link = elsewhere.path().join("draft.gguf");
            std::os::unix::fs::symlink(inside("tiny.gguf"), &link).unwrap();
            check(path(link), &["big"]);
            // The same file under another name in the folder.
            std::os::unix::fs::symlink(inside("tiny.gguf"), inside("alias.gguf")).unwrap();
            check(path(inside("tiny.gguf")), &["big"]);
        }
    }
}
