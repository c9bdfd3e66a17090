//! Owns what can be said of a slice on its way, for whoever shows it.

use super::source::{Source, Tier};

/// What is being done for a slice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Asking who has what, and the host for its hashes, which takes as long as it reads its file.
    #[default]
    Asking,
    /// Reading again what came before a break.
    Checking,
    /// Fetching chunks from other machines.
    Fetching,
    /// Copying them out of an own file.
    Cutting,
    /// Getting the weights into memory.
    Opening,
}

/// As in "fetching layers 0-11".
impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Asking => "asking for",
            Self::Checking => "checking",
            Self::Fetching => "fetching",
            Self::Cutting => "cutting out",
            Self::Opening => "loading",
        })
    }
}

/// How far a fetch is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes of weights that the slice has.
    pub bytes_total: u64,
    /// Bytes of weights that are here and checked.
    pub bytes_done: u64,
    /// Those of them that were here when the fetch began.
    pub bytes_resumed: u64,
    /// Where the others come from.
    pub sources: Vec<SourceProgress>,
}

/// What came from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceProgress {
    /// Its name, for people.
    pub name: String,
    /// Where it is.
    pub tier: Tier,
    /// Bytes that it gave first.
    pub bytes: u64,
    /// Why it is asked no more.
    pub left_out: Option<String>,
}

impl SourceProgress {
    /// A source that has given nothing yet.
    pub(crate) fn of(source: &dyn Source) -> Self {
        Self {
            name: source.name(),
            tier: source.tier(),
            bytes: 0,
            left_out: None,
        }
    }
}
