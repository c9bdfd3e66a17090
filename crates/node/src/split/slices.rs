//! Slices of models: cut from the files on this machine's disk, or fetched from members, and kept.

mod made_up;
mod trial;
mod whole;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::stage::{StageOptions, StageRunner};
use gguf::{Fingerprint, LayerMap, Model, SliceOrigin, SliceRole};
use mesh::proto::Member;
use mesh::{Mesh, NodeId};
use split::FRAMES_HELD_MAX;
use split::fault::Refusal;
use split::layers::{LayerSource, Layers, Loading};
use split::spec::StageSpec;
use split::weights::{
    Cache, CachedSlice, HubFiles, Phase, Progress, SliceKey, Suppliers, ask_headers, ask_place,
    obtain,
};
use split::wire::Pace;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use self::trial::Tries;
pub(crate) use self::whole::{Need, WholeFile};
use super::runner::Runner;
use super::speeds::Speeds;
use super::weights::MemberDial;
use crate::library::Library;
use crate::loader::Loader;
use crate::{ByteSize, Settings, disk_free_bytes};

/// Room that is left on the disk at least, bytes: a full disk harms more than us.
const DISK_RESERVE_BYTES: u64 = 256 << 20;

/// Bytes of each layer's buffers and of the process, beyond weights and cache, about.
const OVERHEAD_BYTES: u64 = 64 << 20;

/// Rows of the model's width that the activations of one row take, about.
const ACTIVATION_ROWS: u64 = 16;

/// Pause between two looks at how far a fetch is.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Pause before a slice is looked for again that somebody else on this machine is making.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Models on disk, slices of them, and the way to those of others.
pub(crate) struct Slices {
    settings: Settings,
    loader: Arc<dyn Loader>,
    library: Mutex<Library>,
    cache: Cache,
    mesh: Mesh,
    runtime: Handle,
    speeds: Arc<Speeds>,
    /// What this machine was lately measured with.
    tries: Tries,
}

impl Slices {
    /// Needs a tokio runtime.
    pub(super) fn new(
        settings: Settings,
        loader: Arc<dyn Loader>,
        cache: Cache,
        mesh: Mesh,
        speeds: Arc<Speeds>,
    ) -> Self {
        Self {
            settings,
            loader,
            library: Mutex::default(),
            cache,
            mesh,
            runtime: Handle::current(),
            speeds,
            tries: Tries::default(),
        }
    }

    /// The file of a model with this content, under any name. Blocks on file reads.
    pub(super) fn find(&self, model: &str) -> Option<PathBuf> {
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        let volumes = library.look(&self.settings, self.loader.as_ref());
        let found = volumes
            .into_iter()
            .find(|volume| volume.fingerprint == model);
        found.map(|volume| volume.path)
    }

    /// Waits for `work` on this thread, which may block, as long as `goes_on` says so.
    fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, String>>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<T, String> {
        self.runtime.block_on(async {
            let mut work = std::pin::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => return done,
                    () = sleep(LOOK_INTERVAL) => {
                        if !goes_on() {
                            return Err("nobody wants the layers any more".to_owned());
                        }
                    }
                }
            }
        })
    }

    /// The header of a model: of the own file, or from the host, who may have it from anywhere, since its
    /// hash is known.
    fn header(
        &self,
        host: NodeId,
        model: Fingerprint,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Model, String> {
        if let Some(path) = self.find(&model.to_string()) {
            return Model::open(path).map_err(|error| error.to_string());
        }
        if let Some((_, header)) = self.cache.headers(model) {
            return Ok(header);
        }
        let dial = self.dial(host);
        let asked = async {
            let asked = ask_headers(&dial, model).await;
            asked.map_err(|error| error.to_string())
        };
        let (headers, read) = self.wait(asked, goes_on)?;
        if let Err(error) = self.cache.save_headers(model, &headers) {
            tracing::debug!(%error, "headers of a model are not kept");
        }
        Ok(read)
    }

    fn dial(&self, node: NodeId) -> MemberDial {
        MemberDial {
            mesh: self.mesh.clone(),
            node,
        }
    }

    /// Who could have the weights, the nearest first; the hub behind all others.
    async fn suppliers(&self, host: NodeId, model: Fingerprint) -> Suppliers<MemberDial> {
        let name = model.to_string();
        let view = self.mesh.view().borrow().clone();
        let me = self.mesh.node_id();
        let has = |member: &&Member| {
            let local = &member.announcement().info.local;
            member.node != me
                && (member.node == host || local.iter().any(|model| model.fingerprint == name))
        };
        let mut members: Vec<&Member> = view.alive().filter(has).collect();
        members.sort_by_key(|member| member.round_trip_us.unwrap_or(u32::MAX));
        let peers = members.iter().map(|member| {
            let name = member.announcement().info.name.clone();
            (name, Arc::new(self.dial(member.node)))
        });
        let (peers, own) = (peers.collect(), self.find(&name));
        let hub = match own {
            None => self.hub(host, model).await,
            // With an own file nothing will be fetched.
            Some(_) => None,
        };
        Suppliers {
            own,
            host: Arc::new(self.dial(host)),
            peers,
            hub,
        }
    }

    /// The model's files at this machine's own hub, if the host knows where they are.
    async fn hub(&self, host: NodeId, model: Fingerprint) -> Option<HubFiles> {
        let hub = self.settings.hub.clone()?;
        match ask_place(&self.dial(host), model).await {
            Ok(place) => Some(place?.at(hub.address, hub.token)),
            Err(error) => {
                tracing::debug!(%error, "the host does not say where a hub has the model");
                None
            }
        }
    }

    /// The file of a slice, fetched if need be. `progress` as in [`LayerSource::load`].
    fn obtain(
        &self,
        host: NodeId,
        key: &SliceKey,
        progress: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<CachedSlice, String> {
        let free_bytes = |folder: &Path| {
            disk_free_bytes(folder).ok_or_else(|| io::Error::other("its room can't be told"))
        };
        let (sender, receiver) = watch::channel(Progress::default());
        let obtained = async {
            loop {
                let suppliers = self.suppliers(host, key.model).await;
                match obtain(key, suppliers, &self.cache, &free_bytes, &sender).await {
                    // Somebody else makes it, another process maybe.
                    Err(error) if error.is_busy() => sleep(BUSY_PAUSE).await,
                    slice => return slice.map_err(|error| error.to_string()),
                }
            }
        };
        let mut look = || {
            let now = receiver.borrow().clone();
            progress(Loading::of(now.phase, now.bytes_done, now.bytes_total))
        };
        self.wait(obtained, &mut look)
    }
}

impl LayerSource for Slices {
    fn needed_bytes(&self, host: NodeId, spec: &StageSpec) -> Result<u64, Refusal> {
        let refused = |text: String| Refusal::NoModel { text };
        let model = self.header(host, spec.model, &mut || true);
        let model = model.map_err(refused)?;
        let map = LayerMap::of(&model).map_err(|error| refused(error.to_string()))?;
        let plan = map
            .plan(spec.layers.clone(), SliceRole::Stage)
            .map_err(|error| refused(error.to_string()))?;
        let kv_token_bytes = plan.metadata().kv_bytes_per_token().unwrap_or(0);
        let parts = [
            plan.copied_bytes(),
            kv_token_bytes.saturating_mul(spec.kv_tokens.into()),
            buffer_bytes(spec.width, spec.rows_max),
        ];
        Ok(parts.into_iter().fold(0, u64::saturating_add))
    }

    fn load(
        &self,
        host: NodeId,
        spec: &StageSpec,
        progress: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<Box<dyn Layers>, String> {
        let key = SliceKey {
            model: spec.model,
            layers: spec.layers.clone(),
            role: SliceRole::Stage,
        };
        let slice = self.obtain(host, &key, progress)?;
        // Whether anybody still wants it is asked again when it is loaded.
        progress(Loading::of(Phase::Opening, 0, 1));
        let options = StageOptions {
            kv_tokens: spec.kv_tokens,
            sequences: spec.sequences,
            rows_max: spec.rows_max,
            outputs_max: 0,
            threads: self.settings.threads,
            gpu_layers: self.settings.gpu_layers,
            device: self.settings.device.clone(),
        };
        let runner = StageRunner::open(slice.path(), &options);
        let runner = runner.map_err(|error| error.to_string())?;
        Ok(Box::new(Runner {
            runner,
            _slice: slice,
        }))
    }

    fn pace(&self, host: NodeId, model: Fingerprint, is_free: &dyn Fn() -> bool) -> Option<Pace> {
        let name = model.to_string();
        let me = self.mesh.node_id();
        let threads = self
            .settings
            .threads
            .unwrap_or_else(engine::threads_default);
        let speed = self.speeds.of_model(&name, me, threads);
        let speed = match speed {
            Some(speed) => speed,
            None if !is_free() => return None,
            None => {
                let measured = self.measure(host, model, is_free);
                let speed = measured
                    .inspect_err(|reason| tracing::debug!(reason, "no trial of a layer"))
                    .ok()?;
                self.speeds.note_model(&name, me, threads, speed);
                self.speeds.save();
                speed
            }
        };
        let (decode, prefill) = speed.bytes_per_s();
        Some(Pace {
            decode_bytes_per_s: decode as u64,
            prefill_bytes_per_s: prefill as u64,
        })
    }
}

/// Bytes of a stage's buffers beyond weights and cache, about.
fn buffer_bytes(width: u32, rows_max: u32) -> u64 {
    let row_bytes = u64::from(width) * size_of::<f32>() as u64;
    (row_bytes * ACTIVATION_ROWS)
        .saturating_mul(rows_max.into())
        .saturating_add(OVERHEAD_BYTES)
}

/// Bytes that a worker's stage takes whatever its layers: buffers, and the frames that it holds at a time.
pub(super) fn stage_bytes(width: u32, rows_max: u32) -> u64 {
    let frame_bytes = u64::from(width) * u64::from(rows_max) * size_of::<f32>() as u64;
    buffer_bytes(width, rows_max).saturating_add(frame_bytes.saturating_mul(FRAMES_HELD_MAX))
}

/// How long a slice is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Also after the power failed.
    ForLong,
    /// It is about to be removed.
    ForNow,
}

/// The file of a slice: one that is there already, or a new one. `progress` is told the share that is
/// written and stops the work with false. Blocks.
pub(super) fn slice(
    model: &Model,
    layers: Range<u32>,
    role: SliceRole,
    folder: &Path,
    keeping: Keeping,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<PathBuf, String> {
    let fingerprint = model.fingerprint();
    let name = format!("{fingerprint}-{}-{}-{role}.gguf", layers.start, layers.end);
    let path = folder.join(name.replace(':', "-"));
    if is_slice(&path, fingerprint, &layers, role) {
        return Ok(path);
    }
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let map = LayerMap::of(model).map_err(|error| text(&error))?;
    let plan = map.plan(layers, role).map_err(|error| text(&error))?;
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    let needed = plan.file_bytes().saturating_add(DISK_RESERVE_BYTES);
    if let Some(free) = disk_free_bytes(folder)
        && free < needed
    {
        return Err(format!(
            "a slice takes {} in {}, where {} are free",
            ByteSize(plan.file_bytes()),
            folder.display(),
            ByteSize(free)
        ));
    }
    let sources = model.open_sources().map_err(|error| text(&error))?;
    // Two rings may want the same slice at once: each writes a file of its own, and the last one stays.
    let draft = folder.join(format!(".{:016x}.part", rand::random::<u64>()));
    let file = File::create(&draft).map_err(|error| unwritable(&draft, &error))?;
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let total = plan.copied_bytes().max(1) as f64;
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let written = plan
        .write(&sources, BufWriter::new(file), |bytes| {
            progress(bytes as f64 / total)
        })
        .map_err(|error| text(&error))
        .and_then(|mut file| {
            let flushed = file.flush();
            let kept = match keeping {
                Keeping::ForLong => flushed.and_then(|()| file.get_ref().sync_all()),
                Keeping::ForNow => flushed,
            };
            kept.and_then(|()| std::fs::rename(&draft, &path))
                .map_err(|error| unwritable(&path, &error))
        });
    match written {
        Ok(()) => Ok(path),
        Err(error) => {
            // What is left of it is useless; the error is told either way.
            let _ = std::fs::remove_file(&draft);
            Err(error)
        }
    }
}

/// Whether a whole slice of these layers is there.
fn is_slice(path: &Path, model: Fingerprint, layers: &Range<u32>, role: SliceRole) -> bool {
    let Ok(found) = Model::open(path) else {
        return false;
    };
    let origin = SliceOrigin::of(found.metadata());
    matches!(origin, Ok(Some(origin))
        if origin.model == model && origin.layers == *layers && origin.role == role)
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("can't write {}: {error}", path.display())
}
