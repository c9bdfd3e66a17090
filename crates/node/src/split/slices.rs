//! Slices of the models on this machine's disk, cut when they are wanted and kept.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use engine::stage::{StageOptions, StageRunner};
use gguf::{Fingerprint, LayerMap, Model, SliceOrigin, SliceRole};
use split::fault::Refusal;
use split::layers::{LayerSource, Layers};
use split::spec::StageSpec;

use super::runner::Runner;
use super::slices_folder;
use crate::library::Library;
use crate::loader::Loader;
use crate::{ByteSize, Settings, disk_free_bytes};

/// Room that is left on the disk at least, bytes: a full disk harms more than us.
const DISK_RESERVE_BYTES: u64 = 256 << 20;

/// Bytes of each layer's buffers and of the process, beyond weights and cache, about.
const OVERHEAD_BYTES: u64 = 64 << 20;

/// Rows of the model's width that the activations of one row take, about.
const ACTIVATION_ROWS: u64 = 16;

/// Models on disk, and slices of them.
pub(super) struct Slices {
    settings: Settings,
    loader: Arc<dyn Loader>,
    library: Mutex<Library>,
}

impl Slices {
    pub(super) fn new(settings: Settings, loader: Arc<dyn Loader>) -> Self {
        Self {
            settings,
            loader,
            library: Mutex::default(),
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

    fn model(&self, fingerprint: Fingerprint) -> Result<Model, String> {
        let path = self
            .find(&fingerprint.to_string())
            .ok_or_else(|| "this machine does not have the model".to_owned())?;
        Model::open(path).map_err(|error| error.to_string())
    }
}

impl LayerSource for Slices {
    fn needed_bytes(&self, spec: &StageSpec) -> Result<u64, Refusal> {
        let refused = |text: String| Refusal::NoModel { text };
        let model = self.model(spec.model).map_err(refused)?;
        let map = LayerMap::of(&model).map_err(|error| refused(error.to_string()))?;
        let plan = map
            .plan(spec.layers.clone(), SliceRole::Stage)
            .map_err(|error| refused(error.to_string()))?;
        let kv_token_bytes = plan.metadata().kv_bytes_per_token().unwrap_or(0);
        let row_bytes = u64::from(spec.width) * size_of::<f32>() as u64;
        let parts = [
            plan.copied_bytes(),
            kv_token_bytes.saturating_mul(spec.kv_tokens.into()),
            (row_bytes * ACTIVATION_ROWS).saturating_mul(spec.rows_max.into()),
            OVERHEAD_BYTES,
        ];
        Ok(parts.into_iter().fold(0, u64::saturating_add))
    }

    fn load(
        &self,
        spec: &StageSpec,
        progress: &mut dyn FnMut(u16) -> bool,
    ) -> Result<Box<dyn Layers>, String> {
        let model = self.model(spec.model)?;
        let folder = slices_folder(&self.settings);
        let layers = spec.layers.clone();
        let mut share = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share between 0 and 1"
            )]
            progress((share * 1_000.0) as u16)
        };
        let path = slice(&model, layers, SliceRole::Stage, &folder, &mut share)?;
        let options = StageOptions {
            kv_tokens: spec.kv_tokens,
            sequences: spec.sequences,
            rows_max: spec.rows_max,
            outputs_max: 0,
            threads: self.settings.threads,
            gpu_layers: self.settings.gpu_layers,
            device: self.settings.device.clone(),
        };
        let runner = StageRunner::open(&path, &options).map_err(|error| error.to_string())?;
        Ok(Box::new(Runner(runner)))
    }
}

/// The file of a slice: one that is there already, or a new one. `progress` is told the share that is
/// written and stops the work with false. Blocks.
pub(super) fn slice(
    model: &Model,
    layers: Range<u32>,
    role: SliceRole,
    folder: &Path,
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
            let kept = file.flush().and_then(|()| file.get_ref().sync_all());
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
