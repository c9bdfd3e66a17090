//! Owns what is said between members of where a model's files are at a hub. What a member says is only
//! a hint: what comes from there is checked like everything else.

use std::path::Path;

use gguf::Model;
use gguf::limits::PARTS_MAX;

use super::http::HubFiles;

/// Most bytes of a place: a thousand files with names of 200 bytes.
pub(crate) const PLACE_BYTES_MAX: u64 = 256 << 10;

/// Longest name of a repository, a revision or a file, bytes.
const NAME_BYTES_MAX: usize = 256;

/// What the folders of the Hugging Face cache are called.
const REPOSITORY_PREFIX: &str = "models--";
const SNAPSHOTS: &str = "snapshots";

/// Where a model's files are at a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubPlace {
    /// Owner and name of the repository.
    repo: String,
    /// Which state of it.
    revision: String,
    /// The files, in the order of the model's parts.
    files: Vec<String>,
}

impl HubPlace {
    /// The place that the files' own paths tell: the Hugging Face cache keeps them as
    /// `models--OWNER--NAME/snapshots/REVISION/FILE`.
    #[must_use]
    pub fn of(model: &Model) -> Option<Self> {
        let mut found: Option<Self> = None;
        for part in model.parts() {
            let (repo, revision, file) = read_path(&part.name)?;
            match &mut found {
                Some(place) if place.repo == repo && place.revision == revision => {
                    place.files.push(file);
                }
                Some(_) => return None,
                None => {
                    found = Some(Self {
                        repo,
                        revision,
                        files: vec![file],
                    });
                }
            }
        }
        found.filter(Self::is_sound)
    }

    /// These files at the hub with this address.
    #[must_use]
    pub fn at(self, hub: String, token: Option<String>) -> HubFiles {
        HubFiles {
            hub,
            repo: self.repo,
            revision: self.revision,
            files: self.files,
            token,
        }
    }

    /// Repository, revision and each file, a line each.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let head = [&self.repo, &self.revision];
        let lines: Vec<&str> = head
            .into_iter()
            .chain(&self.files)
            .map(String::as_str)
            .collect();
        lines.join("\n").into_bytes()
    }

    /// Reads what [`HubPlace::to_bytes`] wrote; `None` for anything that could lead elsewhere than to
    /// files of one repository.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes)
            .ok()?
            .split('\n')
            .map(str::to_owned);
        let place = Self {
            repo: lines.next()?,
            revision: lines.next()?,
            files: lines.take(PARTS_MAX as usize + 1).collect(),
        };
        place.is_sound().then_some(place)
    }

    fn is_sound(&self) -> bool {
        let repo = self.repo.split_once('/');
        repo.is_some_and(|(owner, name)| is_name(owner) && is_name(name))
            && is_name(&self.revision)
            && (1..=PARTS_MAX as usize).contains(&self.files.len())
            && self
                .files
                .iter()
                .all(|file| file.len() <= NAME_BYTES_MAX && file.split('/').all(is_name))
    }
}

/// Whether it is one step of a path, with letters that mean nothing in an address.
fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=".contains(c);
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.chars().all(is_plain)
        && text.chars().any(|c| c != '.')
}

/// Repository, revision and name of a file in the Hugging Face cache.
fn read_path(path: &Path) -> Option<(String, String, String)> {
    let steps: Option<Vec<&str>> = path.iter().map(|step| step.to_str()).collect();
    let steps = steps?;
    let at = steps
        .windows(2)
        .rposition(|pair| pair[0].starts_with(REPOSITORY_PREFIX) && pair[1] == SNAPSHOTS)?;
    let (owner, name) = steps[at]
        .strip_prefix(REPOSITORY_PREFIX)?
        .split_once("--")?;
    let (revision, file) = steps.get(at + 2..)?.split_first()?;
    Some((
        format!("{owner}/{name}"),
        (*revision).to_owned(),
        file.join("/"),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cache_tells_where_a_file_came_from() {
        let check = |path: &str, expected: Option<(&str, &str, &str)>| {
            let read = read_path(Path::new(path));
            let expected = expected.map(|(a, b, c)| (a.into(), b.into(), c.into()));
            assert_eq!(read, expected, "{path}");
        };
        check(
            "/h/hub/models--acme--Big-70B-GGUF/snapshots/0a1b/Q4/Big-00001-of-00002.gguf",
            Some(("acme/Big-70B-GGUF", "0a1b", "Q4/Big-00001-of-00002.gguf")),
        );
        check(
            "models--a--b--c/snapshots/main/m.gguf",
            Some(("a/b--c", "main", "m.gguf")),
        );
        for other in [
            "/models/m.gguf",
            "/models--a--b/blobs/0a1b",
            "/models--a/snapshots/0a1b/m.gguf",
            "/models--a--b/snapshots",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn places_travel_and_those_that_lead_elsewhere_are_refused() {
        let place = HubPlace {
            repo: "acme/model".to_owned(),
            revision: "0a1b".to_owned(),
            files: vec!["q4/m.gguf".to_owned(), "m-2.gguf".to_owned()],
        };
        assert_eq!(HubPlace::from_bytes(&place.to_bytes()), Some(place));
        for bad in [
            "",
            "acme/model",
            "acme/model\nmain",
            "acme/model\nmain\n",
            "acme\nmain\nm.gguf",
            "acme/model/x\nmain\nm.gguf",
            "../model\nmain\nm.gguf",
            "acme/model\nmain\n../../m.gguf",
            "acme/model\nmain\n/m.gguf",
            "acme/model\nmain?x\nm.gguf",
            "acme/model\nmain\nm.gguf#x",
            "acme/model\nmain\nm%2e.gguf",
        ] {
            assert_eq!(HubPlace::from_bytes(bad.as_bytes()), None, "{bad:?}");
        }
        let many = format!(
            "acme/model\nmain{}",
            "\nm.gguf".repeat(PARTS_MAX as usize + 1)
        );
        assert_eq!(HubPlace::from_bytes(many.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(place) = HubPlace::from_bytes(&bytes) {
                prop_assert_eq!(place.to_bytes(), bytes);
            }
        }
    }
}
