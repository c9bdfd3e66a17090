//! Models that members ask this node to serve whole, because their plans say that they fit here: which it takes up,
//! and why it refuses the others. It owes nobody to go on: what was taken up stays until it is dropped here, also when
//! whoever asked has dropped it or left, as with any model that a node takes up for the mesh.

use std::sync::Arc;

use engine::{Error, ModelInfo};
use mesh::{NodeId, Role};
use tokio::sync::{mpsc, oneshot, watch};

use super::inheritance::plan_as;
use super::{Done, Keeper, LOADS_MAX};
use crate::ModelState;
use crate::loader::Plan;
use crate::models::Table;
use crate::node::Shared;
use crate::wire::TakeUp;

/// Members that ask at the same time; each is answered within a moment.
pub(super) const ASKS_MAX: usize = 8;

/// A model that a member asks for.
pub(super) struct Ask {
    peer: NodeId,
    wanted: TakeUp,
    answer: oneshot::Sender<Result<Arc<ModelInfo>, Error>>,
}

/// Asks the keeper for a model, and waits until it answers requests.
pub(super) async fn ask(
    asks: mpsc::Sender<Ask>,
    peer: NodeId,
    wanted: TakeUp,
) -> Result<Arc<ModelInfo>, Error> {
    let (answer, answered) = oneshot::channel();
    let ask = Ask {
        peer,
        wanted,
        answer,
    };
    if asks.try_send(ask).is_err() {
        return Err(Error::Unsupported("too many ask it at once".to_owned()));
    }
    answered.await.unwrap_or(Err(Error::ShuttingDown))
}

/// A model of this node's table.
#[derive(Debug, Clone)]
struct Known {
    name: String,
    state: ModelState,
    /// Once it answers.
    fingerprint: Option<String>,
    is_split: bool,
}

/// What is known at one moment.
#[derive(Debug, Clone)]
struct Scene {
    is_client: bool,
    /// The node is about to stop.
    is_closing: bool,
    /// Whether whoever asks serves models too.
    is_from_server: bool,
    /// Whether the owner of this node dropped the model not long ago.
    was_dropped: bool,
    /// Whether a file with this content is on the disk.
    has_file: bool,
    /// Models that are loaded for the mesh.
    loads: usize,
    known: Vec<Known>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// Load it.
    Load,
    /// It is loaded, or answers already.
    Wait,
}

/// Whether to take a model up; else why not, as a sentence about this node. Pure.
fn decide(wanted: &TakeUp, scene: &Scene) -> Result<Begin, String> {
    let refused = |reason: &str| Err(reason.to_owned());
    if scene.is_client {
        return refused("it is a client and runs no models");
    }
    if scene.is_closing {
        return refused("it is about to stop");
    }
    if !scene.is_from_server {
        return refused("it takes models up for members that serve some");
    }
    if scene.was_dropped {
        return refused("its owner has dropped the model");
    }
    if scene.loads >= LOADS_MAX {
        return refused("it loads other models");
    }
    let content = Some(&wanted.fingerprint);
    if let Some(known) = scene.known.iter().find(|known| known.name == wanted.model) {
        let is_another = known.fingerprint.is_some() && known.fingerprint.as_ref() != content;
        return match &known.state {
            _ if known.is_split => refused("it runs the model over several machines"),
            _ if is_another => refused("another model has this name there"),
            ModelState::Ready | ModelState::Loading { .. } => Ok(Begin::Wait),
            ModelState::Failed { reason } => refused(reason),
            _ => refused("it lets go of the model"),
        };
    }
    let same = (scene.known.iter()).find(|known| known.fingerprint.as_ref() == content);
    match same {
        Some(same) => Err(format!("it serves the model as `{}`", same.name)),
        None if !scene.has_file => refused("it has no file of the model"),
        None => Ok(Begin::Load),
    }
}

fn known(table: &Table) -> Vec<Known> {
    let models = table.status().into_iter();
    models
        .map(|model| Known {
            is_split: table.is_over_several(&model.name),
            fingerprint: model.info.map(|info| info.fingerprint.clone()),
            name: model.name,
            state: model.state,
        })
        .collect()
}

impl Keeper {
    /// Takes up what a member asks for, or refuses.
    pub(super) fn asked_for(&mut self, ask: Ask) {
        let Some(shared) = self.shared.upgrade() else {
            // Dropping what was asked answers it.
            return;
        };
        let Ask {
            peer,
            wanted,
            answer,
        } = ask;
        let now_ms = shared.ingress.now_ms();
        let view = self.mesh.view().borrow().clone();
        let member = view.member(peer).filter(|member| member.is_alive());
        let volume = (self.library.iter()).find(|v| v.fingerprint == wanted.fingerprint);
        let scene = {
            let table = shared.models.table();
            Scene {
                is_client: self.mesh.role() == Role::Client,
                is_closing: table.shutting_down,
                is_from_server: member.is_some_and(|member| member.role() == Role::Serve),
                was_dropped: self.promoter.was_dropped(&wanted.model, now_ms),
                has_file: volume.is_some(),
                loads: self.loads,
                known: known(&table),
            }
        };
        let plan = match decide(&wanted, &scene) {
            Ok(Begin::Load) => volume.map(|volume| {
                let (context_tokens, slots) = (wanted.context_tokens, wanted.slots);
                plan_as(
                    &wanted.model,
                    volume,
                    context_tokens,
                    slots,
                    &shared.settings,
                )
            }),
            Ok(Begin::Wait) => None,
            Err(reason) => {
                let model = &wanted.model;
                tracing::info!(model, peer = peer.short(), reason, "a model is refused");
                // Fails only when nobody waits any more.
                let _ = answer.send(Err(Error::Unsupported(reason)));
                return;
            }
        };
        let model = wanted.model;
        tracing::info!(
            model,
            peer = peer.short(),
            "taking up a model that a member asks for"
        );
        self.loads += 1;
        self.tasks.spawn(async move {
            let brought = bring_up(shared, &model, plan).await;
            if let Err(error) = &brought {
                tracing::warn!(model, %error, "a model could not be taken up");
            }
            // Fails only when nobody waits any more.
            let _ = answer.send(brought);
            Done::Load
        });
    }
}

/// Begins to load a model, unless that was done, and waits until it answers.
async fn bring_up(
    shared: Arc<Shared>,
    model: &str,
    plan: Option<Plan>,
) -> Result<Arc<ModelInfo>, Error> {
    if let Some(plan) = plan {
        let loaded = shared.models.load_planned(plan, &shared.settings).await;
        loaded.map_err(|error| Error::Unsupported(error.to_string()))?;
    }
    let table = shared.models.watch();
    // A load that takes minutes keeps no node alive that was let go.
    drop(shared);
    until_it_answers(table, model).await
}

async fn until_it_answers(
    mut table: watch::Receiver<Table>,
    model: &str,
) -> Result<Arc<ModelInfo>, Error> {
    let mut outcome = None;
    let is_closed = table
        .wait_for(|table| {
            outcome = table.outcome(model);
            outcome.is_some()
        })
        .await
        .is_err();
    match outcome {
        Some(outcome) if !is_closed => outcome.map_err(Error::Unsupported),
        _ => Err(Error::ShuttingDown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> TakeUp {
        TakeUp {
            model: "m".into(),
            fingerprint: "f".into(),
            context_tokens: 0,
            slots: 0,
        }
    }

    fn known(name: &str, state: ModelState, fingerprint: Option<&str>) -> Known {
        Known {
            name: name.into(),
            state,
            fingerprint: fingerprint.map(str::to_owned),
            is_split: false,
        }
    }

    fn decided(change: impl FnOnce(&mut Scene)) -> Result<Begin, String> {
        let mut scene = Scene {
            is_client: false,
            is_closing: false,
            is_from_server: true,
            was_dropped: false,
            has_file: true,
            loads: 0,
            known: Vec::new(),
        };
        change(&mut scene);
        decide(&wanted(), &scene)
    }

    #[test]
    fn what_is_on_the_disk_is_taken_up_once() {
        assert_eq!(decided(|_| {}), Ok(Begin::Load));
        let loading = ModelState::Loading { progress: 0.5 };
        let own = |state, fingerprint| {
            let known = known("m", state, fingerprint);
            decided(|scene| scene.known = vec![known])
        };
        assert_eq!(own(loading.clone(), None), Ok(Begin::Wait));
        assert_eq!(own(ModelState::Ready, Some("f")), Ok(Begin::Wait));
        assert!(own(ModelState::Ready, Some("another")).is_err());
        assert!(own(ModelState::Dropping, Some("f")).is_err());
        let failed = ModelState::Failed {
            reason: "torn".into(),
        };
        assert_eq!(own(failed, None), Err("torn".into()));
        // Other models are in nobody's way.
        let other = known("n", loading, None);
        assert_eq!(decided(|scene| scene.known = vec![other]), Ok(Begin::Load));
    }

    #[test]
    fn a_node_refuses_what_it_can_or_may_not_serve() {
        let check = |change: fn(&mut Scene), word: &str| {
            let refused = decided(change).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        };
        check(|scene| scene.is_client = true, "client");
        check(|scene| scene.is_closing = true, "stop");
        check(|scene| scene.is_from_server = false, "members");
        check(|scene| scene.was_dropped = true, "dropped");
        check(|scene| scene.has_file = false, "no file");
        check(|scene| scene.loads = LOADS_MAX, "loads other");
        check(
            |scene| scene.known = vec![known("n", ModelState::Ready, Some("f"))],
            "`n`",
        );
        check(
            |scene| {
                scene.known = vec![known("m", ModelState::Ready, Some("f"))];
                scene.known[0].is_split = true;
            },
            "several machines",
        );
    }
}
