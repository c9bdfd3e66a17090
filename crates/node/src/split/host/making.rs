//! What a host needs of the model itself: its shape, plans, and the part that runs here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::stage::{EmbeddingTable, StageOptions};
use engine::{Backend, Engine};
use gguf::{Fingerprint, LayerMap, Model, SliceRole};
use mesh::NodeId;
use mesh::proto::View;
use split::layers::Loading;
use split::plan::render::PROMPT_TOKENS;
use split::plan::{self, ModelShape, Parts, Pool, Refusal, Request, WindowCache, settled};
use split::ring::Seat;
use split::spec::RingId;
use split::weights::Phase;
use tokio::runtime::Handle;

use super::super::backend::SplitBackend;
use super::super::pool::Scene;
use super::super::slices::{Keeping, slice, stage_bytes};
use super::super::slices_folder;
use super::super::stages::{RemoteStages, Slot};
use super::rooms::Rooms;
use crate::layout::{Layout, LayoutStage, LoadingStage};
use crate::loader::{Plan, Source};
use crate::models::{Facts, blocking};
use crate::plan::embeds;
use crate::solo::options;
use crate::{Settings, StartError};

/// Context that is planned with where the owner names none, tokens.
const CONTEXT_DEFAULT: u32 = 8_192;

/// Why there are no machines to plan with; only a peer that talks nonsense brings that about.
const NO_POOL: &str = "the members of the mesh make no sense";

/// A model that is to be split.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) model: Arc<Model>,
    pub(super) fingerprint: Fingerprint,
    pub(super) width: u32,
    pub(super) path: PathBuf,
    /// What a stage of it takes on a worker, whatever its layers, bytes.
    pub(super) stage_bytes: u64,
    shape: ModelShape,
    context_tokens: u32,
    sequences: u32,
}

/// The part that runs here, and the way to it.
pub(super) struct Made {
    /// Layers before it are those of workers.
    pub(super) start: u32,
    /// Memory that the part here takes, bytes.
    pub(super) host_bytes: u64,
    pub(super) words: Arc<Slot>,
    pub(super) room: StageOptions,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) ring: RingId,
    /// The newest ring that was asked for.
    pub(super) epoch: u32,
    pub(super) rooms: Rooms,
}

/// What the host itself runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostPart {
    /// Its first layer.
    pub(super) start: u32,
    /// Memory that it takes, bytes.
    pub(super) bytes: u64,
}

/// Who runs which layers, and what to expect.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) seats: Vec<Seat>,
    /// Bytes that each worker's share takes.
    pub(super) held: BTreeMap<NodeId, u64>,
    /// Expected seconds of a token.
    pub(super) token_s: f64,
    /// Expected times from prompts of so many tokens to the first token of the answer.
    pub(super) first_token: Vec<(u32, Duration)>,
    /// Expected time of a row of a prompt, where it takes longest.
    pub(super) prefill_row: Duration,
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
        let (file, options) = (path.clone(), options(plan));
        let read = move || {
            let model = Model::open(&file).map_err(|error| error.to_string())?;
            let map = LayerMap::of(&model).map_err(|error| error.to_string())?;
            if embeds(&model) {
                return Err(
                    "embedding models can't be split; hint: run it whole, without --split"
                        .to_owned(),
                );
            }
            let (period, width) = (map.cuts().first().copied(), map.width());
            let shape = ModelShape::from_model(&model, period, WindowCache::Full)
                .map_err(|error| error.to_string())?;
            let room = engine::stage_options(&options).map_err(|error| error.to_string())?;
            let bytes = stage_bytes(width, room.rows_max);
            Ok::<_, String>((model, shape, width, bytes))
        };
        let read = blocking(&name, read).await?;
        let (model, shape, width, stage_bytes) = read.map_err(failed)?;
        Ok(Self {
            fingerprint: model.fingerprint(),
            model: Arc::new(model),
            width,
            path,
            stage_bytes,
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

    /// What others are told of the model. `host_bytes`: memory that the host's part takes, if known.
    pub(super) fn facts(&self, forced: bool, host_bytes: u64) -> Facts {
        Facts {
            fingerprint: self.fingerprint.to_string(),
            size_bytes: self.model.tensor_bytes().unwrap_or_default(),
            context_tokens: self.context_tokens,
            slots: self.sequences,
            forced,
            host_bytes,
        }
    }

    /// Where the part of this machine begins and what it takes, if the mesh has room for the rest. `forced`: the owner
    /// asked for a split.
    pub(super) fn first_plan(&self, scene: &Scene<'_>, forced: bool) -> Result<HostPart, String> {
        let machines = scene.pool().ok_or(NO_POOL)?;
        let request = self.request(Some(scene.own.node), true);
        let plan = plan::make(&self.shape, &machines, &request);
        let plan = plan.map_err(|refusal| match forced {
            true => refusal.to_string(),
            false => refusal.unasked().to_string(),
        })?;
        let last = plan.stages.last().map(|stage| HostPart {
            start: stage.layers.start,
            bytes: stage.needed_bytes,
        });
        last.ok_or_else(|| "the plan is empty".to_owned())
    }

    /// The machine of `machines` on which the plan puts all of the model; `None`: it fits on none.
    pub(super) fn whole_on(&self, machines: &Pool<NodeId>) -> Option<NodeId> {
        let plan = plan::make(&self.shape, machines, &self.request(None, false)).ok()?;
        plan.is_whole().then_some(plan.host)
    }

    /// Shares the layers before `start` out over members.
    pub(super) fn share(&self, scene: &Scene<'_>, start: u32) -> Result<Share, String> {
        let pinned = self.shape.pinned(start);
        let pinned = pinned.ok_or_else(|| format!("no stage may begin with layer {start}"))?;
        let mut own = scene.own;
        own.memory_bytes = Some(pinned.host_bytes);
        let machines = Scene { own, ..*scene }.pool().ok_or(NO_POOL)?;
        let plan = plan::make(
            &pinned.shape,
            &machines,
            &self.request(Some(own.node), true),
        );
        let Ok(plan) = plan else {
            return Err(self.refusal(scene, start));
        };
        let workers = plan.stages.iter().take(plan.stages.len() - 1);
        let prefill = plan.stages.iter().map(|stage| stage.prefill_row_time);
        let seats: Vec<Seat> = workers
            .clone()
            .map(|stage| Seat {
                node: stage.id,
                layers: stage.layers.clone(),
            })
            .collect();
        Ok(Share {
            first_token: self.first_token(scene, &seats, start),
            seats,
            held: workers
                .map(|stage| (stage.id, stage.needed_bytes))
                .collect(),
            token_s: plan.token_time.as_secs_f64(),
            prefill_row: prefill.max().unwrap_or_default(),
        })
    }

    /// Why there is no room, in numbers of the layers that are missing.
    fn refusal(&self, scene: &Scene<'_>, start: u32) -> String {
        let mut own = scene.own;
        own.memory_bytes = None;
        let Some(machines) = (Scene { own, ..*scene }).pool() else {
            return NO_POOL.to_owned();
        };
        let plan = self
            .front(start)
            .map(|front| plan::make(&front, &machines, &self.request(None, false)));
        match plan {
            Err(text) => text,
            Ok(Err(Refusal::NoMachines)) => format!(
                "needs memory of other machines for layers 0-{}, and none is there; hint: run `mesh-llm --join TICKET` on one",
                start.saturating_sub(1)
            ),
            Ok(Err(refusal)) => refusal.to_string(),
            Ok(Ok(_)) => "the machines with room are too far from here".to_owned(),
        }
    }

    /// Seconds of a token where the layers lie so, the host's from `start` on; `None` if one of the machines is
    /// not there any more.
    pub(super) fn token_s(&self, scene: &Scene<'_>, seats: &[Seat], start: u32) -> Option<f64> {
        let plan = self.settled(scene, seats, start)?;
        Some(plan.token_time.as_secs_f64())
    }

    /// Times from prompts of so many tokens to the first token of the answer where the layers lie so; empty as with
    /// [`token_s`](Self::token_s). The layers here count as what they are: the one that stands for them has weights
    /// beyond measure, and it is weights that bound how fast prompts are evaluated.
    pub(super) fn first_token(
        &self,
        scene: &Scene<'_>,
        seats: &[Seat],
        start: u32,
    ) -> Vec<(u32, Duration)> {
        let host = scene.own.node;
        let plan = || {
            let machines = self.pinned_scene(scene, start)?.pool()?;
            let workers = seats.iter().map(|seat| (seat.node, seat.layers.clone()));
            let here = (host, start..self.shape.layer_count());
            let stages: Vec<_> = workers.chain([here]).collect();
            settled(
                &self.shape,
                &machines,
                &self.request(Some(host), true),
                &stages,
            )
        };
        let times =
            plan().map(|plan| PROMPT_TOKENS.map(|tokens| (tokens, plan.first_token_time(tokens))));
        times.map(Vec::from).unwrap_or_default()
    }

    /// What to expect where the layers lie so.
    pub(super) fn settled(
        &self,
        scene: &Scene<'_>,
        seats: &[Seat],
        start: u32,
    ) -> Option<plan::Plan<NodeId>> {
        let pinned = self.shape.pinned(start)?;
        let host = scene.own.node;
        let machines = self.pinned_scene(scene, start)?.pool()?;
        let workers = seats.iter().map(|seat| (seat.node, seat.layers.clone()));
        let stages: Vec<_> = workers.chain([(host, start..start + 1)]).collect();
        let request = self.request(Some(host), true);
        settled(&pinned.shape, &machines, &request, &stages)
    }

    /// The scene with this machine as one that has room for exactly the layers from `start` on.
    pub(super) fn pinned_scene<'a>(&self, scene: &Scene<'a>, start: u32) -> Option<Scene<'a>> {
        let mut own = scene.own;
        own.memory_bytes = Some(self.shape.pinned(start)?.host_bytes);
        Some(Scene { own, ..*scene })
    }

    /// Bytes that layers read for a token, those of the host with the head.
    pub(super) fn active_bytes(&self, layers: std::ops::Range<u32>) -> u64 {
        let head = match layers.end >= self.shape.layer_count() {
            true => self.shape.parts().head_active_bytes,
            false => 0,
        };
        self.shape.active_bytes(layers) + head
    }

    /// Bytes of the weights of layers.
    pub(super) fn weight_bytes(&self, layers: std::ops::Range<u32>) -> u64 {
        let range = layers.start as usize..layers.end as usize;
        let layers = self.shape.parts().layers.get(range).unwrap_or_default();
        let bytes = layers.iter().map(|layer| layer.weight_bytes);
        bytes.fold(0, u64::saturating_add)
    }

    pub(super) fn layer_count(&self) -> u32 {
        self.shape.layer_count()
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
        let stage = |node: NodeId, layers: std::ops::Range<u32>| LayoutStage {
            node,
            name: name_of(view, node),
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
            predicted_tokens_per_second: 1.0 / share.token_s.max(1e-9),
            predicted_first_token: share.first_token.clone(),
            measured_tokens_per_second: None,
            waiting: None,
        }
    }
}

/// What people call a machine.
pub(super) fn name_of(view: &View, node: NodeId) -> String {
    let member = view.member(node);
    let name = member.map(|member| member.announcement().info.name.clone());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| node.short())
}

impl Share {
    /// The workers before they have loaded anything.
    pub(super) fn loading(&self, view: &View) -> Vec<LoadingStage> {
        let stages = self.seats.iter().map(|seat| LoadingStage {
            node: seat.node,
            name: name_of(view, seat.node),
            first_layer: seat.layers.start,
            last_layer: seat.layers.end.saturating_sub(1),
            loading: Loading::of(Phase::Asking, 0, 1),
        });
        stages.collect()
    }
}

/// Cuts the part from layer `start` on, and loads it.
pub(super) async fn make(
    subject: &Subject,
    plan: &Plan,
    part: HostPart,
    settings: &Settings,
    mut progress: impl FnMut(f64) + Send + 'static,
) -> Result<Made, String> {
    let words = Arc::new(Slot::default());
    let stages = Box::new(RemoteStages::new(Handle::current(), Arc::clone(&words)));
    let (model, path) = (Arc::clone(&subject.model), subject.path.clone());
    let folder = slices_folder(settings);
    let layers = part.start..subject.shape.layer_count();
    let mut plan = plan.clone();
    plan.context_tokens.get_or_insert(subject.context_tokens);
    let load = move || {
        let mut told = |share: f64| {
            progress(share);
            true
        };
        let tail = slice(
            &model,
            layers,
            SliceRole::Tail,
            &folder,
            Keeping::ForLong,
            &mut told,
        )?;
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
        start: part.start,
        host_bytes: part.bytes,
        words,
        room,
        backend,
        ring: RingId(rand::random()),
        epoch: 0,
        rooms: Rooms::default(),
    })
}
