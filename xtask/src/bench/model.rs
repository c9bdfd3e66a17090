//! The model to measure with: random weights in the shape of a 0.5-billion-parameter model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testkit::model::{self, ModelSpec};

use super::machine;

/// Counts up when the generator changes what it writes.
const FILE_NAME: &str = "half-billion-q8_0-v1.gguf";

/// The same for a model that repeats itself.
const LOOPS_FILE_NAME: &str = "half-billion-loops-q8_0-v1.gguf";

/// Its text comes round again after so many tokens: a line or two.
const LOOP_TOKENS: u32 = 32;

/// The file to measure with; makes it once in the cache folder when none is named.
pub(super) fn ensure(named: Option<&Path>) -> Result<PathBuf> {
    made(named, FILE_NAME, &ModelSpec::bench_half_billion())
}

/// A model of the same shape whose text repeats itself: that of random weights does not. One that is named must do for
/// this, too.
pub(super) fn ensure_loops(named: Option<&Path>) -> Result<PathBuf> {
    made(named, LOOPS_FILE_NAME, &ModelSpec::bench_loops(LOOP_TOKENS))
}

fn made(named: Option<&Path>, file_name: &str, spec: &ModelSpec) -> Result<PathBuf> {
    if let Some(path) = named {
        ensure!(path.is_file(), "{} does not exist", path.display());
        return Ok(path.to_owned());
    }
    let path = machine::cache_folder()?.join(file_name);
    if !path.is_file() {
        eprintln!(
            "bench: writing a model once, about 440 MB: {}",
            path.display()
        );
        model::write(spec, &path)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(path)
}
