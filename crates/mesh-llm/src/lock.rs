//! Who uses the node key in a folder: one process at a time, as long as it holds a lock there.
//!
//! Two nodes with one key would take each other's connections. The system lets the lock go when
//! the process ends, however it ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::failure::Failure;

/// The lock; dropping it lets it go.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock of `home`; `None` if another process has it.
pub(crate) fn take(home: &Path) -> Result<Option<Lock>, Failure> {
    let path = home.join("lock");
    let unusable = |error: std::io::Error| {
        Failure::other(format!(
            "can't use {}: {error}; hint: name another folder with MESH_LLM_HOME",
            path.display()
        ))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home)
        .map_err(unusable)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::take;

    #[test]
    fn one_holds_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("new");
        let first = take(&home).unwrap();
        assert!(first.is_some());
        assert!(take(&home).unwrap().is_none());
        drop(first);
        assert!(take(&home).unwrap().is_some());
    }
}
