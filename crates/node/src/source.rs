//! From what a user calls a model to the file that holds it.
//!
//! Looks at names only; what is inside a file is `gguf`'s and the engine's business.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use gguf::PartName;

use crate::StartError;

/// Folder levels below a models folder that are searched. A Hugging Face cache has its files
/// four levels down; two more allow for folders inside a repository.
const DEPTH_MAX: usize = 6;
/// Folder entries looked at in one search. A models folder has hundreds; a home folder passed by
/// mistake must not take minutes.
const ENTRIES_MAX: usize = 50_000;
/// Names that a hint lists.
const HINT_NAMES_MAX: usize = 8;

/// Folders in which models are looked up.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// In order; the first match wins.
    pub folders: &'a [PathBuf],
}

impl Search<'_> {
    /// Finds the first file of the model called `name`: its file name without extension and part
    /// number, in any case; or the beginning of exactly one such name.
    ///
    /// # Errors
    /// [`StartError::NotFound`] or [`StartError::Ambiguous`].
    pub fn find(&self, name: &str) -> Result<PathBuf, StartError> {
        let wanted = name.to_lowercase();
        let files = self.files();
        let mut starts: Vec<(String, &PathBuf)> = Vec::new();
        for file in &files {
            let found = name_of(file);
            let lower = found.to_lowercase();
            if lower == wanted {
                return Ok(file.clone());
            }
            if lower.starts_with(&wanted) && !starts.iter().any(|(known, _)| *known == found) {
                starts.push((found, file));
            }
        }
        match starts.as_slice() {
            [(_, only)] => Ok((*only).clone()),
            [] => Err(self.not_found(name, &files)),
            several => Err(StartError::Ambiguous {
                model: name.to_owned(),
                candidates: several
                    .iter()
                    .take(HINT_NAMES_MAX)
                    .map(|(name, _)| format!("`{name}`"))
                    .collect(),
            }),
        }
    }

    /// Every model file in the folders, multi-part models by their first part, projector files
    /// of vision models left out. Sorted within each folder; bounded.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in self.folders {
            let mut found = files_below(folder);
            found.sort();
            for file in found {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        files
    }

    fn not_found(&self, name: &str, files: &[PathBuf]) -> StartError {
        let names: Vec<String> = files.iter().map(|file| name_of(file)).collect();
        let close = names
            .iter()
            .map(|known| {
                (
                    strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase()),
                    known,
                )
            })
            .filter(|(score, _)| *score > 0.8)
            .max_by(|left, right| left.0.total_cmp(&right.0));
        let hint = match close {
            Some((_, known)) => format!("did you mean `{known}`?"),
            None if names.is_empty() => {
                "give the path of a GGUF file, or name a folder of them with --models-dir"
                    .to_owned()
            }
            None => {
                let listed: Vec<String> = names
                    .iter()
                    .take(HINT_NAMES_MAX)
                    .map(|name| format!("`{name}`"))
                    .collect();
                format!(
                    "`mesh-llm models` lists what there is: {}",
                    listed.join(", ")
                )
            }
        };
        StartError::NotFound {
            model: name.to_owned(),
            hint,
        }
    }
}

/// Name of the model in `file`: the file name without `.gguf` and without a part number.
#[must_use]
pub fn name_of(file: &Path) -> String {
    match PartName::of(file) {
        Some(part) => part.stem,
        None => file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default(),
    }
}

/// The first part of the multi-part model that `file` is a part of; otherwise `file`.
pub(crate) fn first_part(file: &Path) -> PathBuf {
    PartName::of(file).map_or_else(|| file.to_path_buf(), |part| part.path_of(1))
}

fn is_model(file: &Path) -> bool {
    let Some(stem) = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().to_lowercase())
    else {
        return false;
    };
    let is_gguf = file
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let is_later_part = PartName::of(file).is_some_and(|part| part.number != 1);
    is_gguf && !is_later_part && !stem.contains("mmproj")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = VecDeque::from([(folder.to_path_buf(), 0)]);
    let mut entries_left = ENTRIES_MAX;
    while let Some((folder, depth)) = folders.pop_front() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if entries_left == 0 {
                tracing::warn!(folder = %folder.display(), "too many files, search cut short");
                return files;
            }
            entries_left -= 1;
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            // Files may be links (a Hugging Face cache has nothing else); folders may not, so
            // that the search can't go round in circles.
            if kind.is_dir() && depth < DEPTH_MAX {
                folders.push_back((path, depth + 1));
            } else if is_model(&path) && (kind.is_file() || path.is_file()) {
                files.push(path);
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Search, first_part, name_of};
    use crate::StartError;

    fn folder_of(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        folder
    }

    fn find(files: &[&str], name: &str) -> Result<String, StartError> {
        let folder = folder_of(files);
        let folders = [folder.path().to_path_buf()];
        let found = Search { folders: &folders }.find(name)?;
        let inside = found.strip_prefix(folder.path()).unwrap();
        Ok(inside.to_string_lossy().into_owned())
    }

    #[test]
    fn names_find_their_files() {
        let files = [
            "Qwen3-8B-Q4_K_M.gguf",
            "notes.txt",
            "mmproj-Qwen3-8B-Q4_K_M.gguf",
            "models--org--repo/snapshots/abc/Big-00001-of-00002.gguf",
            "models--org--repo/snapshots/abc/Big-00002-of-00002.gguf",
            "Llama-1B-Q8_0.gguf",
            "Llama-1B-Q4_0.gguf",
        ];
        for (name, file) in [
            ("Qwen3-8B-Q4_K_M", files[0]),
            ("qwen3-8b-q4_k_m", files[0]),
            ("Qwen3-8B", files[0]),
            ("big", files[3]),
            ("llama-1b-q8_0", files[5]),
        ] {
            assert_eq!(find(&files, name).unwrap(), file, "{name}");
        }
        assert!(matches!(
            find(&files, "llama-1b"),
            Err(StartError::Ambiguous { candidates, .. }) if candidates.len() == 2
        ));
        assert!(matches!(
            find(&files, "Qwen-3-8B-Q4_K_M"),
            Err(StartError::NotFound { hint, .. }) if hint == "did you mean `Qwen3-8B-Q4_K_M`?"
        ));
        assert!(matches!(
            find(&[], "anything"),
            Err(StartError::NotFound { hint, .. }) if hint.contains("--models-dir")
        ));
    }

    #[test]
    fn the_first_folder_wins() {
        let (first, second) = (folder_of(&["m.gguf"]), folder_of(&["m.gguf"]));
        let folders = [first.path().to_path_buf(), second.path().to_path_buf()];
        let found = Search { folders: &folders }.find("m").unwrap();
        assert!(found.starts_with(first.path()));
    }

    #[test]
    fn parts_are_one_model() {
        for (file, name, first) in [
            ("a/m.gguf", "m", "a/m.gguf"),
            ("a/m-00003-of-00012.gguf", "m", "a/m-00001-of-00012.gguf"),
            ("a/m-3-of-12.gguf", "m-3-of-12", "a/m-3-of-12.gguf"),
            (
                "-00001-of-00002.gguf",
                "-00001-of-00002",
                "-00001-of-00002.gguf",
            ),
        ] {
            assert_eq!(name_of(Path::new(file)), name);
            assert_eq!(first_part(Path::new(file)), PathBuf::from(first));
        }
    }
}
