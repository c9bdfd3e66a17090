//! The handle to a running node, and what its parts share.

#[cfg(feature = "solo")]
use std::sync::PoisonError;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::{Backend, EmbedRequest, Embeddings, Error, EventStream, ModelInfo, Request};
use futures::future::join_all;
use mesh::announcement::{Compute, MODEL_NAME_BYTES_MAX};
use mesh::proto::View;
use mesh::{Mesh, NodeId};
use tokio::sync::{Mutex, watch};
#[cfg(feature = "solo")]
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::answer::{self, Answer, Computes};
use crate::directory::{self, Found};
use crate::ingress::Ingress;
use crate::loader::{Loader, Plan, default_loader};
use crate::membership::Membership;
use crate::models::{Models, Purpose, is_auto, is_called};
use crate::peer::Calls;
use crate::remote::Remote;
use crate::route::Place;
use crate::{Machine, Settings, Snapshot, SplitModels, StartError, picture};

/// How long after the grace time a backend may take to say that it has stopped. Ending a
/// sequence takes one decode step, which even a slow machine does well within this.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// How long a join that is under way holds a stop up. A ticket that nobody answers takes longer.
const ENTERING_MAX: Duration = Duration::from_secs(3);
/// The longest grace time that makes sense; longer ones are cut.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often figures that nobody announces are looked at: load, memory, links, demand.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a node that pulls the table waits for a fresh one when it does not know a model.
const PULL_WAIT_MAX: Duration = Duration::from_millis(1_500);

/// How long a list of models waits for hosts that have not said yet what they serve.
const DESCRIBE_MAX: Duration = Duration::from_secs(2);

/// A running node. Clones are handles to the same node; it stops loading when the last is dropped.
#[derive(Clone)]
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    _work: Arc<OnceLock<AbortOnDropHandle<()>>>,
}

/// What the parts of a node share. Each part owns its own state.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) models: Arc<Models>,
    pub(crate) ingress: Ingress,
    pub(crate) calls: Arc<Calls>,
    pub(crate) machine: watch::Sender<Machine>,
    /// The mesh that this node is a member of. Written by `membership` only.
    pub(crate) membership: watch::Sender<Option<Arc<Membership>>>,
    /// Held while the node goes from one mesh to another: one change at a time.
    pub(crate) entering: Mutex<()>,
    /// How fast this machine computes, once measured.
    pub(crate) compute: OnceLock<Compute>,
    #[cfg(feature = "solo")]
    pub(crate) speeds: Arc<crate::split::Speeds>,
    /// Tasks that keep models on several machines; they end with the node.
    #[cfg(feature = "solo")]
    splits: std::sync::Mutex<JoinSet<()>>,
    started_unix_s: u64,
    published: watch::Sender<Arc<Snapshot>>,
}

impl Node {
    /// Finds the models, checks that they fit into memory, and begins to load them in the
    /// background, one after the other. Returns before they are loaded; see [`Node::ready`].
    ///
    /// # Errors
    /// When a model can't be found or read, or they don't fit; then nothing is loaded.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        match default_loader(&settings) {
            Some(loader) => Self::start_with(settings, loader).await,
            None if settings.models.is_empty() => {
                Ok(Self::with(settings, Models::empty(None), Vec::new()))
            }
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
        let (models, split) = Models::start(settings.clone(), loader).await?;
        Ok(Self::with(settings, models, split))
    }

    /// A node that serves `backends`, all ready.
    #[must_use]
    pub fn from_backends(backends: Vec<Arc<dyn Backend>>) -> Self {
        Self::from_backends_with(Settings::default(), backends)
    }

    /// [`Node::from_backends`] with settings; their models are ignored.
    #[must_use]
    pub fn from_backends_with(settings: Settings, backends: Vec<Arc<dyn Backend>>) -> Self {
        Self::with(settings, Models::of_backends(backends), Vec::new())
    }

    fn with(settings: Settings, models: Arc<Models>, split: Vec<Plan>) -> Self {
        let started_unix_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let gpus = models
            .loader()
            .map_or_else(Vec::new, |loader| loader.gpus());
        let machine = picture::machine(&settings, gpus);
        let snapshot = picture::first(started_unix_s, &machine, &models.table());
        let calls = Arc::new(Calls::new(settings.mesh.unread_max));
        let shared = Arc::new(Shared {
            compute: OnceLock::new(),
            #[cfg(feature = "solo")]
            speeds: crate::split::speeds(&settings),
            settings,
            models,
            ingress: Ingress::new(),
            calls,
            machine: watch::Sender::new(machine),
            membership: watch::Sender::new(None),
            entering: Mutex::new(()),
            #[cfg(feature = "solo")]
            splits: std::sync::Mutex::default(),
            started_unix_s,
            published: watch::Sender::new(Arc::new(snapshot)),
        });
        let work = OnceLock::new();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let looking = runtime.spawn(look(Arc::downgrade(&shared)));
            // The cell is empty: nobody else has this node yet.
            let _ = work.set(AbortOnDropHandle::new(looking));
            for plan in split {
                shared.begin_split(plan, true, shared.settings.split == SplitModels::Always);
            }
        }
        Self {
            shared,
            _work: Arc::new(work),
        }
    }

    /// Waits until every model of this node is loaded.
    ///
    /// # Errors
    /// The first failure, as soon as it is known; [`StartError::ShutDown`] if the node stops first.
    pub async fn ready(&self) -> Result<(), StartError> {
        self.shared.models.ready().await
    }

    /// The state at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.shared.picture())
    }

    /// Follows the state: wakes when something of the snapshot has changed; figures that change all
    /// the time are looked at once a second.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.published.subscribe()
    }

    /// Models of this node that are ready, in the order in which they were asked for.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<ModelInfo>> {
        let table = self.shared.models.table();
        table
            .ready()
            .map(|backend| Arc::clone(backend.info()))
            .collect()
    }

    /// What can be asked for here: this node's models, then those of the mesh, by name. Hosts are
    /// asked what they serve where that is not known yet; one that does not answer soon leaves
    /// gaps.
    pub async fn served(&self) -> Vec<Arc<ModelInfo>> {
        let mut served = self.models();
        let elsewhere: Vec<_> = (self.snapshot().targets.iter())
            .filter(|target| !served.iter().any(|info| info.name == target.model))
            .cloned()
            .collect();
        let describe = elsewhere.iter().map(|target| async {
            let asked = self.shared.resolve(&target.model, Purpose::Generate);
            match timeout(DESCRIBE_MAX, asked).await {
                Ok(Ok(backend)) => Arc::clone(backend.info()),
                _ => Arc::new(directory::outline(target)),
            }
        });
        served.extend(join_all(describe).await);
        served
    }

    /// The backend of `model`, here or in the mesh: its name or file name, in any case. Empty or
    /// `auto` is the best that generates text.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`], with a hint that says what is served or still loading;
    /// [`Error::Lost`] if none of its hosts can be reached.
    pub async fn resolve(&self, model: &str) -> Result<Arc<dyn Backend>, Error> {
        self.resolve_for(model, Purpose::Generate).await
    }

    /// The backend of `model` for embeddings; empty or `auto` is the best that makes them.
    ///
    /// # Errors
    /// As [`Node::resolve`].
    pub async fn resolve_for_embedding(&self, model: &str) -> Result<Arc<dyn Backend>, Error> {
        self.resolve_for(model, Purpose::Embed).await
    }

    async fn resolve_for(&self, model: &str, purpose: Purpose) -> Result<Arc<dyn Backend>, Error> {
        let found = self.shared.resolve(model, purpose).await;
        found.inspect_err(|error| self.shared.note_missing(error))
    }

    /// Answers a request, here or through the mesh. When a host dies on the way, another goes on.
    ///
    /// # Errors
    /// What is known before the first token; [`Error::ShuttingDown`] once the node stops.
    pub async fn answer(&self, request: Request) -> Result<Answer, Error> {
        self.accept()?;
        answer::generate(&self.shared, request).await
    }

    /// The events of [`Node::answer`].
    ///
    /// # Errors
    /// As [`Node::answer`].
    pub async fn generate(&self, request: Request) -> Result<EventStream, Error> {
        Ok(self.answer(request).await?.events)
    }

    /// Embeds texts.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model makes no embeddings; [`Error::ShuttingDown`] once the
    /// node stops.
    pub async fn embed(&self, mut request: EmbedRequest) -> Result<Embeddings, Error> {
        self.accept()?;
        let backend = self.resolve_for_embedding(&request.model).await?;
        Purpose::Embed.check(backend.info())?;
        request.model.clone_from(&backend.info().name);
        self.shared.ingress.count(&request.model);
        backend.embed(request).await
    }

    fn accept(&self) -> Result<(), Error> {
        if self.is_shutting_down() {
            return Err(Error::ShuttingDown);
        }
        Ok(())
    }

    /// Whether new requests are refused because the node is about to stop.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shared.models.table().shutting_down
    }

    /// Stops: refuses new requests at once, lets running ones finish within `grace`, also those that peers answer,
    /// then ends the rest and says goodbye to the mesh. Returns when nothing runs any more. Calling it again
    /// only waits.
    pub async fn shutdown(&self, grace: Duration) {
        let grace = grace.min(GRACE_MAX);
        self.shared.models.close();
        self.shared.publish();
        let deadline = Instant::now() + grace;
        let running = self.shared.models.finish(deadline);
        let rings = self.shared.leave_rings(grace);
        let at_peers = self.shared.ingress.finish(deadline);
        let stopping = async { tokio::join!(running, rings, at_peers) };
        if tokio::time::timeout(grace + STOP_MARGIN, stopping)
            .await
            .is_err()
        {
            tracing::error!("a model did not stop in time");
        }
        // A node that is going from one mesh to another gets there first, so that it can say goodbye. No
        // further change begins: the node is closed.
        let entering = tokio::time::timeout(ENTERING_MAX, self.shared.entering.lock()).await;
        self.shared.end_membership().await;
        drop(entering);
    }
}

/// Looks at what changes by itself until the node is gone.
async fn look(shared: std::sync::Weak<Shared>) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let Some(mut table) = shared.upgrade().map(|shared| shared.models.watch()) else {
        return;
    };
    loop {
        tokio::select! {
            _ = interval.tick() => {
                let Some(shared) = shared.upgrade() else { return };
                let free_bytes = shared.models.free_bytes(shared.settings.memory_bytes_max);
                shared.machine.send_if_modified(|machine| picture::note_memory(machine, free_bytes));
                shared.note_round_trips();
                shared.publish();
            }
            changed = table.changed() => {
                if changed.is_err() {
                    return;
                }
                table.mark_unchanged();
                let Some(shared) = shared.upgrade() else { return };
                shared.publish();
            }
        }
    }
}

impl Shared {
    /// Begins to keep a model on several machines; false if there is one of that name. `asked`: the
    /// owner wants it here. `forced`: even if it fits on one machine.
    #[cfg(feature = "solo")]
    pub(crate) fn begin_split(self: &Arc<Self>, plan: Plan, asked: bool, forced: bool) -> bool {
        let Some(id) = self.models.begin_split(&plan.name, asked) else {
            return false;
        };
        let keeping = crate::split::keep(Arc::downgrade(self), id, plan, forced);
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are forgotten.
        while splits.try_join_next().is_some() {}
        splits.spawn(keeping);
        true
    }

    /// Without an engine there is nothing to begin.
    #[cfg(not(feature = "solo"))]
    pub(crate) fn begin_split(self: &Arc<Self>, _: Plan, _: bool, _: bool) -> bool {
        false
    }

    /// The mesh, if the node is in one.
    pub(crate) fn mesh(&self) -> Option<Mesh> {
        let membership = self.membership.borrow();
        membership
            .as_ref()
            .map(|membership| membership.mesh().clone())
    }

    /// The mesh as this node sees it.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        let membership = self.membership.borrow();
        membership.as_ref().map(|membership| membership.view())
    }

    /// Whether there is a connection to a member.
    pub(crate) fn is_connected(&self) -> bool {
        let membership = self.membership.borrow();
        let membership = membership.as_ref();
        membership.is_some_and(|membership| !membership.links().is_empty())
    }

    /// The hosts of a model.
    pub(crate) async fn find(&self, model: &str, purpose: Purpose) -> Result<Found, Error> {
        if let Some(found) = self.look_up(model, purpose) {
            return Ok(found);
        }
        let membership = self.membership.borrow().clone();
        if let Some(membership) = membership
            && membership.pulls()
            && membership.pull(PULL_WAIT_MAX).await
            && let Some(found) = self.look_up(model, purpose)
        {
            return Ok(found);
        }
        Err(Error::ModelNotFound {
            model: model.to_owned(),
            hint: self.hint(model),
        })
    }

    /// Counts a request that nobody can answer: what is asked for and not served is what a joiner
    /// should take up. Under the name that a member's disk has it by, if one has.
    pub(crate) fn note_missing(&self, error: &Error) {
        let Error::ModelNotFound { model, .. } = error else {
            return;
        };
        let Some(view) = self.view() else {
            return;
        };
        if is_auto(model) || model.len() > MODEL_NAME_BYTES_MAX {
            return;
        }
        let known = view
            .alive()
            .flat_map(|member| &member.announcement().info.local)
            .find(|local| is_called(&local.name, model));
        self.ingress.count(known.map_or(model, |local| &local.name));
    }

    fn look_up(&self, model: &str, purpose: Purpose) -> Option<Found> {
        let view = self.view();
        let mut found = directory::find(&self.models.table(), view.as_deref(), model, purpose)?;
        self.ingress.fill_round_trips(&mut found.candidates);
        for candidate in &mut found.candidates {
            if let Place::Peer(node) = candidate.place {
                // What others announce is some seconds old.
                candidate.busy = candidate.busy.max(self.ingress.running_at(node));
            }
        }
        Some(found)
    }

    /// Remembers how far members are that a connection is open to.
    fn note_round_trips(&self) {
        if let Some(view) = self.view() {
            let members = view.members.iter();
            let measured = members.filter_map(|m| Some((m.node, m.round_trip_us?)));
            self.ingress.note_round_trips(measured);
        }
    }

    fn hint(&self, model: &str) -> String {
        let view = self.view();
        let table = self.models.table();
        let targets = directory::targets(&table, view.as_deref(), "");
        if targets.is_empty() || table.is_loading() {
            return table.hint(model);
        }
        let names: Vec<_> = targets
            .iter()
            .map(|target| format!("`{}`", target.model))
            .collect();
        match view {
            None => table.hint(model),
            Some(_) => format!("served in this mesh: {}", names.join(", ")),
        }
    }

    async fn resolve(
        self: &Arc<Self>,
        model: &str,
        purpose: Purpose,
    ) -> Result<Arc<dyn Backend>, Error> {
        let found = self.find(model, purpose).await?;
        if let Some(backend) = self.models.table().find(&found.name) {
            return Ok(Arc::clone(backend));
        }
        let remote = Remote::describe(self, &found.name, found.candidates).await?;
        Ok(Arc::new(remote))
    }

    /// A model of this process.
    pub(crate) fn local(&self, model: &str, purpose: Purpose) -> Result<Arc<dyn Backend>, Error> {
        let table = self.models.table();
        if table.shutting_down {
            return Err(Error::ShuttingDown);
        }
        let backend = table.find(model).ok_or_else(|| Error::ModelNotFound {
            model: model.to_owned(),
            hint: table.hint(model),
        })?;
        purpose.check(backend.info())?;
        Ok(Arc::clone(backend))
    }

    /// Who computes at `place`, if it is not this node.
    pub(crate) fn computes(&self, place: Place) -> Option<Computes> {
        let Place::Peer(node) = place else {
            return None;
        };
        let name = self.view().and_then(|view| {
            let member = view.member(node)?;
            Some(member.announcement().info.name.clone())
        });
        let name = name.filter(|name| !name.is_empty());
        Some(Computes {
            node,
            name: name.unwrap_or_else(|| NodeId::short(&node)),
        })
    }

    /// When the program started, Unix milliseconds.
    pub(crate) fn started_unix_ms(&self) -> u64 {
        self.started_unix_s.saturating_mul(1000)
    }

    /// The state at this moment.
    fn picture(&self) -> Snapshot {
        picture::snapshot(self, self.started_unix_s)
    }

    /// Tells those who follow the state, if it has changed.
    pub(crate) fn publish(&self) {
        self.published.send_if_modified(|published| {
            let now = self.picture();
            let is_news = now != **published;
            if is_news {
                *published = Arc::new(now);
            }
            is_news
        });
    }
}

impl Shared {
    /// The model of this process that a peer asks for.
    pub(crate) fn backend_for(&self, model: &str) -> Result<Arc<dyn Backend>, Error> {
        let table = self.models.table();
        if table.shutting_down {
            return Err(Error::ShuttingDown);
        }
        let backend = table.find(model).ok_or_else(|| Error::ModelNotFound {
            model: model.to_owned(),
            hint: table.hint(model),
        })?;
        Ok(Arc::clone(backend))
    }
}
