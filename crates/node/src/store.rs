//! The models on this machine: every GGUF file in the models folders, with what its header says.
//!
//! Reads headers only. A file that can't be read is listed with the reason: the person who looks
//! for it should see why it can't be served.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use gguf::Model;

use crate::loader::{DraftPlan, Loader, Plan, Source, default_loader};
use crate::source::{Search, name_of};
use crate::{Settings, available_bytes};

/// Context assumed where only an estimate of the memory is possible, tokens.
const ESTIMATE_CONTEXT_TOKENS: u64 = 4096;

/// One model on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalModel {
    /// Name by which it can be served.
    pub name: String,
    /// Its file; of a multi-part model the first. `None` for a model inside the program.
    pub path: Option<PathBuf>,
    /// What it is, or why it can't be read.
    pub details: Result<Details, String>,
}

/// What a model's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// Architecture (for example `qwen3`).
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Size of all its files, bytes.
    pub size_bytes: u64,
    /// Number of files.
    pub files: usize,
    /// Context length that it was trained for, tokens; 0 when it does not say.
    pub context_tokens: u32,
    /// Quantisation (for example `Q4_K_M`).
    pub quantization: String,
    /// Memory that serving it takes, bytes: weights, KV cache and the rest.
    pub needed_bytes: u64,
    /// Whether so much memory is free now.
    pub fits: bool,
}

/// Lists the models in the folders of `settings`, in the order of the folders. Blocks on file
/// reads; bounded by the bounds of [`Search`].
#[must_use]
pub fn list(settings: &Settings) -> Vec<LocalModel> {
    list_with(settings, default_loader(settings).as_deref())
}

/// Describes a model that is part of the program.
#[must_use]
pub fn describe_embedded(name: &str, bytes: &'static [u8], settings: &Settings) -> LocalModel {
    let loader = default_loader(settings);
    let free_bytes = loader
        .as_deref()
        .map_or_else(available_bytes, Loader::memory_available);
    let details = Model::read([(PathBuf::from(name), bytes)])
        .map_err(|error| error.to_string())
        .and_then(|model| {
            let plan = plan(name.to_owned(), Source::Embedded(bytes), settings);
            describe(&model, &plan, loader.as_deref(), free_bytes)
        });
    LocalModel {
        name: name.to_owned(),
        path: None,
        details,
    }
}

fn list_with(settings: &Settings, loader: Option<&dyn Loader>) -> Vec<LocalModel> {
    let free_bytes = loader.map_or_else(available_bytes, Loader::memory_available);
    let mut seen = HashSet::new();
    let folders = &settings.models_dirs;
    Search { folders }
        .files()
        .into_iter()
        // The same file is often linked from several folders of a cache.
        .filter(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())))
        .map(|path| LocalModel {
            name: name_of(&path),
            details: details(&path, settings, loader, free_bytes),
            path: Some(path),
        })
        // Vision projectors are not models of their own.
        .filter(|model| !matches!(&model.details, Ok(details) if details.architecture == "clip"))
        .collect()
}

fn details(
    path: &Path,
    settings: &Settings,
    loader: Option<&dyn Loader>,
    free_bytes: u64,
) -> Result<Details, String> {
    let model = Model::open(path).map_err(|error| error.to_string())?;
    let plan = plan(name_of(path), Source::File(path.to_path_buf()), settings);
    describe(&model, &plan, loader, free_bytes)
}

fn describe(
    model: &Model,
    plan: &Plan,
    loader: Option<&dyn Loader>,
    free_bytes: u64,
) -> Result<Details, String> {
    let metadata = model.metadata();
    let architecture = metadata.architecture().map_err(|error| error.to_string())?;
    let needed_bytes = match loader {
        Some(loader) => loader
            .memory_needed(plan)
            .map_err(|error| error.to_string())?,
        None => estimate(model),
    };
    Ok(Details {
        architecture: architecture.to_owned(),
        parameters: model.parameter_count(),
        size_bytes: model.file_bytes().unwrap_or_default(),
        files: model.parts().len(),
        context_tokens: metadata.context_length().unwrap_or_default(),
        quantization: model.quantization(),
        needed_bytes,
        fits: needed_bytes <= free_bytes,
    })
}

pub(crate) fn plan(name: String, source: Source, settings: &Settings) -> Plan {
    Plan {
        name,
        source,
        draft: DraftPlan::None,
        context_tokens: settings.context_tokens,
        slots: settings.slots,
        gpu_layers: settings.gpu_layers,
        gpu_layers_max: None,
        device: settings.device.clone(),
        threads: settings.threads,
        queue_max: settings.queue_max,
    }
}

/// Weights and the KV cache of one sequence: the least that serving takes.
fn estimate(model: &Model) -> u64 {
    let kv = model.metadata().kv_bytes_per_token().unwrap_or_default();
    model
        .file_bytes()
        .unwrap_or_default()
        .saturating_add(kv.saturating_mul(ESTIMATE_CONTEXT_TOKENS))
}

#[cfg(test)]
mod tests {
    use gguf::{Metadata, Plan, Value};

    use super::list_with;
    use crate::Settings;

    fn header(architecture: &str) -> Vec<u8> {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", Value::String(architecture.into()));
        metadata.set(format!("{architecture}.context_length"), Value::U32(2048));
        Plan::new(metadata).unwrap().header_bytes().unwrap()
    }

    #[test]
    fn lists_models_with_what_they_are_or_why_not() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("good.gguf", header("qwen3")),
            ("projector.gguf", header("clip")),
            ("mmproj-x.gguf", header("clip")),
            ("bad.gguf", b"PK\x03\x04 not a model".to_vec()),
            ("empty.gguf", Vec::new()),
            ("readme.md", b"text".to_vec()),
        ] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let settings = Settings {
            models_dirs: vec![folder.path().to_path_buf()],
            ..Settings::default()
        };
        let models = list_with(&settings, None);
        let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["bad", "empty", "good"]);
        assert!(models[0].details.is_err() && models[1].details.is_err());
        let good = models[2].details.as_ref().unwrap();
        assert_eq!(
            (good.architecture.as_str(), good.context_tokens),
            ("qwen3", 2048)
        );
        assert!(good.fits && good.files == 1);
    }
}
