//! Owns what can be wrong with the files of a node.

use std::path::{Path, PathBuf};

/// Why a node's files could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}; hint: check free space and permissions, or choose another directory with MESH_LLM_HOME", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a key.
    #[error("{} has {bytes} bytes and a key has 32; hint: restore it, or make a new identity with `mesh-llm rotate-key`", path.display())]
    KeySize {
        /// The key file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Others may read the key.
    #[error("{} may be read by other users (mode {mode:o}); hint: `chmod 600 {}`, and `mesh-llm rotate-key` if somebody may have copied it", path.display(), path.display())]
    KeyMode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not what it should be.
    #[error("{} is damaged ({reason}); {}", path.display(), kept(aside.as_deref()))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// Where it was moved.
        aside: Option<PathBuf>,
    },
}

fn kept(aside: Option<&Path>) -> String {
    match aside {
        Some(aside) => format!("it was kept as {}; hint: start again", aside.display()),
        None => "hint: move it away and start again".into(),
    }
}

impl IdentityError {
    pub(super) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read {
            path: path.into(),
            source,
        }
    }

    pub(super) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write {
            path: path.into(),
            source,
        }
    }
}
