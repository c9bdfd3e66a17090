//! What a host needs of the model itself: its shape, plans, and the part that runs here.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use engine::stage::{EmbeddingTable, StageOptions};
use engine::{Backend, Engine};
use gguf::{Fingerprint, LayerMap, Model, SliceRole};
use mesh::NodeId;
use mesh::proto::View;
use split::plan::{self, ModelShape, Parts, Request, WindowCache};
use split::ring::Seat;
use split::spec::RingId;
use tokio::runtime::Handle;

use super::super::backend::SplitBackend;
use super::super::pool::{Own, pool};
use super::super::slices::slice;
use super::super::slices_folder;
use super::super::stages::{RemoteStages, Slot};
use crate::layout::{Layout, LayoutStage};
use crate::loader::{Plan, Source};
use crate::models::blocking;
use crate::solo::options;
use crate::{Settings, StartError};

/// Context that is planned with where the owner names none, tokens.
const CONTEXT_DEFAULT: u32 = 8_192;

/// A model that is to be split.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) model: Arc<Model>,
    pub(super) fingerprint: Fingerprint,
    pub(super) width: u32,
    path: PathBuf,
    shape: ModelShape,
    context_tokens: u32,
    sequences: u32,
}

/// The part that runs here, and the way to it.
pub(super) struct Made {
    /// Layers before it are those of workers.
    pub(super) start: u32,
    pub(super) words: Arc<Slot>,
    pub(super) room: StageOptions,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) ring: RingId,
    /// The newest ring that was asked for.
    pub(super) epoch: u32,
}

/// Who runs which layers, and what to expect.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) seats: Vec<Seat>,
    pub(super) tokens_per_second: f64,
}

impl Subject {
    /// Reads the model's header.
    pub(super) async fn read(plan: &Plan) -> Result<Self, StartError> {
        let (name, source) = (plan.name.clone(), plan.source.clone());
        let failed = |reason: String| StartError::Load {
            model: name.clone(),
            reason,
        };
        let Source::File(path) = source else {
            return Err(failed("only a model in a file can be split".to_owned()));
        };
        let file = path.clone();
        let read = move || {
            let model = Model::open(&file).map_err(|error| error.to_string())?;
            let map = LayerMap::of(&model).map_err(|error| error.to_string())?;
            let (period, width) = (map.cuts().first().copied(), map.width());
            let shape = ModelShape::from_model(&model, period, WindowCache::Full)
                .map_err(|error| error.to_string())?;
            Ok::<_, String>((model, shape, width))
        };
        let (model, shape, width) = blocking(&name, read).await?.map_err(failed)?;
        Ok(Self {
            fingerprint: model.fingerprint(),
            model: Arc::new(model),
            width,
            path,
            shape,
            context_tokens: plan.context_tokens.unwrap_or(CONTEXT_DEFAULT),
            sequences: plan.slots.unwrap_or(1),
            name,
        })
    }

    fn request(&self, host: Option<NodeId>, force_split: bool) -> Request<NodeId> {
        Request {
            context_tokens: self.context_tokens,
            sequences: self.sequences,
            force_split,
            host,
        }
    }

    /// Where the part of this machine begins, if the mesh has room for the rest.
    pub(super) fn first_plan(&self, view: &View, own: Own) -> Result<u32, String> {
        let none = BTreeSet::new();
        let machines = pool(view, own, &self.fingerprint.to_string(), &none)
            .ok_or_else(|| "the members of the mesh make no sense".to_owned())?;
        let request = self.request(Some(own.node), true);
        let plan = plan::make(&self.shape, &machines, &request);
        let plan = plan.map_err(|refusal| refusal.to_string())?;
        let last = plan.stages.last().map(|stage| stage.layers.start);
        last.ok_or_else(|| "the plan is empty".to_owned())
    }

    /// Shares the layers before `start` out over members, without those in `without`.
    pub(super) fn share(
        &self,
        view: &View,
        me: NodeId,
        start: u32,
        without: &BTreeSet<NodeId>,
    ) -> Result<Share, String> {
        let own = Own {
            node: me,
            memory_bytes: None,
        };
        let machines = pool(view, own, &self.fingerprint.to_string(), without)
            .ok_or_else(|| "the members of the mesh make no sense".to_owned())?;
        let front = self.front(start)?;
        let plan = plan::make(&front, &machines, &self.request(None, false));
        let plan = plan.map_err(|refusal| refusal.to_string())?;
        let seats = plan.stages.iter().map(|stage| Seat {
            node: stage.id,
            layers: stage.layers.clone(),
        });
        Ok(Share {
            seats: seats.collect(),
            tokens_per_second: plan.tokens_per_second,
        })
    }

    /// The model without the layers from `start` on, and without its ends.
    fn front(&self, start: u32) -> Result<ModelShape, String> {
        let parts = self.shape.parts();
        let layers = parts.layers.get(..start as usize);
        let front = Parts {
            architecture: parts.architecture.clone(),
            layers: layers.map(<[_]>::to_vec).unwrap_or_default(),
            embedding_bytes: 0,
            head_bytes: 0,
            head_active_bytes: 0,
            width: parts.width,
            cuts: (parts.cuts.iter().copied())
                .filter(|cut| *cut < start)
                .collect(),
        };
        ModelShape::new(front).map_err(|error| error.to_string())
    }

    /// How the model lies, for people.
    pub(super) fn layout(&self, view: &View, me: NodeId, start: u32, share: &Share) -> Layout {
        let name = |node: NodeId| {
            let member = view.member(node);
            let name = member.map(|member| member.announcement().info.name.clone());
            name.filter(|name| !name.is_empty())
                .unwrap_or_else(|| node.short())
        };
        let stage = |node: NodeId, layers: std::ops::Range<u32>| LayoutStage {
            node,
            name: name(node),
            first_layer: layers.start,
            last_layer: layers.end.saturating_sub(1),
        };
        let workers = share
            .seats
            .iter()
            .map(|seat| stage(seat.node, seat.layers.clone()));
        let here = stage(me, start..self.shape.layer_count());
        Layout {
            stages: workers.chain([here]).collect(),
            predicted_tokens_per_second: share.tokens_per_second,
            waiting: None,
        }
    }
}

/// Cuts the part from layer `start` on, and loads it.
pub(super) async fn make(
    subject: &Subject,
    plan: &Plan,
    start: u32,
    settings: &Settings,
    mut progress: impl FnMut(f64) + Send + 'static,
) -> Result<Made, String> {
    let words = Arc::new(Slot::default());
    let stages = Box::new(RemoteStages::new(Handle::current(), Arc::clone(&words)));
    let (model, path) = (Arc::clone(&subject.model), subject.path.clone());
    let folder = slices_folder(settings);
    let layers = start..subject.shape.layer_count();
    let mut plan = plan.clone();
    plan.context_tokens.get_or_insert(subject.context_tokens);
    let load = move || {
        let mut told = |share: f64| {
            progress(share);
            true
        };
        let tail = slice(&model, layers, SliceRole::Tail, &folder, &mut told)?;
        let embedding = EmbeddingTable::open(&path).map_err(|error| error.to_string())?;
        plan.source = Source::File(tail);
        let options = options(&plan);
        let room = engine::stage_options(&options).map_err(|error| error.to_string())?;
        let engine = Engine::load_split(&options, embedding, stages);
        let engine = engine.map_err(|error| error.to_string())?;
        let backend = SplitBackend::new(engine, &model);
        Ok::<_, String>((Arc::new(backend) as Arc<dyn Backend>, room))
    };
    let loaded = blocking(&subject.name, load).await;
    let (backend, room) = loaded.map_err(|error| error.to_string())??;
    Ok(Made {
        start,
        words,
        room,
        backend,
        ring: RingId(rand::random()),
        epoch: 0,
    })
}
