//! A node's place in a mesh, and the task that keeps it: it takes calls of peers, says what this
//! node is and has, and takes up models that the mesh lacks.

mod announce;
mod inheritance;
mod requests;
mod scene;
mod taking;

use std::sync::{Arc, Weak};
use std::time::Duration;

use engine::{Backend, Error};
use futures::FutureExt;
use mesh::net::{Link, MemberStatus, Streams};
use mesh::proto::View;
use mesh::{Mesh, NodeId, Role};
#[cfg(feature = "solo")]
use split::station::Station;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::announce::info;
#[cfg(feature = "solo")]
use self::taking::Fetched;
use self::taking::{ASKS_MAX, Ask, Taken, Unplaced};
#[cfg(feature = "solo")]
use crate::Machine;
use crate::ModelSource;
use crate::library::{Library, Volume};
use crate::models::{Dropped, blocking};
use crate::node::Shared;
use crate::peer::{self, CALLS, Hosting, TakingUp};
use crate::promotion::{Promoter, Reason};
#[cfg(feature = "solo")]
use crate::split::{Distances, Part};
use crate::succession::Successor;
use crate::wire::{Call, TakeUp};

/// How often this node looks at itself, and decides.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A node that has just come looks more often who hosts the models that it is to host, until it may claim them.
const EARLY_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// So many of the ordinary looks it does so.
const EARLY_LOOKS: u64 = 3;

/// Every so many looks the models on disk are looked through.
const LIBRARY_LOOKS: u64 = 60;

/// Models that are loaded because the mesh lacks them; one at a time is decided on. What members ask for counts apart,
/// so that it is in no lost host's way.
const LOADS_MAX: usize = 4;

/// How long stages of others may take to end: the step that runs, and freeing memory.
#[cfg(feature = "solo")]
const STATION_CLOSE_MAX: Duration = Duration::from_secs(5);

/// How long a node that stops waits for hosts to go elsewhere. Another machine loads the layers meanwhile.
#[cfg(feature = "solo")]
const LEAVE_MAX: Duration = Duration::from_secs(30);

/// Code with which a stream of an unknown kind is ended.
const CODE_UNKNOWN_KIND: u32 = 2;

/// A place in a mesh. Dropping it ends the task; the others then see this node die.
pub(crate) struct Membership {
    mesh: Mesh,
    view: watch::Receiver<Arc<View>>,
    links: watch::Receiver<Vec<Link>>,
    dropped: mpsc::Sender<Dropped>,
    #[cfg(feature = "solo")]
    part: Option<Part>,
    _task: AbortOnDropHandle<()>,
}

/// What the task owns.
struct Keeper {
    shared: Weak<Shared>,
    mesh: Mesh,
    streams: Streams,
    links: watch::Sender<Vec<Link>>,
    dropped: mpsc::Receiver<Dropped>,
    /// What peers ask this node to serve.
    asked: mpsc::Receiver<Ask>,
    asks: mpsc::Sender<Ask>,
    /// What it has taken up for them.
    taken: Taken,
    promoter: Promoter,
    successor: Successor,
    library: Vec<Volume>,
    looks: u64,
    tasks: JoinSet<Done>,
    loads: usize,
    #[cfg(feature = "solo")]
    part: Option<Part>,
    /// Whether this machine's memory is measured, or was.
    #[cfg(feature = "solo")]
    is_measured: bool,
}

/// Finds this node's models for peers.
struct Host {
    shared: Weak<Shared>,
    asks: mpsc::Sender<Ask>,
    view: watch::Receiver<Arc<View>>,
}

impl Hosting for Host {
    fn backend(&self, call: &Call) -> Result<Arc<dyn Backend>, Error> {
        let shared = self.shared.upgrade().ok_or(Error::ShuttingDown)?;
        shared.backend_for(call.model())
    }

    fn take_up(&self, peer: NodeId, wanted: TakeUp) -> TakingUp {
        let (told, fetched) = watch::channel(0);
        let asked = taking::ask(self.asks.clone(), self.view.clone(), peer, wanted, told);
        TakingUp {
            loading: asked.boxed(),
            fetched,
        }
    }
}

/// What a task of the keeper brings back.
enum Done {
    Call,
    /// Others are to know how fast this machine is.
    #[cfg(feature = "solo")]
    Measured,
    Library(Library, Vec<Volume>),
    Load,
    /// A member asked for a model of this fingerprint, and it could not be loaded.
    NotTaken(String),
    /// Memory has no room for a model that a member asks for.
    Unplaced(Box<Unplaced>),
    /// The file of a model came that a member asks for.
    #[cfg(feature = "solo")]
    Fetched(Box<Fetched>),
}

/// Why the keeper ends.
enum End {
    /// The node is gone, or has left.
    Gone,
    /// The mesh does not want this node any more.
    Unwanted(String),
}

impl Membership {
    /// Begins to keep a place.
    pub(crate) fn start(shared: &Arc<Shared>, mesh: Mesh, streams: Streams) -> Arc<Self> {
        let (links_sender, links) = watch::channel(Vec::new());
        let (dropped, dropped_receiver) = mpsc::channel(LOADS_MAX * 4);
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        #[cfg(feature = "solo")]
        let part = Part::new(shared, &mesh);
        let keeper = Keeper {
            #[cfg(feature = "solo")]
            part: part.clone(),
            #[cfg(feature = "solo")]
            is_measured: part.is_none(),
            shared: Arc::downgrade(shared),
            mesh: mesh.clone(),
            streams,
            links: links_sender,
            dropped: dropped_receiver,
            asked,
            asks,
            taken: Taken::default(),
            promoter: Promoter::default(),
            successor: Successor::default(),
            library: Vec::new(),
            looks: 0,
            tasks: JoinSet::new(),
            loads: 0,
        };
        Arc::new(Self {
            view: mesh.view(),
            mesh,
            links,
            dropped,
            #[cfg(feature = "solo")]
            part,
            _task: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        })
    }

    /// The mesh.
    pub(crate) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The mesh as this node sees it.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Open connections, at the last look.
    pub(crate) fn links(&self) -> Vec<Link> {
        self.links.borrow().clone()
    }

    /// This node's part in rings of the mesh, if it takes part.
    #[cfg(feature = "solo")]
    pub(crate) fn station(&self) -> Option<Station> {
        self.part.as_ref().map(|part| part.station.clone())
    }

    /// How far members said that others are, if this node takes part in rings.
    #[cfg(feature = "solo")]
    pub(crate) fn distances(&self) -> Option<Distances> {
        self.part.as_ref().map(|part| part.distances.clone())
    }

    /// Whether this node never computes.
    pub(crate) fn is_client(&self) -> bool {
        self.mesh.role() == Role::Client
    }

    /// Whether this node is told of the mesh only when it asks.
    pub(crate) fn pulls(&self) -> bool {
        self.is_client()
    }

    /// Ends this node's part in rings: what others have leased here is free, and they are told.
    pub(crate) async fn close(&self) {
        #[cfg(feature = "solo")]
        if let Some(part) = &self.part
            && timeout(STATION_CLOSE_MAX, part.station.close())
                .await
                .is_err()
        {
            tracing::warn!("stages of other hosts did not end in time");
        }
    }

    /// Asks the hosts of this node's stages to go elsewhere, and waits for that.
    pub(crate) async fn leave_rings(&self, wait_max: Duration) {
        #[cfg(feature = "solo")]
        if let Some(part) = &self.part {
            part.station.leave(wait_max.min(LEAVE_MAX)).await;
        }
        #[cfg(not(feature = "solo"))]
        let _ = wait_max;
    }

    /// Asks for a fresh table; true if one came in time.
    pub(crate) async fn pull(&self, wait_max: Duration) -> bool {
        let mut view = self.mesh.view();
        view.mark_unchanged();
        if self.mesh.pull_now().await.is_err() {
            return false;
        }
        matches!(timeout(wait_max, view.changed()).await, Ok(Ok(())))
    }

    /// Waits for news of the mesh, for `wait_max` at most.
    pub(crate) async fn look_again(&self, wait_max: Duration) {
        if self.pulls() {
            // Without an answer the next look comes all the same.
            let _ = self.mesh.pull_now().await;
            sleep(wait_max).await;
            return;
        }
        let mut view = self.mesh.view();
        view.mark_unchanged();
        // Running out of time is the usual end.
        let _ = timeout(wait_max, view.changed()).await;
    }

    /// The owner dropped a model: it is not taken up again soon.
    pub(crate) fn note_dropped(&self, dropped: Dropped) {
        if self.dropped.try_send(dropped).is_err() {
            tracing::debug!("too many models were dropped at once");
        }
    }
}

impl Keeper {
    async fn run(mut self) {
        let reason = match self.keep().await {
            End::Gone => return,
            End::Unwanted(reason) => reason,
        };
        tracing::error!(reason, "this node is no member of the mesh any more");
        if let Some(shared) = self.shared.upgrade() {
            let mesh = self.mesh.clone();
            // Not awaited here: leaving ends this very task.
            tokio::spawn(async move { shared.end_membership_of(&mesh).await });
        }
        std::future::pending::<()>().await;
    }

    async fn keep(&mut self) -> End {
        let mut view = self.mesh.view();
        let mut status = self.mesh.status();
        let Some(mut table) = self.shared.upgrade().map(|shared| shared.models.watch()) else {
            return End::Gone;
        };
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut early_looks = interval(EARLY_LOOK_INTERVAL);
        early_looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look_through(Library::default());
        loop {
            tokio::select! {
                stream = self.streams.next() => match stream {
                    None => return End::Gone,
                    Some(stream) if stream.kind == CALLS => {
                        let Some(shared) = self.shared.upgrade() else { return End::Gone };
                        let calls = Arc::clone(&shared.calls);
                        // Weak: a call that runs does not keep a node alive that was let go.
                        let host = Host {
                            shared: self.shared.clone(),
                            asks: self.asks.clone(),
                            view: self.mesh.view(),
                        };
                        self.tasks.spawn(async move {
                            peer::answer(stream, host, calls).await;
                            Done::Call
                        });
                    }
                    #[cfg(feature = "solo")]
                    Some(stream) if Part::is_mine(stream.kind, stream.is_bulk) && self.part.is_some() => {
                        self.stage(stream);
                    }
                    Some(mut stream) => {
                        tracing::debug!(peer = stream.peer.short(), kind = stream.kind.0, "a stream that nobody here takes");
                        stream.send.abort(CODE_UNKNOWN_KIND);
                        stream.recv.abort(CODE_UNKNOWN_KIND);
                    }
                },
                Some(done) = self.tasks.join_next() => {
                    if self.done(done) && self.announce().await.is_none() {
                        return End::Gone;
                    }
                }
                changed = view.changed() => {
                    if changed.is_err() {
                        return End::Gone;
                    }
                    view.mark_unchanged();
                    let Some(shared) = self.shared.upgrade() else { return End::Gone };
                    // A host that is there for a moment only is one that can be lost.
                    self.promoter.observe(&self.scene(&shared));
                    self.succeed(&shared);
                    shared.publish();
                }
                changed = status.changed() => {
                    if changed.is_err() {
                        return End::Gone;
                    }
                    let now = status.borrow_and_update().clone();
                    if let Some(reason) = unwanted(&now) {
                        return End::Unwanted(reason);
                    }
                }
                changed = table.changed() => {
                    if changed.is_err() {
                        return End::Gone;
                    }
                    table.mark_unchanged();
                    let Some(shared) = self.shared.upgrade() else { return End::Gone };
                    self.succeed(&shared);
                    drop(shared);
                    if self.announce().await.is_none() {
                        return End::Gone;
                    }
                }
                Some(dropped) = self.dropped.recv() => self.note_dropped(dropped),
                Some(ask) = self.asked.recv() => self.asked_for(ask),
                _ = early_looks.tick(), if self.looks < EARLY_LOOKS => {
                    let Some(shared) = self.shared.upgrade() else { return End::Gone };
                    self.succeed(&shared);
                }
                _ = looks.tick() => {
                    if self.look().await.is_none() {
                        return End::Gone;
                    }
                }
            }
        }
    }

    /// What happens every second. `None`: the node is gone.
    async fn look(&mut self) -> Option<()> {
        self.looks += 1;
        if let Ok(links) = self.mesh.links().await {
            self.links.send_replace(links);
        }
        self.offer().await;
        self.announce().await?;
        let shared = self.shared.upgrade()?;
        self.measure(&shared);
        self.succeed(&shared);
        let scene = self.scene(&shared);
        if let Some((model, reason)) = self.promoter.decide(&scene) {
            self.take_up(&shared, &model, reason);
        }
        Some(())
    }

    /// Passes a stream of stages on.
    #[cfg(feature = "solo")]
    fn stage(&mut self, stream: mesh::net::IncomingStream) {
        let Some(part) = self.part.clone() else {
            return;
        };
        self.tasks.spawn(async move {
            part.take(stream).await;
            Done::Call
        });
    }

    /// Measures this machine when it has nothing else to do, once.
    #[cfg(feature = "solo")]
    fn measure(&mut self, shared: &Arc<Shared>) {
        let is_idle = {
            let table = shared.models.table();
            !table.is_loading() && table.ready().all(|backend| backend.load().running == 0)
        };
        if self.is_measured || !is_idle {
            return;
        }
        self.is_measured = true;
        let shared = Arc::clone(shared);
        self.tasks.spawn(async move {
            let measure = move || {
                if let Some(compute) = crate::split::measure(&shared) {
                    let mb_s = compute.bandwidth_mb_s;
                    let told = |machine: &mut Machine| machine.bandwidth_mb_s = Some(mb_s);
                    shared.machine.send_modify(told);
                    // Another membership of this node may have been first.
                    let _ = shared.compute.set(compute);
                }
            };
            let _ = blocking("measuring memory", measure).await;
            Done::Measured
        });
    }

    #[cfg(not(feature = "solo"))]
    fn measure(&mut self, _: &Arc<Shared>) {}

    /// What others may lease here: what is free, and what they have leased already.
    #[cfg(feature = "solo")]
    async fn offer(&self) {
        if let (Some(part), Some(shared)) = (&self.part, self.shared.upgrade()) {
            let station = &part.station;
            let leased_bytes = station.usage().await.used_bytes;
            let bytes_max = shared.settings.memory_bytes_max;
            let budget_bytes = shared.models.lend(bytes_max, leased_bytes);
            station.set_budget(budget_bytes).await;
        }
    }

    #[cfg(not(feature = "solo"))]
    async fn offer(&self) {}

    async fn announce(&self) -> Option<()> {
        let shared = self.shared.upgrade()?;
        let view = self.mesh.view().borrow().clone();
        let info = info(&shared, Some(&view), &self.library, self.mesh.role());
        self.mesh.announce(info).await.ok()
    }

    /// Takes in what a task brings; true if it is news for the others.
    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) -> bool {
        match done {
            Ok(Done::Library(library, volumes)) => {
                // The first look is what others wait for who plan with this machine.
                let is_news = self.library.is_empty() && !volumes.is_empty();
                self.library = volumes;
                self.look_through(library);
                return is_news;
            }
            Ok(Done::Load) => self.loads = self.loads.saturating_sub(1),
            Ok(Done::NotTaken(fingerprint)) => self.note_not_taken(fingerprint),
            Ok(Done::Unplaced(unplaced)) => self.refuse_unplaced(*unplaced),
            #[cfg(feature = "solo")]
            Ok(Done::Fetched(fetched)) => self.load_fetched(*fetched),
            Ok(Done::Call) => {}
            #[cfg(feature = "solo")]
            Ok(Done::Measured) => return true,
            // The program has told of the panic itself.
            Err(error) => tracing::debug!(%error, "a task failed"),
        }
        false
    }

    /// Looks through the models on disk, now and then; a client has no use for them.
    fn look_through(&mut self, mut library: Library) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let Some(loader) = shared.models.loader().cloned() else {
            return;
        };
        if self.mesh.role() == Role::Client {
            return;
        }
        let settings = shared.settings.clone();
        let wait = if self.library.is_empty() && self.looks == 0 {
            Duration::ZERO
        } else {
            LOOK_INTERVAL * u32::try_from(LIBRARY_LOOKS).unwrap_or(u32::MAX)
        };
        self.tasks.spawn(async move {
            sleep(wait).await;
            let looked = blocking("looking for models", move || {
                let volumes = library.look(&settings, loader.as_ref());
                (library, volumes)
            });
            match looked.await {
                Ok((library, volumes)) => Done::Library(library, volumes),
                Err(_) => Done::Call,
            }
        });
    }

    fn take_up(&mut self, shared: &Arc<Shared>, model: &str, reason: Reason) {
        let Some(volume) = self.library.iter().find(|volume| volume.name == model) else {
            return;
        };
        if self.loads >= LOADS_MAX {
            return;
        }
        self.loads += 1;
        tracing::info!(model, ?reason, "taking up a model that the mesh lacks");
        let (shared, path, model) = (Arc::clone(shared), volume.path.clone(), model.to_owned());
        self.tasks.spawn(async move {
            let loaded = shared.load(ModelSource::Path(path), false).await;
            if let Err(error) = loaded {
                tracing::warn!(model, %error, "a model could not be taken up");
            }
            Done::Load
        });
    }
}

/// Why the mesh has no place for this node any more, if so.
fn unwanted(status: &MemberStatus) -> Option<String> {
    match status {
        MemberStatus::Member => None,
        MemberStatus::Expelled(reason) => Some(reason.to_string()),
        // One member's word; others may well want it.
        MemberStatus::Refused { by, reason } => {
            tracing::warn!(by = by.short(), %reason, "a member refuses this node");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::admission::Refusal;

    use super::*;

    #[test]
    fn one_members_word_ends_no_membership() {
        let by = mesh::NodeId::from_bytes([1; 32]);
        for reason in [Refusal::Expelled, Refusal::MembershipExpired] {
            let refused = MemberStatus::Refused {
                by,
                reason: reason.clone(),
            };
            assert_eq!(unwanted(&refused), None);
            assert!(unwanted(&MemberStatus::Expelled(reason)).is_some());
        }
        assert_eq!(unwanted(&MemberStatus::Member), None);
    }
}
