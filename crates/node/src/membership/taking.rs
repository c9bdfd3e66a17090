//! Models that members ask this node to serve whole, because their plans say that they fit here: which it takes up,
//! and why it refuses the others. It owes nobody to go on: what was taken up stays until it is dropped here, also when
//! whoever asked has dropped it or left, as with any model that a node takes up for the mesh.
//!
//! Whoever asks takes memory of this machine, and where the model's file is missing some of its disk and network
//! (`fetching`), so the rules are strict; they are in `rules`, which is pure.

#[cfg(feature = "solo")]
mod fetching;
mod room;
mod rules;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::{Error, ModelInfo};
use mesh::proto::View;
use mesh::{NodeId, Role};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

#[cfg(feature = "solo")]
pub(super) use self::fetching::Fetched;
use self::room::{ContextMax, measured};
pub(super) use self::rules::Taken;
use self::rules::{Begin, Known, Refusal, Scene, claims, decide, is_claimed_otherwise, slots};
use super::inheritance::plan_as;
use super::{Done, Keeper};
use crate::library::Volume;
use crate::loader::Plan;
use crate::models::{Dropped, Outcome, Table};
use crate::node::Shared;
use crate::peer::Refused;
#[cfg(feature = "solo")]
use crate::split::Part;
use crate::wire::TakeUp;
use crate::{SplitModels, StartError};

/// Members that ask at the same time; each is answered within a moment.
pub(super) const ASKS_MAX: usize = 8;

/// How long the mesh may take to tell that whoever asks has the model. It has said so just before.
const TOLD_MAX: Duration = Duration::from_secs(10);

/// A load that gets on by nothing in so long is not waited for: a hundredth of a terabyte from a hard disk takes two
/// minutes, and GPUs may need some before they begin.
const STALLED_MAX: Duration = Duration::from_secs(600);

/// A model that a member asks for.
pub(super) struct Ask {
    peer: NodeId,
    wanted: TakeUp,
    answer: oneshot::Sender<Result<Arc<ModelInfo>, Refused>>,
    /// Takes the hundredths of the model's file that are here, where it is fetched first.
    told: watch::Sender<u8>,
}

impl Ask {
    /// Tells whoever asks why the model is not taken up.
    fn refuse(self, refusal: Refusal) {
        tracing::info!(
            model = self.wanted.model,
            peer = self.peer.short(),
            %refusal,
            "a model is refused"
        );
        // Fails only when nobody waits any more.
        let _ = self.answer.send(Err(refusal.into()));
    }
}

/// A model that a member asks for and that memory has no room for.
pub(super) struct Unplaced {
    ask: Ask,
    plan: Plan,
}

/// Asks the keeper for a model, and waits until it answers requests. `fetched` takes the hundredths of the model's file
/// that are here, where it is fetched first.
pub(super) async fn ask(
    asks: mpsc::Sender<Ask>,
    mut view: watch::Receiver<Arc<View>>,
    peer: NodeId,
    wanted: TakeUp,
    fetched: watch::Sender<u8>,
) -> Result<Arc<ModelInfo>, Refused> {
    let told = view.wait_for(|view| {
        let member = view.member(peer);
        member.is_some_and(|member| claims(&member.announcement().info, &wanted))
    });
    // Whoever does not say so in time is refused by the rules.
    let _ = timeout(TOLD_MAX, told).await;
    let (answer, answered) = oneshot::channel();
    let ask = Ask {
        peer,
        wanted,
        answer,
        told: fetched,
    };
    if asks.try_send(ask).is_err() {
        return Err(Refusal::TooMany.into());
    }
    answered
        .await
        .unwrap_or_else(|_| Err(Error::ShuttingDown.into()))
}

/// What peers are told says nothing of this machine but how much context would have room: details are in its log.
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let context = match refusal {
            Refusal::Context(most) | Refusal::NoRoom(most) => most.0,
            Refusal::LessContext(tokens) => tokens,
            _ => 0,
        };
        Self {
            error: Error::Unsupported(refusal.to_string()),
            context_tokens_max: context,
        }
    }
}

impl From<&StartError> for Refusal {
    fn from(error: &StartError) -> Self {
        match error {
            StartError::Memory { .. } => Self::NoRoom(ContextMax::default()),
            StartError::ShutDown => Self::Closing,
            _ => Self::Failed,
        }
    }
}

fn known(table: &Table, library: &[Volume]) -> Vec<Known> {
    let on_disk = |path: &Path| {
        let volume = library.iter().find(|volume| volume.path == path);
        volume.map(|volume| volume.fingerprint.clone())
    };
    let models = table.status().into_iter();
    models
        .map(|model| {
            let info = model.info.as_ref();
            let of_answering = info.map(|info| info.fingerprint.clone());
            let of_loading = || table.loading_file(&model.name).and_then(on_disk);
            Known {
                is_split: table.is_over_several(&model.name),
                fingerprint: of_answering.or_else(of_loading),
                context_tokens: info.map(|info| info.context_tokens),
                name: model.name,
                state: model.state,
            }
        })
        .collect()
}

/// What comes of a load. `None`: whoever asked is gone, and only waited for what others have begun.
async fn while_asked<T, A>(
    load: impl Future<Output = T>,
    is_own: bool,
    answer: &mut oneshot::Sender<A>,
) -> Option<T> {
    tokio::select! {
        // What is there when nobody waits any more is not gone on with.
        biased;
        () = answer.closed(), if !is_own => None,
        loaded = load => Some(loaded),
    }
}

impl Keeper {
    /// Takes up what a member asks for, or refuses.
    pub(super) fn asked_for(&mut self, ask: Ask) {
        let Some(shared) = self.shared.upgrade() else {
            // Dropping what was asked answers it.
            return;
        };
        if ask.answer.is_closed() {
            // Nobody waits any more.
            return;
        }
        let mut volumes = self.library.iter();
        let volume = volumes.find(|volume| volume.fingerprint == ask.wanted.fingerprint);
        let volume = volume.cloned();
        let trained = volume.as_ref().map(|volume| volume.context_tokens);
        let plan = || {
            let volume = volume.as_ref()?;
            Some(plan_for(&ask.wanted, &volume.path, &shared))
        };
        let plan = match self.judge(&shared, &ask, trained) {
            Ok(Begin::Load) => plan(),
            Ok(Begin::Fetch) => return self.fetch_and_load(&shared, ask),
            Ok(Begin::Wait) => None,
            Err(refusal) => {
                let plan = plan();
                return self.refuse(&shared, ask, refusal, plan);
            }
        };
        if ask.wanted.fetch {
            // The file is here after all: whoever asks is not to wait for it with a deadline.
            ask.told.send_replace(100);
        }
        self.bring(shared, ask, plan, ());
    }

    /// What the rules say at this moment. `file`: a file of the model is here, which was trained for so many tokens; 0:
    /// unknown.
    fn judge(&mut self, shared: &Shared, ask: &Ask, file: Option<u32>) -> Result<Begin, Refusal> {
        let known = known(&shared.models.table(), &self.library);
        self.taken.forget(&known, shared.ingress.now_ms());
        let scene = self.scene_of(shared, ask.peer, &ask.wanted, file, known);
        decide(&ask.wanted, &scene)
    }

    /// Refuses a model. Where it might have room with less context, it is looked first with how much. `plan`: how it would
    /// be loaded, if its file is here.
    fn refuse(&mut self, shared: &Shared, ask: Ask, refusal: Refusal, plan: Option<Plan>) {
        let asked = ask.wanted.context_tokens;
        let most = match refusal {
            // The owner would allow so much; the memory may not have room for it.
            Refusal::Context(most) => most.0,
            Refusal::NoRoom(_) => asked,
            _ => 0,
        };
        let is_told = most > 0 && ask.wanted.tell_context;
        let now_ms = shared.ingress.now_ms();
        let look = plan
            .filter(|_| is_told)
            .and_then(|plan| Some((plan, self.taken.look(ask.peer, now_ms)?)));
        let Some((plan, permit)) = look else {
            return ask.refuse(refusal.with(ContextMax::default()));
        };
        let (models, bytes_max) = (Arc::clone(&shared.models), shared.settings.memory_bytes_max);
        self.tasks.spawn_blocking(move || {
            let is_awaited = || !ask.answer.is_closed();
            let found = measured(&models, bytes_max, &plan, most, is_awaited);
            // As many were refused: where there is room for them now, memory has become free since then.
            let less = Some(found).filter(|found| found.0 < asked);
            ask.refuse(refusal.with(less.unwrap_or_default()));
            drop(permit);
            Done::Call
        });
    }

    /// Memory has no room for a model that a member asks for.
    pub(super) fn refuse_unplaced(&mut self, unplaced: Unplaced) {
        let Unplaced { ask, plan } = unplaced;
        // Else dropping what was asked answers it.
        if let Some(shared) = self.shared.upgrade() {
            let refusal = Refusal::NoRoom(ContextMax::default());
            self.refuse(&shared, ask, refusal, Some(plan));
        }
    }

    /// Brings a model up that a member asks for, by a plan, or waits for one that is loaded already. `held` is dropped
    /// once that is over.
    fn bring(
        &mut self,
        shared: Arc<Shared>,
        mut ask: Ask,
        plan: Option<Plan>,
        held: impl Send + 'static,
    ) {
        let TakeUp {
            model, fingerprint, ..
        } = ask.wanted.clone();
        tracing::info!(
            model,
            peer = ask.peer.short(),
            "taking up a model that a member asks for"
        );
        let permit = match &plan {
            Some(_) => self.taken.begin(ask.peer, &model, &fingerprint),
            None => None,
        };
        self.tasks.spawn(async move {
            let _permit = permit;
            let is_own = plan.is_some();
            let bringing = bring_up(shared, &model, plan.clone());
            let brought = while_asked(bringing, is_own, &mut ask.answer).await;
            drop(held);
            let brought = match (brought, plan) {
                (None, _) => return Done::Call,
                (Some(Err(Refusal::NoRoom(_))), Some(plan)) => {
                    // Others may load while it is looked with how much context it would have room.
                    return Done::Unplaced(Box::new(Unplaced { ask, plan }));
                }
                (Some(brought), _) => brought,
            };
            if let Err(refusal) = &brought {
                tracing::warn!(model, %refusal, "a model could not be taken up");
            }
            let has_failed = is_own && matches!(brought, Err(Refusal::Failed));
            // The file stays: it need not be at fault. Sending fails only when nobody waits any more.
            let _ = ask.answer.send(brought.map_err(Refused::from));
            match has_failed {
                true => Done::NotTaken(fingerprint),
                false => Done::Call,
            }
        });
    }

    /// What decides whether a model is taken up. `file`: as with [`judge`](Self::judge).
    fn scene_of(
        &self,
        shared: &Shared,
        peer: NodeId,
        wanted: &TakeUp,
        file: Option<u32>,
        known: Vec<Known>,
    ) -> Scene {
        let now_ms = shared.ingress.now_ms();
        let settings = &shared.settings;
        let view = self.mesh.view().borrow().clone();
        let asker = view.member(peer).filter(|member| member.is_alive());
        let mut others = view.alive().filter(|member| member.node != view.me);
        let is_name_taken = others.any(|member| {
            let info = &member.announcement().info;
            is_claimed_otherwise(info, wanted)
        });
        // A model is stretched only as far as this node's owner stretches some.
        let own_tokens = settings.context_tokens.unwrap_or(0);
        Scene {
            is_client: self.mesh.role() == Role::Client,
            is_closing: shared.models.table().shutting_down,
            is_willing: settings.split != SplitModels::Never,
            is_from_server: asker.is_some_and(|member| member.role() == Role::Serve),
            is_claimed: asker.is_some_and(|member| claims(&member.announcement().info, wanted)),
            is_name_taken,
            was_dropped: self.promoter.was_dropped(&wanted.fingerprint, now_ms),
            has_failed: self.taken.has_failed(&wanted.fingerprint, now_ms),
            is_loading: self.taken.is_loading(),
            could_fetch: self.could_fetch(),
            fetches: self.taken.fetches(now_ms),
            kept: self.taken.kept_for(peer),
            context_max: file.map(|trained| trained.max(own_tokens)),
            context_trained: file.unwrap_or(0),
            known,
        }
    }

    /// Whether this node could get files of models from members at all.
    #[cfg(feature = "solo")]
    fn could_fetch(&self) -> bool {
        self.part.as_ref().is_some_and(Part::could_fetch)
    }

    #[cfg(not(feature = "solo"))]
    fn could_fetch(&self) -> bool {
        false
    }

    #[cfg(not(feature = "solo"))]
    fn fetch_and_load(&mut self, _: &Arc<Shared>, ask: Ask) {
        drop(ask.told);
        // Fails only when nobody waits any more.
        let _ = ask.answer.send(Err(Refusal::NoFile.into()));
    }

    /// The owner of this node dropped a model.
    pub(super) fn note_dropped(&mut self, dropped: Dropped) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let Dropped { name, fingerprint } = dropped;
        let of_taken = || self.taken.fingerprint(&name);
        let on_disk = || {
            let volume = self.library.iter().find(|volume| volume.name == name);
            volume.map(|volume| volume.fingerprint.clone())
        };
        let fingerprint = fingerprint.or_else(of_taken).or_else(on_disk);
        let now_ms = shared.ingress.now_ms();
        self.promoter.dropped(&name, fingerprint, now_ms);
        self.successor.dropped(&name, now_ms);
    }

    /// A model that a member asked for could not be loaded.
    pub(super) fn note_not_taken(&mut self, fingerprint: String) {
        if let Some(shared) = self.shared.upgrade() {
            self.taken.fail(fingerprint, shared.ingress.now_ms());
        }
    }
}

/// How a model is loaded that a member asks for, from its file here.
fn plan_for(wanted: &TakeUp, path: &Path, shared: &Shared) -> Plan {
    let settings = &shared.settings;
    let slots = slots(wanted.slots, settings.slots);
    plan_as(&wanted.model, path, wanted.context_tokens, slots, settings)
}

/// Begins to load a model, unless that was done, and waits until it answers.
async fn bring_up(
    shared: Arc<Shared>,
    model: &str,
    plan: Option<Plan>,
) -> Result<Arc<ModelInfo>, Refusal> {
    if let Some(plan) = plan {
        let settings = &shared.settings;
        let loaded = shared.models.load_planned(plan, settings, true).await;
        loaded.map_err(|error| {
            tracing::warn!(model, %error, "a model can't be loaded for a member");
            Refusal::from(&error)
        })?;
    }
    let table = shared.models.watch();
    // A load that takes minutes keeps no node alive that was let go.
    drop(shared);
    until_it_answers(table, model).await
}

/// Waits as long as something loads: models are loaded one after the other.
async fn until_it_answers(
    mut table: watch::Receiver<Table>,
    model: &str,
) -> Result<Arc<ModelInfo>, Refusal> {
    let mut loads = Vec::new();
    loop {
        let mut outcome = None;
        let news = table.wait_for(|table| {
            outcome = table.outcome(model);
            let present = table.loads();
            let gets_on = present != loads;
            loads = present;
            outcome.is_some() || gets_on
        });
        let news = timeout(STALLED_MAX, news).await;
        let news = news.map(|news| news.map(drop));
        match news {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refusal::Closing),
            Err(_) => return Err(Refusal::Stalled),
        }
        match outcome {
            Some(Outcome::Ready(info)) => return Ok(info),
            Some(Outcome::Failed) => return Err(Refusal::Failed),
            Some(Outcome::Leaving) => return Err(Refusal::Leaving),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Backend;

    use super::*;
    use crate::loader::{Loader, Progress, Source};
    use crate::models::Models;
    use crate::{Settings, store};

    #[test]
    fn peers_are_told_nothing_of_this_machine() {
        let path = std::path::PathBuf::from("/home/ada/secret.gguf");
        let unreadable = StartError::Unreadable {
            path,
            reason: "no rights".into(),
        };
        let torn = StartError::Load {
            model: "secret".into(),
            reason: "/home/ada/secret.gguf is torn".into(),
        };
        let full = StartError::Memory {
            models: vec!["`secret`".into()],
            needed_bytes: 2,
            free_bytes: 1,
            hint: "use a smaller model".into(),
        };
        for (error, refusal) in [
            (unreadable, Refusal::Failed),
            (torn, Refusal::Failed),
            (full, Refusal::NoRoom(ContextMax::default())),
            (StartError::ShutDown, Refusal::Closing),
        ] {
            assert_eq!(Refusal::from(&error), refusal);
            let told = Refused::from(refusal).error.to_string();
            assert!(!told.contains("secret") && !told.contains("ada"), "{told}");
        }
    }

    #[test]
    fn peers_are_told_how_much_context_would_have_room() {
        let most = ContextMax(8_192);
        for (refusal, expected) in [
            (Refusal::Context(most), 8_192),
            (Refusal::LessContext(4_096), 4_096),
            (Refusal::NoRoom(most), 8_192),
            (Refusal::NoRoom(ContextMax(0)), 0),
            (Refusal::Busy, 0),
        ] {
            let told = Refused::from(refusal);
            assert_eq!(told.context_tokens_max, expected, "{refusal}");
            assert_eq!(told.error, Error::Unsupported(refusal.to_string()));
        }
    }

    #[tokio::test]
    async fn who_has_hung_up_is_not_waited_with() {
        let (mut answer, answered) = oneshot::channel::<()>();
        drop(answered);
        let never = std::future::pending::<()>();
        assert_eq!(while_asked(never, false, &mut answer).await, None);
        // What was begun for whoever has gone is brought to its end.
        let later = async {
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(while_asked(later, true, &mut answer).await, Some(7));
    }

    #[tokio::test]
    async fn who_waits_is_told_what_comes_of_a_load() {
        let (mut answer, _answered) = oneshot::channel::<()>();
        let later = async {
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(while_asked(later, false, &mut answer).await, Some(7));
    }

    /// Finds room for everything, and loads until the other end is dropped.
    struct Slow(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

    impl Loader for Slow {
        fn memory_needed(&self, _: &Plan) -> Result<u64, Error> {
            Ok(1)
        }

        fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
            let _ = self.0.lock().unwrap().recv();
            Err(Error::Load("nothing is loaded here".into()))
        }
    }

    #[tokio::test]
    async fn what_is_loaded_from_a_models_folder_is_known_by_its_file() {
        let (go_on, may) = std::sync::mpsc::channel();
        let models = Models::empty(Some(Arc::new(Slow(std::sync::Mutex::new(may)))));
        let settings = Settings::default();
        for (name, file) in [("m", "folder/other.gguf"), ("n", "elsewhere/n.gguf")] {
            let plan = store::plan(name.into(), Source::File(file.into()), &settings);
            let began = models.load_planned(plan, &settings, false).await;
            assert_eq!(began, Ok(()));
        }
        let volume = Volume {
            name: "other".into(),
            path: "folder/other.gguf".into(),
            fingerprint: "f".into(),
            size_bytes: 1,
            context_tokens: 4_096,
            needed_bytes: 1,
            can_split: false,
        };
        let known = known(&models.table(), &[volume]);
        let known: Vec<_> = known
            .iter()
            .map(|known| (known.name.as_str(), known.fingerprint.as_deref()))
            .collect();
        assert_eq!(known, [("m", Some("f")), ("n", None)]);
        drop(go_on);
    }
}
