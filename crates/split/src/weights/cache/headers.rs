//! Owns the headers of whole models in the cache's folder, and how many of them there may be: members ask for layers of
//! as many models as they like, and each one's headers are kept before anything else is known of it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gguf::{Fingerprint, Model};

use super::super::headers::{HEADERS_BYTES_MAX, Headers, HeadersError};
use super::{Cache, CacheError, Entry};

/// Most bytes of all headers that are kept: of a dozen models with the largest vocabularies. A single model's may take
/// as much, and then no others are kept.
const KEPT_BYTES_MAX: u64 = 256 << 20;

/// Most models whose headers are kept, however small they are: the folder is read each time that some come.
const KEPT_MAX: usize = 128;

/// The ending of their files; on the way there it has a number behind it.
const ENDING: &str = "headers";

/// The headers of a model in the folder, or what is left of some that could not be written.
#[derive(Debug, Clone, Copy)]
struct Kept {
    bytes: u64,
    used: SystemTime,
    /// Layers of the model are here too, complete or not: peers are given them with the help of the headers.
    has_slices: bool,
}

/// Places of those that go when new headers of so many bytes come: those used longest ago first, of models with slices
/// last. The new ones come in any case.
fn surplus(kept: &[Kept], new_bytes: u64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..kept.len()).collect();
    places.sort_by_key(|&place| Reverse((kept[place].has_slices, kept[place].used)));
    let (mut count, mut bytes) = (1, new_bytes);
    places.retain(|&place| {
        count += 1;
        bytes = bytes.saturating_add(kept[place].bytes);
        count > KEPT_MAX || bytes > KEPT_BYTES_MAX
    });
    places
}

/// Whether a file of this name has the headers of a model, or a part of them: which model's.
fn model_of(name: &str) -> Option<Fingerprint> {
    let (stem, ending) = name.split_once('.')?;
    let model = stem.parse::<Fingerprint>().ok()?;
    let (kind, number) = ending.split_once('-').unwrap_or((ending, "0"));
    let is_ours = kind == ENDING && number.parse::<u64>().is_ok();
    (is_ours && model.to_string() == stem).then_some(model)
}

impl Cache {
    /// Keeps the headers of a whole model, so that slices of it can be planned and given to peers. Those of
    /// other models that were used longest ago make way.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save_headers(&self, model: Fingerprint, headers: &Headers) -> Result<(), CacheError> {
        let path = self.headers_path(model);
        let bytes = headers.to_bytes();
        self.make_way(&path, bytes.len() as u64)?;
        // Others may write the same ones meanwhile, in this process too.
        let number = RandomState::new().build_hasher().finish();
        let new = path.with_extension(format!("{ENDING}-{number}"));
        fs::write(&new, bytes).map_err(CacheError::io(&new))?;
        fs::rename(&new, &path).map_err(CacheError::io(&path))
    }

    /// The headers of a model, if they are here and whole. Marks them as used just now.
    #[must_use]
    pub fn headers(&self, model: Fingerprint) -> Option<(Headers, Model)> {
        let path = self.headers_path(model);
        let len = fs::metadata(&path).ok()?.len();
        if len > HEADERS_BYTES_MAX {
            return None;
        }
        let headers = Headers::from_bytes(&fs::read(&path).ok()?);
        let read = headers.and_then(|h: Headers| Ok::<_, HeadersError>((h.model(model)?, h)));
        match read {
            Ok((model, headers)) => {
                // Fails on folders that we may only read, where nothing is removed either.
                let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some((headers, model))
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "headers in the cache are damaged");
                None
            }
        }
    }

    /// Removes the headers of a model of which there is no slice, complete or not.
    pub fn forget_headers(&self, model: Fingerprint) {
        let is_of_model = |e: &Entry| e.key.model == model;
        if self.entries().is_ok_and(|all| !all.iter().any(is_of_model)) {
            // They may not be there.
            let _ = fs::remove_file(self.headers_path(model));
        }
    }

    /// Removes what is too much once headers of so many bytes lie at `path`.
    fn make_way(&self, path: &Path, new_bytes: u64) -> Result<(), CacheError> {
        let with_slices: BTreeSet<Fingerprint> =
            self.entries()?.iter().map(|e| e.key.model).collect();
        let folder = || CacheError::io(&self.folder);
        let (mut paths, mut kept) = (Vec::new(), Vec::new());
        for file in fs::read_dir(&self.folder).map_err(folder())? {
            let file = file.map_err(folder())?;
            let name = file.file_name();
            let Some(model) = name.to_str().and_then(model_of) else {
                continue;
            };
            // It may have gone meanwhile.
            let Ok(meta) = file.metadata() else { continue };
            if !meta.is_file() || file.path() == path {
                continue;
            }
            paths.push(file.path());
            kept.push(Kept {
                bytes: meta.len(),
                used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                has_slices: with_slices.contains(&model),
            });
        }
        for place in surplus(&kept, new_bytes) {
            // Another process may have done it. Whoever wants them asks for them again.
            let _ = fs::remove_file(&paths[place]);
        }
        Ok(())
    }

    fn headers_path(&self, model: Fingerprint) -> PathBuf {
        self.folder.join(format!("{model}.{ENDING}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testkit::model::{Architecture, ModelSpec};

    use super::*;

    const MB: u64 = 1 << 20;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn kept(bytes: u64, second: u64, has_slices: bool) -> Kept {
        Kept {
            bytes,
            used: at(second),
            has_slices,
        }
    }

    #[test]
    fn headers_used_longest_ago_make_way_and_those_of_slices_last() {
        let check = |kept: &[Kept], new_bytes: u64, gone: &[usize]| {
            let mut surplus = surplus(kept, new_bytes);
            surplus.sort_unstable();
            assert_eq!(surplus, gone, "{kept:?} and {new_bytes}");
        };
        check(&[], u64::MAX, &[]);
        let three = [1, 3, 2].map(|second| kept(80 * MB, second, false));
        check(&three, 16 * MB, &[]);
        check(&three, 16 * MB + 1, &[0]);
        check(&three, 97 * MB, &[0, 2]);
        check(&three, KEPT_BYTES_MAX, &[0, 1, 2]);
        check(&three, u64::MAX, &[0, 1, 2]);
        let [old, new, middle] = three;
        let old = Kept {
            has_slices: true,
            ..old
        };
        check(&[old, new, middle], 97 * MB, &[1, 2]);
        // Small ones are counted.
        let many: Vec<_> = (0..200).map(|second| kept(1, second, false)).collect();
        let gone: Vec<usize> = (0..=200 - KEPT_MAX).collect();
        check(&many, 1, &gone);
    }

    #[test]
    fn names_of_headers_are_told_from_others() {
        let model = Fingerprint([0xab; 32]);
        for (name, expected) in [
            (format!("{model}.headers"), Some(model)),
            (format!("{model}.headers-4711"), Some(model)),
            (format!("{model}.headers-"), None),
            (format!("{model}.headers-x"), None),
            (format!("{model}.hashes"), None),
            (model.to_string(), None),
            (format!("{model}.headers").to_uppercase(), None),
            ("notes.headers".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(model_of(&name), expected, "{name}");
        }
    }

    #[test]
    fn the_folder_keeps_so_many_headers_and_what_is_read_counts_as_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().to_owned(), u64::MAX).unwrap();
        let file = ModelSpec::tiny(Architecture::Qwen3).to_bytes().unwrap();
        let model = Model::read([("m".into(), file.as_slice())]).unwrap();
        let headers = Headers::of(&model, &[file.as_slice()]).unwrap();
        let wanted = model.fingerprint();
        let other = |number: usize| Fingerprint([number as u8; 32]);
        let age = |model: Fingerprint, second: u64| {
            let file = File::options()
                .write(true)
                .open(cache.headers_path(model))
                .unwrap();
            file.set_modified(at(second)).unwrap();
        };
        cache.save_headers(wanted, &headers).unwrap();
        age(wanted, 0);
        for number in 1..KEPT_MAX {
            let tiny = Headers::from_parts([(1, vec![0])]);
            cache.save_headers(other(number), &tiny).unwrap();
            age(other(number), number as u64);
        }
        std::fs::write(folder.path().join("notes.headers"), "of somebody else").unwrap();
        assert!(cache.headers(wanted).is_some());
        // The one more replaces the next oldest, and one that is there already replaces itself.
        for _ in 0..2 {
            cache.save_headers(other(0), &headers).unwrap();
            assert!(!cache.headers_path(other(1)).exists());
            assert!(cache.headers_path(other(2)).exists());
            let files = fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(files, KEPT_MAX + 1);
        }
        assert!(cache.headers(wanted).is_some());
    }
}
