//! Files of layers whose weights are made up: they are there for one trial, and gone when it is over.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gguf::SlicePlan;

use super::unwritable;

/// How the names of such files begin.
const PREFIX: &str = "made-up-";

/// A file of this age is left from a process that came to a sudden end: a trial takes some minutes at most.
const OLD: Duration = Duration::from_secs(3_600);

/// Such a file, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct MadeUp {
    path: PathBuf,
}

impl MadeUp {
    /// Writes the layers of a plan to a new file in a folder, which is created if need be.
    pub(super) fn write(plan: &SlicePlan, folder: &Path) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        remove_old(folder);
        // Not by the model's name: nobody else's trial of it may find its file changed.
        let path = folder.join(format!("{PREFIX}{:016x}.gguf", rand::random::<u64>()));
        let file = File::create_new(&path).map_err(|error| unwritable(&path, &error))?;
        // From here on what was written is removed, whatever comes.
        let made_up = Self { path };
        let written = plan.write_made_up(&file);
        written.map_err(|error| error.to_string())?;
        Ok(made_up)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MadeUp {
    fn drop(&mut self) {
        // What stays is removed later.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes what sudden ends have left.
fn remove_old(folder: &Path) {
    let Ok(files) = fs::read_dir(folder) else {
        return;
    };
    for file in files.filter_map(Result::ok) {
        let name = file.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        let modified = file.metadata().and_then(|meta| meta.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok());
        if is_ours && age.is_some_and(|age| age > OLD) {
            let _ = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use gguf::{LayerMap, Model, SliceRole};

    use super::*;
    use crate::Settings;
    use crate::split::probe::Trial;

    fn starter() -> Model {
        Model::open(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../assets/starter.gguf"
        ))
        .unwrap()
    }

    #[test]
    fn made_up_layers_tell_a_speed_and_leave_nothing_behind() {
        let model = starter();
        let folder = tempfile::tempdir().unwrap();
        let trial = Trial::of(&model, u64::MAX).unwrap();
        let map = LayerMap::of(&model).unwrap();
        let plan = map.plan(trial.layers.clone(), SliceRole::Stage).unwrap();
        let settings = Settings {
            threads: Some(1),
            ..Settings::default()
        };
        let made_up = MadeUp::write(&plan, &folder.path().join("trials")).unwrap();
        let len = fs::metadata(made_up.path()).unwrap().len();
        assert_eq!(len, plan.file_bytes());
        let speed = trial.run(made_up.path(), &settings).unwrap();
        let (decode, prefill) = speed.bytes_per_s();
        assert!(decode > 1e5 && prefill > 1e5, "{decode} {prefill}");
        drop(made_up);
        let left = fs::read_dir(folder.path().join("trials")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn what_a_sudden_end_has_left_goes_and_nothing_else() {
        let model = starter();
        let map = LayerMap::of(&model).unwrap();
        let end = map.cuts().first().copied().unwrap_or(map.layers());
        let plan = map.plan(0..end, SliceRole::Stage).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let names = ["made-up-1.gguf", "made-up-2.gguf", "notes.gguf"];
        for name in names {
            let file = File::create_new(folder.path().join(name)).unwrap();
            let age = match name {
                "made-up-1.gguf" => OLD / 2,
                _ => OLD * 2,
            };
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        drop(MadeUp::write(&plan, folder.path()).unwrap());
        let is_there = names.map(|name| folder.path().join(name).exists());
        assert_eq!(is_there, [true, false, true]);
    }
}
