//! Owns reading small files whole and replacing them atomically.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::IdentityError;

/// Reads a file of at most `bytes_max`; `None` if there is none. A longer one counts as damaged.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IdentityError::read(path, error)),
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| IdentityError::read(path, error))?;
    if bytes.len() > bytes_max {
        return Err(set_aside(path, "it is too long"));
    }
    Ok(Some(bytes))
}

/// Replaces a file: readers see the old or the new one, also after a power cut. Mode 0600.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let fresh = write_beside(path, bytes)?;
    fs::rename(&fresh, path)
        .and_then(|()| sync_dir_of(path))
        .map_err(|error| {
            let _ = fs::remove_file(&fresh);
            IdentityError::write(path, error)
        })
}

/// Makes a file that must not exist; false if somebody else made it first.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<bool, IdentityError> {
    let fresh = write_beside(path, bytes)?;
    // A link, other than a rename, fails if the name is taken.
    let linked = fs::hard_link(&fresh, path);
    let _ = fs::remove_file(&fresh);
    match linked {
        Ok(()) => {
            sync_dir_of(path).map_err(|error| IdentityError::write(path, error))?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(IdentityError::write(path, error)),
    }
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(IdentityError::write(path, error)),
        _ => Ok(()),
    }
}

/// Renames a damaged file, so that the next start does not stumble over it and nothing is lost.
pub(super) fn set_aside(path: &Path, reason: &str) -> IdentityError {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    let aside = PathBuf::from(name);
    let moved = fs::rename(path, &aside).is_ok();
    IdentityError::Damaged {
        path: path.into(),
        reason: reason.into(),
        aside: moved.then_some(aside),
    }
}

/// Makes a directory, and those above it, for this user only.
pub(super) fn make_private_dir(path: &Path) -> Result<(), IdentityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| IdentityError::write(path, error))
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<PathBuf, IdentityError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}.new", rand::random::<u64>()));
    let fresh = PathBuf::from(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    match written {
        Ok(()) => Ok(fresh),
        Err(error) => {
            let _ = fs::remove_file(&fresh);
            Err(IdentityError::write(path, error))
        }
    }
}

fn sync_dir_of(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}
