//! What is done about models one after the other: loading them, and waiting for the running answers of those that are
//! dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Backend;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{PROGRESS_STEP, Stage, Table, blocking};
use crate::StartError;
use crate::loader::{Loader, Plan};

/// Running answers of a model that is dropped may go on for so long.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// One thing to do.
pub(super) enum Job {
    Load { id: u64, plan: Box<Plan> },
    End { id: u64, backend: Arc<dyn Backend> },
}

/// Loads and ends models until nobody can ask for it any more.
pub(super) async fn work(
    mut jobs: mpsc::Receiver<Job>,
    table: watch::Sender<Table>,
    loader: Option<Arc<dyn Loader>>,
) {
    let mut ending = JoinSet::new();
    loop {
        let job = tokio::select! {
            job = jobs.recv() => job,
            Some(_) = ending.join_next() => continue,
        };
        match job {
            Some(Job::Load { id, plan }) => {
                if let Some(loader) = &loader {
                    load(id, *plan, &table, Arc::clone(loader)).await;
                }
            }
            Some(Job::End { id, backend }) => {
                let table = table.clone();
                ending.spawn(async move {
                    backend.shutdown(Instant::now() + DRAIN_MAX).await;
                    drop(backend);
                    table.send_modify(|table| table.models.retain(|model| model.id != id));
                });
            }
            None => return,
        }
    }
}

async fn load(id: u64, plan: Plan, table: &watch::Sender<Table>, loader: Arc<dyn Loader>) {
    if !table.borrow().models.iter().any(|model| model.id == id) {
        return;
    }
    let name = plan.name.clone();
    let progress = publish_progress(table.clone(), id);
    let loaded = blocking(&name, move || loader.load(plan, progress)).await;
    let mut unwanted = None;
    let stage = match loaded {
        Ok(Ok(backend)) => {
            unwanted = Some(Arc::clone(&backend));
            Stage::Ready(backend)
        }
        Ok(Err(error)) => Stage::Failed(StartError::Load {
            model: name.clone(),
            reason: error.to_string(),
        }),
        Err(error) => Stage::Failed(error),
    };
    if let Stage::Failed(error) = &stage {
        tracing::error!(model = name, %error, "a model could not be loaded");
    }
    let mut wanted = false;
    table.send_modify(|table| {
        if matches!(stage, Stage::Failed(_)) {
            table
                .models
                .retain(|model| model.id != id || !model.is_for_others);
        }
        wanted = table.set(id, stage);
    });
    if let Some(backend) = unwanted.filter(|_| !wanted) {
        backend.shutdown(Instant::now()).await;
    }
}

fn publish_progress(table: watch::Sender<Table>, id: u64) -> Box<dyn FnMut(f32) + Send> {
    let mut published = 0.0;
    Box::new(move |progress| {
        let progress = progress.clamp(0.0, 1.0);
        if progress < published + PROGRESS_STEP {
            return;
        }
        published = progress;
        table.send_modify(|table| {
            let model = table.models.iter_mut().find(|model| model.id == id);
            if let Some(model) = model
                && matches!(model.stage, Stage::Loading(_))
            {
                model.stage = Stage::Loading(progress);
            }
        });
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, mpsc as blocking_mpsc};

    use engine::Error;

    use super::super::{Models, Outcome};
    use super::*;
    use crate::loader::{Progress, Source};
    use crate::{ModelState, Settings, store};

    /// Finds room for everything and loads nothing.
    struct Torn;

    impl Loader for Torn {
        fn memory_needed(&self, _: &Plan) -> Result<u64, Error> {
            Ok(1)
        }

        fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
            Err(Error::Load("the file is torn".into()))
        }
    }

    #[tokio::test]
    async fn nothing_is_left_of_what_others_wanted_and_could_not_be_loaded() {
        let models = Models::empty(Some(Arc::new(Torn)));
        let settings = Settings::default();
        for (name, is_for_others) in [("theirs", true), ("own", false)] {
            let plan = store::plan(name.into(), Source::Embedded(b""), &settings);
            let began = models.load_planned(plan, &settings, is_for_others).await;
            assert_eq!(began, Ok(()));
            let mut table = models.watch();
            let mut outcome = None;
            let settled = table.wait_for(|table| {
                outcome = table.outcome(name);
                outcome.is_some()
            });
            assert!(settled.await.is_ok());
            assert!(matches!(outcome, Some(Outcome::Failed)), "{name}");
        }
        let status = models.table().status();
        let [own] = &status[..] else {
            panic!("{status:?}");
        };
        assert_eq!(own.name, "own");
        assert!(matches!(own.state, ModelState::Failed { .. }));
    }

    /// Loads nothing either, and says so once the other end is dropped.
    struct Slow(Mutex<blocking_mpsc::Receiver<()>>);

    impl Loader for Slow {
        fn memory_needed(&self, _: &Plan) -> Result<u64, Error> {
            Ok(1)
        }

        fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
            let _ = self.0.lock().unwrap().recv();
            Err(Error::Load("the file is torn".into()))
        }
    }

    #[tokio::test]
    async fn what_the_owner_wants_as_well_fails_with_its_reason() {
        let (go_on, may) = blocking_mpsc::channel();
        let models = Models::empty(Some(Arc::new(Slow(Mutex::new(may)))));
        let settings = Settings::default();
        let path = PathBuf::from("six.gguf");
        let mut table = models.watch();
        // Others ask again after the owner has.
        for is_for_others in [true, false, true] {
            let plan = store::plan("six".into(), Source::File(path.clone()), &settings);
            let began = models.load_planned(plan, &settings, is_for_others).await;
            assert_eq!(began, Ok(()));
            assert_eq!(models.table().models.len(), 1, "it is loaded once");
        }
        assert_eq!(
            models.table().loading_file("six"),
            Some(Path::new("six.gguf"))
        );
        drop(go_on);
        let settled = table.wait_for(|table| table.outcome("six").is_some());
        assert!(settled.await.is_ok());
        let status = models.table().status();
        let [six] = &status[..] else {
            panic!("{status:?}");
        };
        assert!(matches!(six.state, ModelState::Failed { .. }));
        assert_eq!(models.table().loading_file("six"), None);
    }
}
