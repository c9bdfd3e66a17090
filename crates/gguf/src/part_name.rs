//! Owns the file names of multi-part models: `NAME-00001-of-00003.gguf`.

use std::path::{Path, PathBuf};

use crate::error::ReadError;
use crate::limits::PARTS_MAX;

/// A file name that says which part of how many it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartName {
    folder: PathBuf,
    /// The name before `-00001-of-00003.gguf`.
    pub stem: String,
    /// Number of this part, from 1.
    pub number: u32,
    /// Number of parts.
    pub count: u32,
}

impl PartName {
    /// Takes a path apart; `None` when it does not name a part.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let (number, count) = (five_digits(number)?, five_digits(count)?);
        if stem.is_empty() || number == 0 || number > count {
            return None;
        }
        Some(Self {
            folder: path.parent()?.to_owned(),
            stem: stem.to_owned(),
            number,
            count,
        })
    }

    /// Path of another part of the same model, numbered from 1.
    #[must_use]
    pub fn path_of(&self, number: u32) -> PathBuf {
        self.folder.join(format!(
            "{}-{number:05}-of-{:05}.gguf",
            self.stem, self.count
        ))
    }

    pub(crate) fn check_count(&self) -> Result<(), ReadError> {
        if self.count > PARTS_MAX {
            let what = "the number of parts".to_owned();
            return Err(ReadError::TooMany {
                what,
                found: self.count.into(),
                max: PARTS_MAX.into(),
            });
        }
        Ok(())
    }
}

fn five_digits(text: &str) -> Option<u32> {
    (text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_part_names_apart() {
        let check = |path: &str, wanted: Option<(&str, u32, u32)>| {
            let found = PartName::of(Path::new(path));
            assert_eq!(
                found.as_ref().map(|n| (n.stem.as_str(), n.number, n.count)),
                wanted,
                "{path}"
            );
        };
        check("a/m-00002-of-00010.gguf", Some(("m", 2, 10)));
        check("m-of-x-00001-of-00001.gguf", Some(("m-of-x", 1, 1)));
        check("m-00000-of-00002.gguf", None);
        check("m-00003-of-00002.gguf", None);
        check("m-0001-of-0002.gguf", None);
        check("m-+0001-of-00002.gguf", None);
        check("-00001-of-00002.gguf", None);
        check("m-00001-of-00002.bin", None);
        check("m.gguf", None);
        check("", None);
    }

    #[test]
    fn names_the_other_parts() {
        let name = PartName::of(Path::new("a/m-00002-of-00010.gguf")).unwrap();
        assert_eq!(name.path_of(10), Path::new("a/m-00010-of-00010.gguf"));
    }
}
