//! The model to measure with: random weights in the shape of a 0.5-billion-parameter model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use testkit::model::{self, ModelSpec};

use super::machine;

/// Counts up when the generator changes what it writes.
const FILE_NAME: &str = "half-billion-q8_0-v1.gguf";

/// The file to measure with; makes it once in the cache folder when none is named.
pub(super) fn ensure(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        ensure!(path.is_file(), "{} does not exist", path.display());
        return Ok(path.to_owned());
    }
    let path = machine::cache_folder()?.join(FILE_NAME);
    if !path.is_file() {
        eprintln!(
            "bench: writing the model once, about 440 MB: {}",
            path.display()
        );
        model::write(&ModelSpec::bench_half_billion(), &path)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(path)
}
