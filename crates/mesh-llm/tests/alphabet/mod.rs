//! A model that is sure of what it says: each letter is followed by the next. Random weights are not,
//! so that rounding, which differs between batches of different shapes, would change their text.
#![allow(dead_code)]

use std::ops::Range;
use std::path::{Path, PathBuf};

use testkit::model::{Architecture, ModelSpec};

/// Letters that the model says after one another, without end.
const LETTERS: Range<usize> = 97..113;

/// Context of the model that takes three machines. A layer's cache of it takes 134 MB, which is what
/// makes the model too large for two; little of it is used.
pub(crate) const LARGE_CONTEXT: u32 = 32_768;

/// What the host of that model gives, in gigabytes: one of its four layers.
pub(crate) const HOST_GB: &str = "0.2";

/// What a worker gives: two of them, and 64 MiB that a stage takes besides, in the steps in which machines tell of
/// their memory.
pub(crate) const WORKER_GB: &str = "0.42";

/// Whether every combination of losses is wanted, which takes 20 minutes, and not only so many that each
/// machine, each way to lose it, each moment and each number of streams occurs: `./dev losses`.
pub(crate) fn wants_every_loss() -> bool {
    std::env::var_os("MESH_LLM_TEST_EVERY_LOSS").is_some()
}

/// Writes `alphabet.gguf`.
pub(crate) fn write_alphabet(folder: &Path) -> PathBuf {
    write(
        folder,
        &ModelSpec {
            name: "alphabet".into(),
            context: 2_048,
            ..ModelSpec::tiny(Architecture::Qwen3)
        },
    )
}

/// Writes an `alphabet.gguf` that takes three machines.
pub(crate) fn write_large_alphabet(folder: &Path) -> PathBuf {
    write_large_as(folder, "alphabet")
}

/// The same under another name, which makes it another model.
pub(crate) fn write_large_as(folder: &Path, name: &str) -> PathBuf {
    write(
        folder,
        &ModelSpec {
            name: name.into(),
            context: LARGE_CONTEXT,
            heads: 8,
            kv_heads: 8,
            head_length: 128,
            ..ModelSpec::tiny(Architecture::Qwen3)
        },
    )
}

fn write(folder: &Path, spec: &ModelSpec) -> PathBuf {
    let path = folder.join(format!("{}.gguf", spec.name));
    testkit::model::write(spec, &path).unwrap();
    let model = gguf::Model::open(&path).unwrap();
    let place = |name: &str| {
        let range = model.tensor(name).unwrap().file_range().unwrap();
        usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
    };
    let (embedding, output) = (place("token_embd.weight"), place("output.weight"));
    let row = model.metadata().embedding_length().unwrap() as usize * 4;
    let mut bytes = std::fs::read(&path).unwrap();
    let rows = bytes[embedding.clone()].to_vec();
    // A token's own row outweighs what the layers add to it.
    for value in bytes[embedding].chunks_mut(4) {
        let number = f32::from_le_bytes(value.try_into().unwrap());
        value.copy_from_slice(&(number * 5_000.0).to_le_bytes());
    }
    // The head has the row of each letter at the place of the next, and nothing else.
    bytes[output.clone()].fill(0);
    for letter in LETTERS {
        let next = if letter + 1 < LETTERS.end {
            letter + 1
        } else {
            LETTERS.start
        };
        let to = output.start + next * row;
        bytes[to..to + row].copy_from_slice(&rows[letter * row..(letter + 1) * row]);
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Whether a text is what the model says, in full.
pub(crate) fn is_alphabet(text: &str, letters: usize) -> bool {
    let follows = |pair: &[u8]| pair[1] == pair[0] + 1 || pair == b"pa";
    text.len() == letters && text.as_bytes().windows(2).all(follows)
}

pub(crate) fn assert_alphabet(text: &str, letters: usize) {
    let length = text.len();
    assert!(is_alphabet(text, letters), "{length} of {letters}: {text}");
}
