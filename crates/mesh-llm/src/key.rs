//! The API key that other machines need: made once, kept where only the user can read it.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

const KEY_BYTES: usize = 32;
/// Longest key file that is read, bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// A key, and whether it was made just now.
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) is_new: bool,
}

/// Where the key is kept.
pub(crate) fn file(home: &Path) -> PathBuf {
    home.join("api-key")
}

/// The kept key, if there is one.
pub(crate) fn kept(home: &Path) -> Option<String> {
    let path = file(home);
    if std::fs::metadata(&path).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    let key = text.trim();
    (!key.is_empty()).then(|| key.to_owned())
}

/// The kept key, or a new one that is then kept.
pub(crate) fn kept_or_new(home: &Path) -> Result<Key, Failure> {
    if let Some(text) = kept(home) {
        return Ok(Key {
            text,
            is_new: false,
        });
    }
    let text: String = rand::random::<[u8; KEY_BYTES]>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = file(home);
    write(&path, &text).map_err(|error| {
        let shown = path.display();
        let hint = "set a key with MESH_LLM_API_KEY, or another folder with MESH_LLM_HOME";
        Failure::other(format!(
            "can't keep the API key in {shown}: {error}; hint: {hint}"
        ))
    })?;
    Ok(Key { text, is_new: true })
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // An empty file left by a crash is replaced; it can't be opened as a new one.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{KEY_BYTES, file, kept, kept_or_new};

    #[test]
    fn a_key_is_made_once_and_kept_for_the_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("new");
        assert!(kept(&home).is_none());
        let first = kept_or_new(&home).unwrap();
        assert!(first.is_new && first.text.len() == 2 * KEY_BYTES);
        let second = kept_or_new(&home).unwrap();
        assert!(!second.is_new && second.text == first.text);
        let mode = std::fs::metadata(file(&home)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_empty_key_file_is_no_key() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(file(folder.path()), "\n").unwrap();
        assert!(kept_or_new(folder.path()).unwrap().is_new);
    }
}
