//! Owns the key file: 32 bytes that only its owner may read.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use iroh_base::SecretKey;

use super::{IdentityError, file};

const KEY_BYTES: usize = 32;

/// Permission bits that let group or others at the key.
const MODE_OTHERS: u32 = 0o077;

/// Reads the key, or makes one. Two processes that start at once agree on one key.
pub(super) fn load_or_create(path: &Path) -> Result<SecretKey, IdentityError> {
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let key = SecretKey::generate();
    if file::create(path, &key.to_bytes())? {
        return Ok(key);
    }
    load(path)?.ok_or_else(|| IdentityError::read(path, ErrorKind::NotFound.into()))
}

/// Reads the key; `None` if there is no file.
pub(super) fn load(path: &Path) -> Result<Option<SecretKey>, IdentityError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IdentityError::read(path, error)),
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & MODE_OTHERS != 0 {
        return Err(IdentityError::KeyMode {
            path: path.into(),
            mode,
        });
    }
    let wrong_size = |bytes| IdentityError::KeySize {
        path: path.into(),
        bytes,
    };
    if metadata.len() != KEY_BYTES as u64 {
        return Err(wrong_size(metadata.len()));
    }
    let bytes = fs::read(path).map_err(|error| IdentityError::read(path, error))?;
    let bytes: [u8; KEY_BYTES] = bytes
        .try_into()
        .map_err(|bytes: Vec<u8>| wrong_size(bytes.len() as u64))?;
    Ok(Some(SecretKey::from_bytes(&bytes)))
}

/// Puts a new key in the place of whatever is there.
pub(super) fn replace(path: &Path) -> Result<SecretKey, IdentityError> {
    let key = SecretKey::generate();
    file::write(path, &key.to_bytes())?;
    Ok(key)
}
