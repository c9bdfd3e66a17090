//! What became of a model that somebody waits for.

use std::sync::Arc;

use engine::ModelInfo;

use super::{Stage, Table};

impl Table {
    /// What became of a model that is to run whole here: what it is, or why it does not answer. `None`: it is
    /// being loaded.
    pub(crate) fn outcome(&self, name: &str) -> Option<Result<Arc<ModelInfo>, String>> {
        let model = self.models.iter().find(|model| model.name == name);
        match model.map(|model| &model.stage) {
            Some(Stage::Loading(_)) => None,
            Some(Stage::Ready(backend)) => Some(Ok(Arc::clone(backend.info()))),
            Some(Stage::Failed(error)) => Some(Err(error.to_string())),
            Some(Stage::Waiting(..) | Stage::Dropping(_)) | None => {
                Some(Err("it does not serve the model any more".to_owned()))
            }
        }
    }
}
