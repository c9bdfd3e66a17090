//! The handle to a running node, and the state behind it.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::{Backend, EmbedRequest, Embeddings, Error, EventStream, Load, ModelInfo, Request};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::loader::{Loader, Plan, default_loader};
use crate::plan::plan;
use crate::{ModelState, ModelStatus, Settings, Snapshot, StartError};

/// Progress is published in steps of this share, so that a fast loader does not wake every
/// watcher thousands of times.
const PROGRESS_STEP: f32 = 0.01;
/// How long after the grace time a backend may take to say that it has stopped. Ending a
/// sequence takes one decode step, which even a slow machine does well within this.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// The longest grace time that makes sense; longer ones are cut.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A running node. Clones are handles to the same node; it stops loading when the last is dropped.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

/// State of a node. `state` is the truth; `published` is derived from it and sent under its
/// lock, so the two can't disagree for long or out of order.
struct Shared {
    started_unix_s: u64,
    state: watch::Sender<State>,
    published: watch::Sender<Arc<Snapshot>>,
    loading: OnceLock<AbortHandle>,
}

/// What changes.
#[derive(Default)]
struct State {
    models: Vec<Model>,
    shutting_down: bool,
}

/// One model, in any state.
struct Model {
    name: String,
    state: Stage,
}

enum Stage {
    Loading(f32),
    Ready(Arc<dyn Backend>),
    Failed(StartError),
}

/// What a request needs a model for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Generate,
    Embed,
}

impl Node {
    /// Finds the models, checks that they fit into memory, and begins to load them in the
    /// background, one after the other. Returns before they are loaded; see [`Node::ready`].
    ///
    /// # Errors
    /// When a model can't be found or read, or they don't fit; then nothing is loaded.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        match default_loader() {
            Some(loader) => Self::start_with(settings, loader).await,
            None if settings.models.is_empty() => Ok(Self::from_backends(Vec::new())),
            None => Err(StartError::NoEngine),
        }
    }

    /// [`Node::start`] with another way of running models.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_with(
        settings: Settings,
        loader: Arc<dyn Loader>,
    ) -> Result<Self, StartError> {
        let planner = Arc::clone(&loader);
        let plans = blocking("planning", move || plan(&settings, planner.as_ref())).await??;
        let models = plans
            .iter()
            .map(|plan| Model {
                name: plan.name.clone(),
                state: Stage::Loading(0.0),
            })
            .collect();
        let node = Self::with_models(models);
        let task = tokio::spawn(load_all(Arc::downgrade(&node.shared), plans, loader));
        // The cell is empty: nobody else has this node yet.
        let _ = node.shared.loading.set(task.abort_handle());
        Ok(node)
    }

    /// A node that serves `backends`, all ready.
    #[must_use]
    pub fn from_backends(backends: Vec<Arc<dyn Backend>>) -> Self {
        Self::with_models(
            backends
                .into_iter()
                .map(|backend| Model {
                    name: backend.info().name.clone(),
                    state: Stage::Ready(backend),
                })
                .collect(),
        )
    }

    fn with_models(models: Vec<Model>) -> Self {
        let started_unix_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let state = State {
            models,
            shutting_down: false,
        };
        let published = watch::Sender::new(Arc::new(state.snapshot(started_unix_s)));
        Self {
            shared: Arc::new(Shared {
                started_unix_s,
                state: watch::Sender::new(state),
                published,
                loading: OnceLock::new(),
            }),
        }
    }

    /// Waits until every model is loaded.
    ///
    /// # Errors
    /// The first failure, as soon as it is known; [`StartError::ShutDown`] if the node stops first.
    pub async fn ready(&self) -> Result<(), StartError> {
        let mut watcher = self.shared.state.subscribe();
        let state = watcher
            .wait_for(|state| {
                state.shutting_down
                    || state.first_failure().is_some()
                    || state.models.iter().all(|model| model.backend().is_some())
            })
            .await
            .map_err(|_| StartError::ShutDown)?;
        if let Some(failure) = state.first_failure() {
            return Err(failure.clone());
        }
        if state.shutting_down {
            return Err(StartError::ShutDown);
        }
        Ok(())
    }

    /// The state at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let state = self.shared.state.borrow();
        Arc::new(state.snapshot(self.shared.started_unix_s))
    }

    /// Follows the state: wakes when a model's progress or state changes and when the node begins
    /// to stop. The `load` figures are those of that moment; [`Node::snapshot`] has fresh ones.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.published.subscribe()
    }

    /// Models that are ready, in the order in which they were asked for.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<ModelInfo>> {
        let state = self.shared.state.borrow();
        state
            .models
            .iter()
            .filter_map(Model::backend)
            .map(|backend| Arc::clone(backend.info()))
            .collect()
    }

    /// The backend of `model`: its name or file name, in any case. Empty or `auto` is the first
    /// that generates text.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`], with a hint that says what is served or still loading.
    pub fn resolve(&self, model: &str) -> Result<Arc<dyn Backend>, Error> {
        self.shared.state.borrow().resolve(model, Purpose::Generate)
    }

    /// The backend of `model` for embeddings; empty or `auto` is the first that makes them.
    ///
    /// # Errors
    /// As [`Node::resolve`].
    pub fn resolve_for_embedding(&self, model: &str) -> Result<Arc<dyn Backend>, Error> {
        self.shared.state.borrow().resolve(model, Purpose::Embed)
    }

    /// Answers a request.
    ///
    /// # Errors
    /// What is known before the first token; [`Error::ShuttingDown`] once the node stops.
    pub async fn generate(&self, request: Request) -> Result<EventStream, Error> {
        let backend = self.accept(&request.model, Purpose::Generate)?;
        backend.generate(request).await
    }

    /// Embeds texts.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model makes no embeddings; [`Error::ShuttingDown`] once the
    /// node stops.
    pub async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, Error> {
        let backend = self.accept(&request.model, Purpose::Embed)?;
        backend.embed(request).await
    }

    fn accept(&self, model: &str, purpose: Purpose) -> Result<Arc<dyn Backend>, Error> {
        let state = self.shared.state.borrow();
        if state.shutting_down {
            return Err(Error::ShuttingDown);
        }
        let backend = state.resolve(model, purpose)?;
        let info = backend.info();
        match purpose {
            Purpose::Generate if !info.generates => Err(Error::Unsupported(format!(
                "`{}` makes embeddings and generates no text",
                info.name
            ))),
            Purpose::Embed if !info.embeds => Err(Error::Unsupported(format!(
                "`{}` makes no embeddings; hint: serve an embedding model",
                info.name
            ))),
            _ => Ok(backend),
        }
    }

    /// Whether new requests are refused because the node is about to stop.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shared.state.borrow().shutting_down
    }

    /// Stops: refuses new requests at once, lets running ones finish within `grace`, then ends
    /// the rest. Returns when nothing runs any more. Calling it again only waits.
    pub async fn shutdown(&self, grace: Duration) {
        let deadline = Instant::now() + grace.min(GRACE_MAX);
        if let Some(loading) = self.shared.loading.get() {
            loading.abort();
        }
        self.shared.update(|state| state.shutting_down = true);
        let backends: Vec<_> = {
            let state = self.shared.state.borrow();
            state
                .models
                .iter()
                .filter_map(Model::backend)
                .cloned()
                .collect()
        };
        let stopping = join_all(backends.iter().map(|backend| backend.shutdown(deadline)));
        let limit = grace.min(GRACE_MAX) + STOP_MARGIN;
        if tokio::time::timeout(limit, stopping).await.is_err() {
            tracing::error!("a model did not stop in time");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(loading) = self.loading.get() {
            loading.abort();
        }
    }
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            change(state);
            self.published
                .send_replace(Arc::new(state.snapshot(self.started_unix_s)));
        });
    }
}

impl State {
    fn snapshot(&self, started_unix_s: u64) -> Snapshot {
        Snapshot {
            started_unix_s,
            version: env!("CARGO_PKG_VERSION"),
            models: self.models.iter().map(Model::status).collect(),
            shutting_down: self.shutting_down,
            machine: crate::Machine::default(),
            mesh: None,
            targets: Vec::new(),
            demand: Vec::new(),
        }
    }

    fn first_failure(&self) -> Option<&StartError> {
        self.models.iter().find_map(|model| match &model.state {
            Stage::Failed(error) => Some(error),
            Stage::Loading(_) | Stage::Ready(_) => None,
        })
    }

    fn resolve(&self, model: &str, purpose: Purpose) -> Result<Arc<dyn Backend>, Error> {
        let found = if model.is_empty() || model.eq_ignore_ascii_case("auto") {
            let ready = || self.models.iter().filter_map(Model::backend);
            ready()
                .find(|backend| match purpose {
                    Purpose::Generate => backend.info().generates,
                    Purpose::Embed => backend.info().embeds,
                })
                .or_else(|| ready().next())
        } else {
            let wanted = model.to_lowercase();
            let stem = wanted.strip_suffix(".gguf").unwrap_or(&wanted);
            self.models
                .iter()
                .find(|known| known.name == model)
                .or_else(|| {
                    self.models
                        .iter()
                        .find(|known| known.name.to_lowercase() == stem)
                })
                .and_then(Model::backend)
        };
        found.cloned().ok_or_else(|| Error::ModelNotFound {
            model: model.to_owned(),
            hint: self.hint(model),
        })
    }

    /// What to do when `model` has no backend.
    fn hint(&self, model: &str) -> String {
        let mut ready = Vec::new();
        for known in &self.models {
            match &known.state {
                Stage::Ready(_) => ready.push(format!("`{}`", known.name)),
                Stage::Loading(progress) if known.name == model || self.models.len() == 1 => {
                    return format!(
                        "`{}` is still loading ({:.0} %)",
                        known.name,
                        progress * 100.0
                    );
                }
                Stage::Failed(error) if known.name == model => return error.to_string(),
                Stage::Loading(_) | Stage::Failed(_) => {}
            }
        }
        if ready.is_empty() {
            "no model is ready; start the node with --model".to_owned()
        } else {
            format!("served here: {}", ready.join(", "))
        }
    }
}

impl Model {
    fn backend(&self) -> Option<&Arc<dyn Backend>> {
        match &self.state {
            Stage::Ready(backend) => Some(backend),
            Stage::Loading(_) | Stage::Failed(_) => None,
        }
    }

    fn status(&self) -> ModelStatus {
        let (state, info, load) = match &self.state {
            Stage::Loading(progress) => {
                let progress = *progress;
                (ModelState::Loading { progress }, None, Load::default())
            }
            Stage::Ready(backend) => {
                let info = Some(Arc::clone(backend.info()));
                (ModelState::Ready, info, backend.load())
            }
            Stage::Failed(error) => {
                let reason = error.to_string();
                (ModelState::Failed { reason }, None, Load::default())
            }
        };
        ModelStatus {
            name: self.name.clone(),
            state,
            info,
            load,
        }
    }
}

/// Loads one model after the other: two at a time would only share the disk's speed. Goes on
/// after a failure, so that the other models can serve.
async fn load_all(shared: Weak<Shared>, plans: Vec<Plan>, loader: Arc<dyn Loader>) {
    for (index, plan) in plans.into_iter().enumerate() {
        let name = plan.name.clone();
        let loader = Arc::clone(&loader);
        let progress = publish_progress(shared.clone(), index);
        let loaded = blocking(&name, move || loader.load(plan, progress)).await;
        let state = match loaded {
            Ok(Ok(backend)) => Stage::Ready(backend),
            Ok(Err(error)) => Stage::Failed(StartError::Load {
                model: name.clone(),
                reason: error.to_string(),
            }),
            Err(error) => Stage::Failed(error),
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.update(|all| {
            if let Some(model) = all.models.get_mut(index) {
                model.state = state;
            }
        });
    }
}

fn publish_progress(shared: Weak<Shared>, index: usize) -> Box<dyn FnMut(f32) + Send> {
    let mut published = 0.0;
    Box::new(move |progress| {
        let progress = progress.clamp(0.0, 1.0);
        if progress < published + PROGRESS_STEP {
            return;
        }
        published = progress;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.update(|all| {
            if let Some(model) = all.models.get_mut(index)
                && matches!(model.state, Stage::Loading(_))
            {
                model.state = Stage::Loading(progress);
            }
        });
    })
}

/// Runs `work` where blocking is allowed. A panic in it becomes an error of `what`; the program
/// has told of the panic itself.
async fn blocking<T: Send + 'static>(
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
