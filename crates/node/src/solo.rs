//! Models in this process, on llama.cpp.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Backend, Engine, Error, LoadOptions, Placement};

use crate::loader::{DraftPlan, Loader, Plan, Progress, Source};
use crate::{ByteSize, Settings, StartError};

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

    /// Where the layers go if they are loaded now; `None` if that is llama.cpp's business alone.
    fn place(&self, plan: &Plan) -> Result<Option<Placement>, Error> {
        if !self.uses_gpus {
            return Ok(None);
        }
        engine::place(&options(plan), crate::available_bytes())
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

    fn check_place(&self, plan: &Plan) -> Result<(), StartError> {
        let placement = self.place(plan).map_err(|error| StartError::Load {
            model: plan.name.clone(),
            reason: error.to_string(),
        })?;
        let refused = placement.and_then(|placement| refusal(plan, placement));
        refused.map_or(Ok(()), |refusal| Err(refusal.into_error(plan)))
    }

    fn load(&self, plan: Plan, progress: Progress) -> Result<Arc<dyn Backend>, Error> {
        // Once more: what is loaded since it was planned has taken memory of the GPUs.
        let placement = self.place(&plan)?;
        if let Some(refusal) = placement.and_then(|placement| refusal(&plan, placement)) {
            return Err(Error::Load(refusal.to_string()));
        }
        let mut options = options(&plan);
        if let Some(Placement::Fits { gpu_layers, layers }) = placement
            && options.gpu_layers.is_none()
            && gpu_layers < layers
        {
            tracing::info!(
                model = plan.name,
                gpu_layers,
                layers,
                "the GPU has room for a part of the layers; the others stay in main memory"
            );
            options.gpu_layers = Some(gpu_layers);
        }
        let engine = Engine::load(options, progress)?;
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
/// together. What goes where is looked at by [`Loader::check_place`]; where a GPU does not tell its memory, llama.cpp
/// alone decides.
fn with_gpus(host_bytes: u64, gpu_bytes: Option<u64>) -> u64 {
    gpu_bytes.map_or(u64::MAX, |bytes| host_bytes.saturating_add(bytes))
}

/// Why a model has no place.
#[derive(Debug, PartialEq)]
enum Refusal {
    /// The user's number of layers is the reason.
    Number(String),
    /// Main memory lacks room for what the GPUs have no room for.
    Memory {
        needed_bytes: u64,
        free_bytes: u64,
        hint: String,
    },
}

impl Refusal {
    /// As an error of the start of `plan`.
    fn into_error(self, plan: &Plan) -> StartError {
        match self {
            Self::Number(reason) => StartError::Load {
                model: plan.name.clone(),
                reason,
            },
            Self::Memory {
                needed_bytes,
                free_bytes,
                hint,
            } => StartError::Memory {
                models: vec![format!("`{}`", plan.name)],
                needed_bytes,
                free_bytes,
                hint,
            },
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(reason) => f.write_str(reason),
            Self::Memory {
                needed_bytes,
                free_bytes,
                hint,
            } => write!(
                f,
                "not enough main memory: {} needed, {} free; hint: {hint}",
                ByteSize(*needed_bytes),
                ByteSize(*free_bytes)
            ),
        }
    }
}

/// What helps, with the number of layers that fits.
fn hint(fitting: Option<u32>) -> String {
    fitting.map_or_else(
        || "use a smaller model or quantisation, or set a smaller --ctx-size".to_owned(),
        |fitting| format!("--gpu-layers {fitting}, or leave the flag out"),
    )
}

/// Why a model that would be placed so is refused; `None` if it fits.
fn refusal(plan: &Plan, placement: Placement) -> Option<Refusal> {
    match (placement, plan.gpu_layers) {
        (Placement::Fits { .. }, _) => None,
        (
            Placement::GpuShort {
                needed_bytes,
                free_bytes,
                fitting,
            },
            asked,
        ) => {
            let asked = asked.map_or_else(|| "all".to_owned(), |asked| asked.to_string());
            let hint = hint(fitting);
            Some(Refusal::Number(format!(
                "--gpu-layers {asked} needs at least {} of a GPU that has {} free; hint: {hint}",
                ByteSize(needed_bytes),
                ByteSize(free_bytes)
            )))
        }
        (
            Placement::HostShort {
                needed_bytes,
                free_bytes,
                fitting,
                ..
            },
            Some(asked),
        ) => {
            let hint = hint(fitting);
            Some(Refusal::Number(format!(
                "--gpu-layers {asked} fits the GPU, but the rest needs at least {} of main memory, which has {} \
                 free; hint: {hint}",
                ByteSize(needed_bytes),
                ByteSize(free_bytes)
            )))
        }
        (
            Placement::HostShort {
                gpu_layers,
                layers,
                needed_bytes,
                free_bytes,
                ..
            },
            None,
        ) => Some(Refusal::Memory {
            needed_bytes,
            free_bytes,
            hint: format!(
                "the GPU has room for {gpu_layers} of {layers} layers, and main memory must hold the rest: use a \
                 smaller model or quantisation, or set a smaller --ctx-size or --parallel"
            ),
        }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    const GIB: u64 = 1 << 30;

    fn refused(asked: Option<u32>, placement: Placement) -> Option<String> {
        let settings = Settings {
            gpu_layers: asked,
            ..Settings::default()
        };
        let plan = store::plan("m".to_owned(), Source::Embedded(b""), &settings);
        refusal(&plan, placement).map(|refusal| refusal.into_error(&plan).to_string())
    }

    #[test]
    fn refusals_say_what_is_needed_what_is_free_and_what_would_fit() {
        let fits = Placement::Fits {
            gpu_layers: 3,
            layers: 33,
        };
        for asked in [None, Some(3)] {
            assert_eq!(refused(asked, fits), None);
        }
        let short = Placement::GpuShort {
            needed_bytes: 20 * GIB,
            free_bytes: 12 * GIB,
            fitting: Some(17),
        };
        assert_eq!(
            refused(Some(99), short).unwrap(),
            "can't load `m`: --gpu-layers 99 needs at least 20.0 GiB of a GPU that has 12.0 GiB free; \
             hint: --gpu-layers 17, or leave the flag out"
        );
        let short = |fitting| Placement::HostShort {
            gpu_layers: 5,
            layers: 33,
            needed_bytes: 16 * GIB,
            free_bytes: 8 * GIB,
            fitting,
        };
        assert_eq!(
            refused(Some(5), short(Some(17))).unwrap(),
            "can't load `m`: --gpu-layers 5 fits the GPU, but the rest needs at least 16.0 GiB of main memory, \
             which has 8.0 GiB free; hint: --gpu-layers 17, or leave the flag out"
        );
        assert!(
            refused(Some(5), short(None)).unwrap().ends_with(
                "hint: use a smaller model or quantisation, or set a smaller --ctx-size"
            )
        );
        assert_eq!(
            refused(None, short(None)).unwrap(),
            "not enough memory for `m`: 16.0 GiB needed, 8.0 GiB free; hint: the GPU has room for 5 of 33 layers, \
             and main memory must hold the rest: use a smaller model or quantisation, or set a smaller \
             --ctx-size or --parallel"
        );
    }

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
