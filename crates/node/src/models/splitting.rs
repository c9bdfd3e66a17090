//! Models that run on several machines, in the table: how far they are is said by whoever keeps them.

use std::sync::Arc;

use engine::Backend;

use super::{Model, Models, PROGRESS_STEP, Stage};
use crate::StartError;
use crate::layout::Layout;

impl Models {
    /// Puts a model into the table that is to run on several machines; gives its number. `None`: there
    /// is one of that name, or the node stops.
    pub(crate) fn begin_split(&self, name: &str) -> Option<u64> {
        let mut id = None;
        self.table.send_modify(|table| {
            if table.shutting_down || table.is_taken(name) {
                return;
            }
            id = Some(table.next_id);
            table.models.push(Model {
                id: table.next_id,
                name: name.to_owned(),
                needed_bytes: 0,
                stage: Stage::Waiting("other machines are looked for".to_owned(), None),
                layout: None,
                is_split: true,
            });
            table.next_id += 1;
        });
        id
    }

    /// Whether a split model is wanted still.
    pub(crate) fn is_split(&self, id: u64) -> bool {
        let table = self.table.borrow();
        let mut models = table.models.iter();
        !table.shutting_down
            && models.any(|model| {
                let goes = matches!(model.stage, Stage::Dropping(_) | Stage::Failed(_));
                model.id == id && !goes
            })
    }

    /// The part of this machine is loaded to this share.
    pub(crate) fn split_progress(&self, id: u64, share: f32) {
        self.change_split(id, |model| match model.stage {
            Stage::Loading(before) if share < before + PROGRESS_STEP => false,
            _ => {
                model.stage = Stage::Loading(share.clamp(0.0, 1.0));
                true
            }
        });
    }

    /// A split model waits for machines or memory.
    pub(crate) fn split_waits(&self, id: u64, reason: String) {
        self.change_split(id, |model| {
            if matches!(&model.stage, Stage::Waiting(before, _) if *before == reason) {
                return false;
            }
            let backend = model.running().cloned();
            if let Some(layout) = &mut model.layout {
                Arc::make_mut(layout).waiting = Some(reason.clone());
            }
            model.stage = Stage::Waiting(reason, backend);
            true
        });
    }

    /// A split model has lost a machine; its streams pause until others step in.
    pub(crate) fn split_pauses(&self, id: u64, reason: String) {
        self.change_split(id, |model| {
            if let Some(layout) = &mut model.layout {
                Arc::make_mut(layout).waiting = Some(reason);
            }
            true
        });
    }

    /// A split model runs.
    pub(crate) fn split_runs(&self, id: u64, backend: Arc<dyn Backend>, layout: Layout) {
        self.change_split(id, |model| {
            model.layout = Some(Arc::new(layout));
            model.stage = Stage::Ready(backend);
            true
        });
    }

    /// A model can't be split at all.
    pub(crate) fn split_failed(&self, id: u64, error: StartError) {
        tracing::error!(%error, "a model can't be split");
        self.change_split(id, |model| {
            model.stage = Stage::Failed(error);
            true
        });
    }

    fn change_split(&self, id: u64, change: impl FnOnce(&mut Model) -> bool) {
        self.table.send_if_modified(|table| {
            let mut models = table.models.iter_mut();
            let model = models.find(|model| {
                model.id == id && !matches!(model.stage, Stage::Dropping(_) | Stage::Failed(_))
            });
            model.is_some_and(change)
        });
    }
}
