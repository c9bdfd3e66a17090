//! Models that run on several machines, in the table: how far they are is said by whoever keeps them,
//! and whether this node is to host them by `succession`.

use std::collections::BTreeMap;
#[cfg(feature = "solo")]
use std::sync::Arc;

use mesh::NodeId;
use mesh::announcement::SplitStage;

#[cfg(feature = "solo")]
use super::PROGRESS_STEP;
use super::{Model, Models, Stage, Table};
#[cfg(feature = "solo")]
use crate::StartError;
#[cfg(feature = "solo")]
use crate::layout::Layout;
use crate::layout::LoadingStage;
use crate::plan::Budget;
#[cfg(feature = "solo")]
use engine::Backend;
#[cfg(feature = "solo")]
use split::layers::Loading;

/// What only a model over several machines has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Splitting {
    /// The owner asked for it; else it was taken up for the mesh, and goes when another hosts it.
    asked: bool,
    /// Which host of the model this node is, of those that came one after another; `None`: it is none.
    term: Option<u32>,
    /// It became host because another one was lost, so streams may wait for it. Terms don't tell: they count on also when
    /// an owner drops a model and loads it again.
    follows: bool,
    /// What is known of the model, once its header is read.
    facts: Option<Facts>,
    /// Workers that load, and how far they are.
    loading: BTreeMap<NodeId, LoadingStage>,
    /// The machine that runs all of it in place of a ring, while the model waits here for that to end.
    whole_on: Option<String>,
    /// The machine that was asked to, while the model waits here for it.
    asks: Option<String>,
}

/// What others are told of a model that this node hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// Identity of its content.
    pub(crate) fingerprint: String,
    /// Size of its weights, bytes.
    pub(crate) size_bytes: u64,
    /// Tokens that fit into its context.
    pub(crate) context_tokens: u32,
    /// Requests that run at once.
    pub(crate) slots: u32,
    /// It is split although it might fit on one machine.
    pub(crate) forced: bool,
    /// Memory that the host's own part takes, bytes; 0 until it is planned.
    pub(crate) host_bytes: u64,
}

/// A model over several machines that this node hosts or would.
#[derive(Debug, Clone)]
pub(crate) struct Hosting {
    /// Its entry in the table.
    pub(crate) id: u64,
    /// Its name.
    pub(crate) name: String,
    /// See [`Facts`].
    pub(crate) facts: Facts,
    /// See [`Splitting`].
    pub(crate) asked: bool,
    /// See [`Splitting`].
    pub(crate) term: Option<u32>,
    /// How far it is.
    pub(crate) stage: SplitStage,
}

impl Table {
    /// Models over several machines whose content is known.
    pub(crate) fn splits(&self) -> impl Iterator<Item = Hosting> {
        self.models.iter().filter_map(|model| {
            let split = model.split.as_ref()?;
            let stage = match &model.stage {
                // A node that is about to stop is its host until it has left.
                Stage::Ready(_) if self.shutting_down => SplitStage::Coming,
                Stage::Ready(_) => SplitStage::Ready,
                Stage::Loading(_) => SplitStage::Coming,
                // It answers or is about to, and this node sees to it that it goes on if that machine is lost: streams are to
                // wait, and an heir to take over.
                Stage::Waiting(..) if model.is_elsewhere() => SplitStage::Coming,
                Stage::Waiting(..) => SplitStage::Waiting,
                Stage::Dropping(_) | Stage::Failed(_) => return None,
            };
            Some(Hosting {
                id: model.id,
                name: model.name.clone(),
                facts: split.facts.clone()?,
                asked: split.asked,
                term: split.term,
                stage,
            })
        })
    }

    /// Whether this node is the host of a split model.
    #[cfg(feature = "solo")]
    pub(crate) fn is_host_of(&self, id: u64) -> bool {
        self.models
            .iter()
            .any(|model| model.id == id && model.hosts())
    }

    /// Whether the model `name` of this node runs on several machines.
    pub(crate) fn is_over_several(&self, name: &str) -> bool {
        let mut models = self.models.iter();
        models.any(|model| model.name == name && model.split.is_some())
    }
}

/// Rates are told anew when they have changed by this share: they change all the time.
#[cfg(feature = "solo")]
const RATE_STEP: f64 = 0.03;

#[cfg(feature = "solo")]
fn moved(told: f64, now: f64) -> bool {
    (told - now).abs() > told * RATE_STEP
}

impl Models {
    /// Memory for models at this moment.
    pub(super) fn budget(&self, bytes_max: Option<u64>) -> Budget {
        let loader = self.loader.as_ref();
        // Before the table is locked: drivers of GPUs may take their time.
        let available_bytes = loader.map_or(0, |loader| loader.memory_available());
        let table = self.table.borrow();
        Budget {
            available_bytes,
            loading_bytes: table.loading_bytes(),
            loaded_bytes: table.needed_bytes(),
            bytes_max,
        }
    }

    /// This node is to host a split model, as the `term`-th one. `follows`: in place of one that is lost. Of one that is
    /// host already only the term is another.
    pub(crate) fn split_begins(&self, id: u64, term: u32, follows: bool) {
        self.change_split(id, |model| {
            if let Some(split) = &mut model.split {
                let was_host = split.term.is_some();
                split.follows = if was_host { split.follows } else { follows };
                if !was_host {
                    split.stays();
                    model.stage = Stage::Loading(0.0);
                }
                split.term = Some(term);
            }
            true
        });
    }

    /// Another node hosts a split model. One that was taken up for the mesh goes.
    /// False if it was so before.
    pub(crate) fn split_yields(&self, id: u64, reason: String) -> bool {
        self.table.send_if_modified(|table| {
            let models = &mut table.models;
            let Some(index) = models.iter().position(|model| model.id == id) else {
                return false;
            };
            let Some(split) = models.get_mut(index).and_then(|model| model.split.as_mut()) else {
                return false;
            };
            if !split.asked {
                models.remove(index);
                return true;
            }
            let had_term = split.term.take().is_some();
            split.loading.clear();
            split.stays();
            let Some(model) = models.get_mut(index) else {
                return had_term;
            };
            if matches!(&model.stage, Stage::Waiting(before, None) if *before == reason) {
                return had_term;
            }
            model.layout = None;
            model.needed_bytes = 0;
            model.stage = Stage::Waiting(reason, None);
            true
        })
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

#[cfg(feature = "solo")]
impl Models {
    /// What others may use here in all, bytes. `leased_bytes`: what they have of it already.
    pub(crate) fn lend(&self, bytes_max: Option<u64>, leased_bytes: u64) -> u64 {
        let mut budget = self.budget(bytes_max);
        // What they have taken is not free on the machine; what the owner allows counts without it.
        budget.available_bytes = budget.available_bytes.saturating_add(leased_bytes);
        budget.free_bytes()
    }

    /// Puts a model into the table that is to run on several machines; gives its number. `None`: there
    /// is one of that name, or the node stops. `asked`: the owner wants it here.
    pub(crate) fn begin_split(&self, name: &str, asked: bool) -> Option<u64> {
        let mut id = None;
        self.table.send_modify(|table| {
            if table.shutting_down || table.is_taken(name) {
                return;
            }
            // One that has failed makes room for the next try.
            table
                .models
                .retain(|known| known.name != name || !known.has_failed());
            id = Some(table.next_id);
            table.models.push(Model {
                id: table.next_id,
                name: name.to_owned(),
                needed_bytes: 0,
                file: None,
                stage: Stage::Waiting("other machines are looked for".to_owned(), None),
                layout: None,
                split: Some(Splitting {
                    asked,
                    ..Splitting::default()
                }),
                is_for_others: false,
            });
            table.next_id += 1;
        });
        id
    }

    /// Whether a split model is wanted still; one that goes is as long as its answers may run.
    pub(crate) fn is_split(&self, id: u64) -> bool {
        let table = self.table.borrow();
        let mut models = table.models.iter();
        models.any(|model| {
            let goes = table.shutting_down && model.running().is_none();
            model.id == id && !goes && !model.has_failed()
        })
    }

    /// Which host of a split model this node is; `None`: it is none.
    pub(crate) fn split_term(&self, id: u64) -> Option<u32> {
        let table = self.table.borrow();
        let model = table.models.iter().find(|model| model.id == id)?;
        model.split.as_ref()?.term
    }

    /// Whether this node hosts a split model in place of a host that is lost.
    pub(crate) fn split_follows(&self, id: u64) -> bool {
        let table = self.table.borrow();
        let model = table.models.iter().find(|model| model.id == id);
        let split = model.and_then(|model| model.split.as_ref());
        split.is_some_and(|split| split.term.is_some() && split.follows)
    }

    /// Whether this node's owner asked for a split model, and not the mesh.
    pub(crate) fn is_split_asked(&self, id: u64) -> bool {
        let table = self.table.borrow();
        let model = table.models.iter().find(|model| model.id == id);
        let split = model.and_then(|model| model.split.as_ref());
        split.is_some_and(|split| split.asked)
    }

    /// Another machine, which people call `host`, is asked to run all of a split model.
    pub(crate) fn split_asks(&self, id: u64, host: String) {
        self.change_split(id, |model| {
            let Some(split) = model.split.as_mut().filter(|split| split.term.is_some()) else {
                return false;
            };
            split.loading.clear();
            split.whole_on = None;
            model.stage = Stage::Waiting(format!("{host} loads all of it"), None);
            split.asks = Some(host);
            true
        });
    }

    /// The machine that was asked to run all of a split model fetches its file, of which so many hundredths are there.
    pub(crate) fn split_fetches(&self, id: u64, percent: u8) {
        self.change_split(id, |model| {
            let split = model.split.as_ref().filter(|split| split.term.is_some());
            let Some(host) = split.and_then(|split| split.asks.as_ref()) else {
                return false;
            };
            let reason = match percent {
                0..100 => format!("{host} fetches all of it ({percent} %)"),
                _ => format!("{host} loads all of it"),
            };
            if matches!(&model.stage, Stage::Waiting(before, _) if *before == reason) {
                return false;
            }
            model.stage = Stage::Waiting(reason, None);
            true
        });
    }

    /// All of a split model runs on another machine, which people call `host`.
    pub(crate) fn split_is_whole(&self, id: u64, host: String) {
        self.change_split(id, |model| {
            let Some(split) = model.split.as_mut().filter(|split| split.term.is_some()) else {
                return false;
            };
            split.loading.clear();
            split.asks = None;
            model.stage = Stage::Waiting(format!("{host} runs all of it"), None);
            split.whole_on = Some(host);
            true
        });
    }

    /// The machine that ran all of a split model does not, or will not: it is planned anew.
    pub(crate) fn split_begins_anew(&self, id: u64) {
        self.change_split(id, |model| {
            let Some(split) = model.split.as_mut().filter(|split| split.term.is_some()) else {
                return false;
            };
            split.stays();
            model.stage = Stage::Loading(0.0);
            true
        });
    }

    /// What a split model is.
    pub(crate) fn split_is(&self, id: u64, facts: Facts) {
        self.change_split(id, |model| {
            let Some(split) = &mut model.split else {
                return false;
            };
            let is_news = split.facts.as_ref() != Some(&facts);
            model.needed_bytes = facts.host_bytes;
            split.facts = Some(facts);
            is_news
        });
    }

    /// The part of this machine is loaded to this share.
    pub(crate) fn split_progress(&self, id: u64, share: f32) {
        self.change_split(id, |model| match model.stage {
            _ if !model.hosts() => false,
            Stage::Loading(before) if share < before + PROGRESS_STEP => false,
            _ => {
                model.stage = Stage::Loading(share.clamp(0.0, 1.0));
                true
            }
        });
    }

    /// Workers that load their layers; none when the ring stands or is given up.
    pub(crate) fn split_loads(&self, id: u64, stages: Vec<LoadingStage>) {
        self.change_split(id, |model| {
            let Some(split) = &mut model.split else {
                return false;
            };
            split.loading = stages.into_iter().map(|s| (s.node, s)).collect();
            true
        });
    }

    /// A worker has loaded so much.
    pub(crate) fn split_loaded(&self, id: u64, node: NodeId, loading: Loading) {
        self.change_split(id, |model| {
            let stage = (model.split.as_mut()).and_then(|split| split.loading.get_mut(&node));
            let Some(stage) = stage else {
                return false;
            };
            let is_news = stage.loading != loading;
            stage.loading = loading;
            is_news
        });
    }

    /// A split model waits for machines or memory.
    pub(crate) fn split_waits(&self, id: u64, reason: String) {
        self.change_split(id, |model| {
            if let Some(split) = &mut model.split {
                split.loading.clear();
                split.stays();
            }
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
            let Some(split) = model.split.as_mut().filter(|split| split.term.is_some()) else {
                return false;
            };
            split.loading.clear();
            model.layout = Some(Arc::new(layout));
            model.stage = Stage::Ready(backend);
            true
        });
    }

    /// What a split model that runs is expected to do, and does, tokens a second; and times to the first token after
    /// prompts of so many tokens, as expected.
    pub(crate) fn split_measured(
        &self,
        id: u64,
        predicted: f64,
        first_token: Vec<(u32, std::time::Duration)>,
        measured: Option<f64>,
    ) {
        self.change_split(id, |model| {
            let Some(layout) = &mut model.layout else {
                return false;
            };
            let times = layout.predicted_first_token.iter().zip(&first_token);
            let is_news = moved(layout.predicted_tokens_per_second, predicted)
                || layout.predicted_first_token.len() != first_token.len()
                || times
                    .map(|((_, told), (_, now))| (told.as_secs_f64(), now.as_secs_f64()))
                    .any(|(told, now)| moved(told, now))
                || match (layout.measured_tokens_per_second, measured) {
                    (Some(told), Some(now)) => moved(told, now),
                    (told, now) => told != now,
                };
            if is_news {
                let layout = Arc::make_mut(layout);
                layout.predicted_tokens_per_second = predicted;
                layout.predicted_first_token = first_token;
                layout.measured_tokens_per_second = measured;
            }
            is_news
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
}

#[cfg(feature = "solo")]
impl Model {
    /// Whether this node is the host of a split model.
    fn hosts(&self) -> bool {
        self.split
            .as_ref()
            .is_some_and(|split| split.term.is_some())
    }
}

impl Splitting {
    /// No other machine runs all of it, or is to.
    fn stays(&mut self) {
        self.whole_on = None;
        self.asks = None;
    }
}

impl Model {
    /// The machine that runs all of it in place of a ring, by its name.
    pub(super) fn whole_on(&self) -> Option<String> {
        let split = self.split.as_ref()?;
        let waits = matches!(self.stage, Stage::Waiting(_, None));
        split.whole_on.clone().filter(|_| waits)
    }

    /// Whether another machine runs all of it, or was asked to and has not refused.
    fn is_elsewhere(&self) -> bool {
        let asks = self.split.as_ref().and_then(|split| split.asks.as_ref());
        let waits = matches!(self.stage, Stage::Waiting(_, None));
        self.whole_on().is_some() || asks.is_some() && waits
    }

    /// Identity of its content, if it is to run on several machines and its header is read.
    pub(super) fn split_fingerprint(&self) -> Option<String> {
        let facts = self.split.as_ref()?.facts.as_ref()?;
        Some(facts.fingerprint.clone())
    }

    /// Workers that load.
    pub(super) fn loading(&self) -> Vec<LoadingStage> {
        let split = self.split.iter();
        split.flat_map(|s| s.loading.values().cloned()).collect()
    }
}

#[cfg(all(test, feature = "solo"))]
mod tests;
