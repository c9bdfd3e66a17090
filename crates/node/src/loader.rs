//! The seam between a node and what runs its models.
//!
//! A node decides what to load and when; a [`Loader`] knows how. The real one is llama.cpp in
//! this process (feature `solo`); tests bring their own.

use std::path::PathBuf;
use std::sync::Arc;

use engine::{Backend, Error};

use crate::StartError;

/// Takes the share of a model that is loaded, 0 to 1.
pub type Progress = Box<dyn FnMut(f32) + Send>;

/// How models come to life.
pub trait Loader: Send + Sync + 'static {
    /// Memory that the model will take, bytes: weights, KV cache and the rest. Reads the header
    /// only. Blocks on file reads.
    ///
    /// # Errors
    /// [`Error::Load`] if the file is no model that can be loaded.
    fn memory_needed(&self, plan: &Plan) -> Result<u64, Error>;

    /// Whether the layers of models that are loaded in this order would find room where they are to go, each beside
    /// all before it: GPUs and main memory may have enough together, and neither enough of its own. For each model
    /// the layers that go to GPUs, `None` if the engine decides that when it loads. One that is refused takes nothing
    /// from those behind it. All are for the same device. Reads headers only. Blocks on file reads.
    ///
    /// # Errors
    /// For each model [`StartError::Memory`] where other memory would help, [`StartError::Load`] where only other
    /// settings would.
    fn check_places(&self, plans: &[&Plan]) -> Vec<Result<Option<u32>, StartError>> {
        vec![Ok(None); plans.len()]
    }

    /// Loads the model. Blocks until it can answer requests.
    ///
    /// # Errors
    /// [`Error::Load`] with the reason.
    fn load(&self, plan: Plan, progress: Progress) -> Result<Arc<dyn Backend>, Error>;

    /// Memory that models can still take, bytes.
    fn memory_available(&self) -> u64 {
        crate::available_bytes()
    }

    /// GPUs that models are put on, for showing.
    fn gpus(&self) -> Vec<String> {
        Vec::new()
    }
}

/// One model to load, everything about it decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name under which it is served.
    pub name: String,
    /// Its weights.
    pub source: Source,
    /// Speculation.
    pub draft: DraftPlan,
    /// See [`crate::Settings::context_tokens`].
    pub context_tokens: Option<u32>,
    /// See [`crate::Settings::slots`].
    pub slots: Option<u32>,
    /// See [`crate::Settings::gpu_layers`].
    pub gpu_layers: Option<u32>,
    /// Where those are not set, no more layers go to GPUs, as long as main memory has room for the others: models
    /// that are loaded later were promised the rest. `None` if there are none.
    pub gpu_layers_max: Option<u32>,
    /// See [`crate::Settings::device`].
    pub device: Option<String>,
    /// See [`crate::Settings::threads`].
    pub threads: Option<u32>,
    /// See [`crate::Settings::queue_max`].
    pub queue_max: Option<u32>,
}

/// Weights that have been found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that exists; the first part of a multi-part model.
    File(PathBuf),
    /// Bytes of the program.
    Embedded(&'static [u8]),
}

/// [`crate::Draft`] with the model found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DraftPlan {
    /// No speculation.
    None,
    /// Prompt lookup.
    Auto,
    /// A smaller model.
    File(PathBuf),
}

/// The loader of a build without an engine: refuses everything.
#[cfg(not(feature = "solo"))]
pub(crate) fn default_loader(_: &crate::Settings) -> Option<Arc<dyn Loader>> {
    None
}

/// llama.cpp in this process.
#[cfg(feature = "solo")]
pub(crate) fn default_loader(settings: &crate::Settings) -> Option<Arc<dyn Loader>> {
    Some(Arc::new(crate::solo::InProcess::new(settings)))
}
