//! What became of a model that somebody waits for, or that its owner dropped.

use std::path::Path;
use std::sync::Arc;

use engine::ModelInfo;

use super::{Model, Stage, Table};

/// What became of a model that is to run whole here.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It answers, and this is what it is.
    Ready(Arc<ModelInfo>),
    /// It could not be loaded, or was dropped before it was.
    Failed,
    /// It answers nobody any more, or not on this machine alone.
    Leaving,
}

/// A model that its owner dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Its name in the table.
    pub(crate) name: String,
    /// Identity of its content, if that is known here.
    pub(crate) fingerprint: Option<String>,
}

impl Table {
    /// What became of a model. `None`: it is being loaded.
    pub(crate) fn outcome(&self, name: &str) -> Option<Outcome> {
        let model = self.models.iter().find(|model| model.name == name);
        match model.map(|model| &model.stage) {
            Some(Stage::Loading(_)) => None,
            Some(Stage::Ready(backend)) => Some(Outcome::Ready(Arc::clone(backend.info()))),
            Some(Stage::Failed(_)) | None => Some(Outcome::Failed),
            Some(Stage::Waiting(..) | Stage::Dropping(_)) => Some(Outcome::Leaving),
        }
    }

    /// The first file of a model that is being loaded, if it has any.
    pub(crate) fn loading_file(&self, name: &str) -> Option<&Path> {
        let mut models = self.models.iter();
        let model = models.find(|model| {
            let is_loading = matches!(model.stage, Stage::Loading(_));
            model.name == name && is_loading
        });
        model?.file.as_deref()
    }

    /// Whether a model of this name is here that is loaded from this file, or was.
    #[cfg(feature = "solo")]
    pub(crate) fn is_from(&self, name: &str, path: &Path) -> bool {
        let mut models = self.models.iter();
        models.any(|model| model.name == name && model.file.as_deref() == Some(path))
    }

    /// Models that are being loaded, and which share of them is. As long as something loads, this changes.
    pub(crate) fn loads(&self) -> Vec<(u64, f32)> {
        let loads = self.models.iter().filter_map(|model| match model.stage {
            Stage::Loading(share) => Some((model.id, share)),
            _ => None,
        });
        loads.collect()
    }
}

impl Model {
    /// Which one it is, for whoever must know later what was dropped.
    pub(super) fn dropped(&self) -> Dropped {
        let of_backend = self.running().map(|b| b.info().fingerprint.clone());
        let fingerprint = of_backend.or_else(|| self.split_fingerprint());
        Dropped {
            name: self.name.clone(),
            fingerprint: fingerprint.filter(|fingerprint| !fingerprint.is_empty()),
        }
    }
}
