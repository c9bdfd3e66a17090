//! The models of this process: what is loaded, in which order, and what goes.
//!
//! One task loads them one after the other, since two at a time would only share the disk's speed,
//! and waits for the running answers of those that are dropped.

mod jobs;
mod outcome;
mod purpose;
mod splitting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use engine::{Backend, Load};
use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use self::jobs::{Job, work};
pub(crate) use self::outcome::{Dropped, Outcome};
pub(crate) use self::purpose::{Purpose, is_auto, is_called};
#[cfg(feature = "solo")]
pub(crate) use self::splitting::Facts;
pub(crate) use self::splitting::{Hosting, Splitting};
use crate::layout::Layout;
use crate::loader::{Loader, Plan, Source};
use crate::plan::{plan, plan_one};
use crate::{DropError, ModelSource, ModelState, ModelStatus, Settings, StartError};

/// Progress is published in steps of this share, so that a fast loader does not wake every
/// watcher thousands of times.
const PROGRESS_STEP: f32 = 0.01;

/// Models that wait to be loaded or to end.
const JOBS_MAX: usize = 64;

/// What changes.
#[derive(Default)]
pub(crate) struct Table {
    models: Vec<Model>,
    pub(crate) shutting_down: bool,
    next_id: u64,
    /// Models with smaller ids were asked for at the start: the node is not ready without them.
    first_later_id: u64,
}

/// One model, in any state.
struct Model {
    /// Tells it from a later one with the same name.
    id: u64,
    name: String,
    needed_bytes: u64,
    /// Its first file, if it is loaded here from one.
    file: Option<PathBuf>,
    stage: Stage,
    /// Of a model that runs on several machines.
    layout: Option<Arc<Layout>>,
    /// Of one that is to.
    split: Option<Splitting>,
    /// It goes when it can't be loaded: other members want it, and the owner is told of no failure of theirs.
    is_for_others: bool,
}

enum Stage {
    Loading(f32),
    /// For machines or memory; with a backend that has answered before.
    Waiting(String, Option<Arc<dyn Backend>>),
    Ready(Arc<dyn Backend>),
    Dropping(Arc<dyn Backend>),
    Failed(StartError),
}

/// The models of a node.
pub(crate) struct Models {
    table: watch::Sender<Table>,
    loader: Option<Arc<dyn Loader>>,
    jobs: mpsc::Sender<Job>,
    _worker: Option<AbortOnDropHandle<()>>,
}

impl Models {
    /// Finds the models of `settings`, checks that they fit, and begins to load them; gives those that
    /// are to run on several machines.
    pub(crate) async fn start(
        settings: Settings,
        loader: Arc<dyn Loader>,
    ) -> Result<(Arc<Self>, Vec<Plan>), StartError> {
        let planner = Arc::clone(&loader);
        let plans = blocking("planning", move || plan(&settings, planner.as_ref())).await??;
        let models = Self::empty(Some(loader));
        for (plan, needed_bytes) in plans.whole {
            models.begin(plan, needed_bytes, false).await?;
        }
        let table = &models.table;
        table.send_modify(|table| table.first_later_id = table.next_id);
        Ok((models, plans.split))
    }

    /// No models yet. Without a loader there never will be.
    pub(crate) fn empty(loader: Option<Arc<dyn Loader>>) -> Arc<Self> {
        Self::with(Table::default(), loader)
    }

    /// Models that are ready.
    pub(crate) fn of_backends(backends: Vec<Arc<dyn Backend>>) -> Arc<Self> {
        let models: Vec<Model> = (0..)
            .zip(backends)
            .map(|(id, backend)| Model {
                id,
                name: backend.info().name.clone(),
                needed_bytes: 0,
                file: None,
                stage: Stage::Ready(backend),
                layout: None,
                split: None,
                is_for_others: false,
            })
            .collect();
        let table = Table {
            next_id: models.len() as u64,
            first_later_id: models.len() as u64,
            models,
            shutting_down: false,
        };
        Self::with(table, None)
    }

    fn with(table: Table, loader: Option<Arc<dyn Loader>>) -> Arc<Self> {
        let (jobs, received) = mpsc::channel(JOBS_MAX);
        let table = watch::Sender::new(table);
        let worker = work(received, table.clone(), loader.clone());
        // Without a runtime nothing can be loaded or dropped, but what is there answers.
        let runtime = tokio::runtime::Handle::try_current().ok();
        let worker = runtime.map(|runtime| AbortOnDropHandle::new(runtime.spawn(worker)));
        Arc::new(Self {
            table,
            loader,
            jobs,
            _worker: worker,
        })
    }

    /// Follows the table.
    pub(crate) fn watch(&self) -> watch::Receiver<Table> {
        self.table.subscribe()
    }

    /// The table at this moment. Held only briefly: writers wait.
    pub(crate) fn table(&self) -> watch::Ref<'_, Table> {
        self.table.borrow()
    }

    /// Memory that models may still take, bytes: what the machine has free, and what the owner
    /// allows.
    pub(crate) fn free_bytes(&self, bytes_max: Option<u64>) -> u64 {
        self.budget(bytes_max).free_bytes()
    }

    /// How models are loaded here, if they can be.
    pub(crate) fn loader(&self) -> Option<&Arc<dyn Loader>> {
        self.loader.as_ref()
    }

    /// Begins to load one more model; gives its name. One that is there already is left alone.
    pub(crate) async fn load(
        &self,
        source: ModelSource,
        settings: &Settings,
    ) -> Result<String, StartError> {
        let own = settings.clone();
        let plan = blocking("planning", move || plan_one(&source, &own)).await??;
        let name = plan.name.clone();
        self.load_planned(plan, settings, false).await?;
        Ok(name)
    }

    /// Begins to load a model of which everything is decided. `is_for_others`: other members want it, so nothing is left
    /// of it in the table if that fails, unless it is asked for in another way meanwhile.
    pub(crate) async fn load_planned(
        &self,
        plan: Plan,
        settings: &Settings,
        is_for_others: bool,
    ) -> Result<(), StartError> {
        let planner = self.loader.clone().ok_or(StartError::NoEngine)?;
        let (plan, needed_bytes, placed) = blocking("planning", move || {
            let needed_bytes = crate::plan::needed(&plan, planner.as_ref())?;
            let placed: Result<Vec<_>, _> = planner.check_places(&[&plan]).into_iter().collect();
            Ok::<_, StartError>((plan, needed_bytes, placed))
        })
        .await??;
        let mut is_taken = false;
        self.table.send_if_modified(|table| {
            is_taken = table.is_taken(&plan.name);
            !is_for_others && table.claim(&plan.name)
        });
        if is_taken {
            return Ok(());
        }
        let free_bytes = self.free_bytes(settings.memory_bytes_max);
        crate::plan::check_fits(&[(plan.name.clone(), needed_bytes)], free_bytes)?;
        placed?;
        self.begin(plan, needed_bytes, is_for_others).await
    }

    async fn begin(
        &self,
        plan: Plan,
        needed_bytes: u64,
        is_for_others: bool,
    ) -> Result<(), StartError> {
        let permit = self
            .jobs
            .reserve()
            .await
            .map_err(|_| StartError::ShutDown)?;
        let file = match &plan.source {
            Source::File(path) => Some(path.clone()),
            Source::Embedded(_) => None,
        };
        let mut id = None;
        self.table.send_modify(|table| {
            if !is_for_others {
                table.claim(&plan.name);
            }
            if table.shutting_down || table.is_taken(&plan.name) {
                return;
            }
            // One that has failed makes room for the next try.
            table
                .models
                .retain(|known| known.name != plan.name || !known.has_failed());
            id = Some(table.next_id);
            table.models.push(Model {
                id: table.next_id,
                name: plan.name.clone(),
                needed_bytes,
                file,
                stage: Stage::Loading(0.0),
                layout: None,
                split: None,
                is_for_others,
            });
            table.next_id += 1;
        });
        if let Some(id) = id {
            permit.send(Job::Load {
                id,
                plan: Box::new(plan),
            });
        }
        Ok(())
    }

    /// Takes no new requests for a model and lets it go once the running ones have ended. Gives which one it is.
    pub(crate) async fn drop_model(&self, model: &str) -> Result<Dropped, DropError> {
        let not_served = || DropError::NotServed {
            model: model.to_owned(),
            hint: self.table.borrow().served_hint(),
        };
        let Ok(permit) = self.jobs.reserve().await else {
            return Err(not_served());
        };
        let mut ending = None;
        let mut dropped = None;
        self.table.send_modify(|table| {
            let Some(index) = table.position(model) else {
                return;
            };
            let entry = &mut table.models[index];
            dropped = Some(entry.dropped());
            match &entry.stage {
                Stage::Ready(backend) => {
                    ending = Some((entry.id, Arc::clone(backend)));
                    entry.stage = Stage::Dropping(Arc::clone(backend));
                }
                Stage::Dropping(_) => {}
                Stage::Waiting(_, Some(backend)) => {
                    let backend = Arc::clone(backend);
                    ending = Some((entry.id, Arc::clone(&backend)));
                    entry.stage = Stage::Dropping(backend);
                }
                // What is being loaded is let go when it is ready: its id is gone by then.
                Stage::Loading(_) | Stage::Failed(_) | Stage::Waiting(_, None) => {
                    table.models.remove(index);
                }
            }
        });
        if let Some((id, backend)) = ending {
            permit.send(Job::End { id, backend });
        }
        dropped.ok_or_else(not_served)
    }

    /// Waits until every model that was asked for at the start is loaded. Later ones may fail as they
    /// like: whoever asked for them is told.
    pub(crate) async fn ready(&self) -> Result<(), StartError> {
        let mut watcher = self.table.subscribe();
        let table = watcher
            .wait_for(|table| {
                table.shutting_down
                    || table.first_failure().is_some()
                    || table.asked_at_start().all(Model::is_settled)
            })
            .await
            .map_err(|_| StartError::ShutDown)?;
        if let Some(failure) = table.first_failure() {
            return Err(failure.clone());
        }
        if table.shutting_down {
            return Err(StartError::ShutDown);
        }
        Ok(())
    }

    /// Refuses new requests from now on.
    pub(crate) fn close(&self) {
        self.table.send_modify(|table| table.shutting_down = true);
    }

    /// Waits until nothing runs any more, until `deadline` at most.
    pub(crate) async fn finish(&self, deadline: Instant) {
        let backends: Vec<_> = {
            let table = self.table.borrow();
            table
                .models
                .iter()
                .filter_map(Model::running)
                .cloned()
                .collect()
        };
        join_all(backends.iter().map(|backend| backend.shutdown(deadline))).await;
    }
}

impl Table {
    /// State of all models, in order.
    pub(crate) fn status(&self) -> Vec<ModelStatus> {
        self.models.iter().map(Model::status).collect()
    }

    /// What the models are that answer, in order.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.models.iter().filter_map(Model::backend)
    }

    /// Names of models that answer or will.
    pub(crate) fn names(&self) -> Vec<String> {
        let live = self.models.iter().filter(|model| !model.has_failed());
        live.filter(|model| !matches!(model.stage, Stage::Dropping(_)))
            .map(|model| model.name.clone())
            .collect()
    }

    /// Whether a model is being loaded.
    pub(crate) fn is_loading(&self) -> bool {
        self.models
            .iter()
            .any(|model| matches!(model.stage, Stage::Loading(_)))
    }

    /// The model called `name`, in any case, with or without the file's ending.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<dyn Backend>> {
        let named = |model: &&Model| is_called(&model.name, name);
        let exact = self
            .models
            .iter()
            .find(|model| model.name == name && model.backend().is_some());
        exact
            .or_else(|| {
                self.models
                    .iter()
                    .filter(named)
                    .find(|model| model.backend().is_some())
            })
            .and_then(Model::backend)
    }

    /// What to do when `model` has no backend.
    pub(crate) fn hint(&self, model: &str) -> String {
        for known in &self.models {
            match &known.stage {
                Stage::Loading(progress) if known.name == model || self.models.len() == 1 => {
                    let percent = progress * 100.0;
                    return format!("`{}` is still loading ({percent:.0} %)", known.name);
                }
                Stage::Failed(error) if known.name == model => return error.to_string(),
                Stage::Waiting(reason, _) if known.name == model || self.models.len() == 1 => {
                    return format!("`{}` waits: {reason}", known.name);
                }
                _ => {}
            }
        }
        self.served_hint()
    }

    fn served_hint(&self) -> String {
        let ready: Vec<String> = self
            .ready()
            .map(|backend| format!("`{}`", backend.info().name))
            .collect();
        if ready.is_empty() {
            "no model is ready; start the node with --model".to_owned()
        } else {
            format!("served here: {}", ready.join(", "))
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let exact = self.models.iter().position(|model| model.name == name);
        exact.or_else(|| {
            self.models
                .iter()
                .position(|model| is_called(&model.name, name))
        })
    }

    /// Whether a model of that name answers, will, or still ends.
    fn is_taken(&self, name: &str) -> bool {
        self.models
            .iter()
            .any(|model| model.name == name && !model.has_failed())
    }

    /// A model that others asked for is wanted for this node too: it is told if it can't be loaded. Whether that changes
    /// anything.
    fn claim(&mut self, name: &str) -> bool {
        let mut models = self.models.iter_mut();
        let theirs = models.find(|model| model.name == name && model.is_for_others);
        theirs.is_some_and(|model| {
            model.is_for_others = false;
            true
        })
    }

    fn asked_at_start(&self) -> impl Iterator<Item = &Model> {
        let models = self.models.iter();
        models.filter(|model| model.id < self.first_later_id)
    }

    fn first_failure(&self) -> Option<&StartError> {
        self.asked_at_start().find_map(|model| match &model.stage {
            Stage::Failed(error) => Some(error),
            _ => None,
        })
    }

    fn needed_bytes(&self) -> u64 {
        let live = self.models.iter().filter(|model| !model.has_failed());
        live.map(|model| model.needed_bytes)
            .fold(0, u64::saturating_add)
    }

    fn loading_bytes(&self) -> u64 {
        let loading = self
            .models
            .iter()
            .filter(|m| matches!(m.stage, Stage::Loading(_)));
        loading
            .map(|model| model.needed_bytes)
            .fold(0, u64::saturating_add)
    }

    fn set(&mut self, id: u64, stage: Stage) -> bool {
        let Some(model) = self.models.iter_mut().find(|model| model.id == id) else {
            return false;
        };
        model.stage = stage;
        true
    }
}

impl Model {
    fn backend(&self) -> Option<&Arc<dyn Backend>> {
        match &self.stage {
            Stage::Ready(backend) => Some(backend),
            _ => None,
        }
    }

    /// The backend whose answers may still run.
    fn running(&self) -> Option<&Arc<dyn Backend>> {
        match &self.stage {
            Stage::Ready(backend) | Stage::Dropping(backend) | Stage::Waiting(_, Some(backend)) => {
                Some(backend)
            }
            Stage::Loading(_) | Stage::Failed(_) | Stage::Waiting(_, None) => None,
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed(_))
    }

    /// Nothing more comes of waiting for it; other machines may take for ever to come.
    fn is_settled(&self) -> bool {
        self.split.is_some() || self.running().is_some()
    }

    fn status(&self) -> ModelStatus {
        let of = |backend: &Arc<dyn Backend>| (Some(Arc::clone(backend.info())), backend.load());
        let (state, (info, load)) = match &self.stage {
            Stage::Loading(progress) => {
                let progress = *progress;
                (ModelState::Loading { progress }, (None, Load::default()))
            }
            Stage::Waiting(reason, _) => {
                let state = match self.whole_on() {
                    Some(host) => ModelState::Elsewhere { host },
                    None => ModelState::Waiting {
                        reason: reason.clone(),
                    },
                };
                (state, (None, Load::default()))
            }
            Stage::Ready(backend) => (ModelState::Ready, of(backend)),
            Stage::Dropping(backend) => (ModelState::Dropping, of(backend)),
            Stage::Failed(error) => {
                let reason = error.to_string();
                (ModelState::Failed { reason }, (None, Load::default()))
            }
        };
        ModelStatus {
            name: self.name.clone(),
            state,
            info,
            load,
            layout: self.layout.clone(),
            loading: self.loading(),
        }
    }
}

/// Runs `work` where blocking is allowed. A panic in it becomes an error of `what`; the program
/// has told of the panic itself.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        if error.is_cancelled() {
            return StartError::ShutDown;
        }
        StartError::Load {
            model: what.to_owned(),
            reason: "mesh-llm itself failed; hint: what went wrong is told above".to_owned(),
        }
    })
}
