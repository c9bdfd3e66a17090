//! Owns the names of files in the cache. A name says what the file is, so that the folder needs no
//! index and files of others are never touched.

use super::chunk::SliceKey;
use gguf::SliceRole;

const SLICE: &str = ".gguf";
const PARTIAL: &str = ".gguf.part";
const JOURNAL: &str = ".gguf.journal";

/// What a file in the cache's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A complete slice.
    Slice,
    /// One on its way, with holes.
    Partial,
    /// Which of its chunks have come.
    Journal,
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Slice => SLICE,
            Self::Partial => PARTIAL,
            Self::Journal => JOURNAL,
        }
    }
}

impl SliceKey {
    /// The name of a file of this slice.
    pub(crate) fn file_name(&self, kind: Kind) -> String {
        let Self {
            model,
            layers,
            role,
        } = self;
        let suffix = kind.suffix();
        format!("{model}-{}-{}-{role}{suffix}", layers.start, layers.end)
    }

    /// Reads such a name. Only names that [`SliceKey::file_name`] would give are taken.
    pub(crate) fn of_file_name(name: &str) -> Option<(Self, Kind)> {
        let (stem, suffix) = name.split_once('.')?;
        let kinds = [Kind::Slice, Kind::Partial, Kind::Journal];
        let kind = *kinds.iter().find(|k| &k.suffix()[1..] == suffix)?;
        let mut fields = stem.split('-');
        let model = fields.next()?.parse().ok()?;
        let layers = fields.next()?.parse().ok()?..fields.next()?.parse().ok()?;
        let role = match fields.next()? {
            "stage" => SliceRole::Stage,
            "tail" => SliceRole::Tail,
            "whole" => SliceRole::Whole,
            _ => return None,
        };
        let key = Self {
            model,
            layers,
            role,
        };
        (key.file_name(kind) == name).then_some((key, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gguf::Fingerprint;

    #[test]
    fn names_come_back_and_others_are_left_alone() {
        let key = SliceKey {
            model: Fingerprint([0xab; 32]),
            layers: 3..17,
            role: SliceRole::Stage,
        };
        for role in [SliceRole::Stage, SliceRole::Tail, SliceRole::Whole] {
            let key = SliceKey {
                role,
                ..key.clone()
            };
            for kind in [Kind::Slice, Kind::Partial, Kind::Journal] {
                let name = key.file_name(kind);
                assert_eq!(SliceKey::of_file_name(&name), Some((key.clone(), kind)));
            }
        }
        let good = key.file_name(Kind::Slice);
        for bad in [
            "model.gguf".to_owned(),
            good.replace("-3-", "-03-"),
            good.replace("ab", "AB"),
            good.replace("stage", "head"),
            format!("{good}.bak"),
            good.replace(".gguf", ""),
            good.replace("stage", "stage-1"),
            String::new(),
        ] {
            assert_eq!(SliceKey::of_file_name(&bad), None, "{bad}");
        }
    }
}
