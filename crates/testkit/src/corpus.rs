//! Owns where fuzzers begin: without samples of what is accepted they would take days to find the
//! first signed message.

use std::path::Path;

/// Writes samples into the folder that libFuzzer was called with, where it looks for its corpus.
/// Does nothing if it was called with a file, to repeat one run.
pub fn plant(samples: impl IntoIterator<Item = Vec<u8>>) {
    let folder = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    if let Some(folder) = folder {
        plant_in(Path::new(&folder), samples);
    }
}

fn plant_in(folder: &Path, samples: impl IntoIterator<Item = Vec<u8>>) {
    if !folder.is_dir() {
        return;
    }
    for (number, sample) in samples.into_iter().enumerate() {
        let path = folder.join(format!("sample-{number}"));
        if let Err(error) = std::fs::write(&path, sample) {
            // The fuzzer goes on without it.
            eprintln!("{}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_files_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let samples = || [b"one".to_vec(), b"two".to_vec()];
        plant_in(folder.path(), samples());
        plant_in(folder.path(), samples());
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!([read("sample-0"), read("sample-1")], samples());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        plant_in(&folder.path().join("sample-0"), [b"three".to_vec()]);
        assert_eq!(read("sample-0"), b"one");
    }
}
