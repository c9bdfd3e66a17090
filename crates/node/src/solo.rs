//! Models in this process, on llama.cpp.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Backend, Engine, Error, LoadOptions};

use crate::Settings;
use crate::loader::{DraftPlan, Loader, Plan, Progress, Source};

/// How long what drivers of GPUs say counts: they are asked for each plan, and may be slow.
const GPUS_TOLD_FOR: Duration = Duration::from_secs(1);

/// Loads models with [`Engine::load`].
pub(crate) struct InProcess {
    /// Whether models are put on GPUs.
    uses_gpus: bool,
    /// The only one that they are put on.
    device: Option<String>,
    told: Mutex<Option<(Instant, Option<u64>)>>,
}

impl InProcess {
    pub(crate) fn new(settings: &Settings) -> Self {
        let has_gpus = cfg!(any(feature = "cuda", feature = "vulkan", feature = "rocm"));
        Self {
            uses_gpus: has_gpus && settings.gpu_layers != Some(0),
            device: settings.device.clone(),
            told: Mutex::default(),
        }
    }

    fn gpu_bytes(&self) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match *told {
            Some((at, bytes)) if at.elapsed() < GPUS_TOLD_FOR => bytes,
            _ => {
                let bytes = engine::gpu_bytes_free(self.device.as_deref());
                *told = Some((Instant::now(), bytes));
                bytes
            }
        }
    }
}

impl Loader for InProcess {
    fn memory_needed(&self, plan: &Plan) -> Result<u64, Error> {
        engine::memory_needed(&options(plan))
    }

    fn load(&self, plan: Plan, progress: Progress) -> Result<Arc<dyn Backend>, Error> {
        let engine = Engine::load(options(&plan), progress)?;
        Ok(Arc::new(engine))
    }

    fn memory_available(&self) -> u64 {
        let host_bytes = crate::available_bytes();
        if self.uses_gpus {
            with_gpus(host_bytes, self.gpu_bytes())
        } else {
            host_bytes
        }
    }

    fn gpus(&self) -> Vec<String> {
        engine::gpus()
    }
}

/// What models can take of main memory and of that of the GPUs, bytes. No model can have more than both
/// together. How much of it must be on a GPU only llama.cpp knows, which refuses by itself when a GPU is
/// short of it, and alone decides where one does not tell its memory.
fn with_gpus(host_bytes: u64, gpu_bytes: Option<u64>) -> u64 {
    gpu_bytes.map_or(u64::MAX, |bytes| host_bytes.saturating_add(bytes))
}

/// What the engine is to do for a plan.
pub(crate) fn options(plan: &Plan) -> LoadOptions {
    let source = match &plan.source {
        Source::File(path) => engine::ModelSource::Path(path.clone()),
        Source::Embedded(bytes) => engine::ModelSource::Bytes(bytes),
    };
    let mut options = LoadOptions::new(source);
    options.name = Some(plan.name.clone());
    options.draft = match &plan.draft {
        DraftPlan::None => engine::Draft::None,
        DraftPlan::Auto => engine::Draft::Auto,
        DraftPlan::File(path) => engine::Draft::Path(path.clone()),
    };
    options.context_tokens = plan.context_tokens;
    options.slots = plan.slots;
    options.gpu_layers = plan.gpu_layers;
    options.device.clone_from(&plan.device);
    options.threads = plan.threads;
    options.queue_max = plan.queue_max;
    options
}

#[cfg(test)]
mod tests {
    use super::with_gpus;

    #[test]
    fn nothing_is_refused_for_memory_that_a_gpu_does_not_tell() {
        for (host_bytes, gpu_bytes, expected) in [
            (16, Some(24), 40),
            (16, Some(0), 16),
            (16, None, u64::MAX),
            (u64::MAX, Some(24), u64::MAX),
        ] {
            assert_eq!(with_gpus(host_bytes, gpu_bytes), expected);
        }
    }
}
