//! Models in this process, on llama.cpp.

use std::sync::Arc;

use engine::{Backend, Engine, Error, LoadOptions};

use crate::loader::{DraftPlan, Loader, Plan, Progress, Source};

/// Loads models with [`Engine::load`].
pub(crate) struct InProcess;

impl Loader for InProcess {
    fn memory_needed(&self, plan: &Plan) -> Result<u64, Error> {
        engine::memory_needed(&options(plan))
    }

    fn load(&self, plan: Plan, progress: Progress) -> Result<Arc<dyn Backend>, Error> {
        let engine = Engine::load(options(&plan), progress)?;
        Ok(Arc::new(engine))
    }

    fn memory_available(&self) -> u64 {
        if cfg!(any(feature = "cuda", feature = "vulkan", feature = "rocm")) {
            // Weights go to memory that the system does not report here; llama.cpp refuses by
            // itself when it is short.
            u64::MAX
        } else {
            crate::available_bytes()
        }
    }

    fn gpus(&self) -> Vec<String> {
        engine::gpus()
    }
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
