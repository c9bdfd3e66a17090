//! Models in this process, on llama.cpp.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Backend, Engine, Error, LoadOptions, Placement, Vacancy};

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
        let host_bytes_free = crate::available_bytes();
        engine::place(&options(plan), plan.gpu_layers_max, host_bytes_free)
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

    fn check_places(&self, plans: &[&Plan]) -> Vec<Result<Option<u32>, StartError>> {
        let vacancy = plans.first().filter(|_| self.uses_gpus).and_then(|plan| {
            let host_bytes_free = crate::available_bytes();
            Vacancy::now(plan.device.as_deref(), host_bytes_free)
        });
        match vacancy {
            Some(vacancy) => place_all(plans, vacancy),
            None => vec![Ok(None); plans.len()],
        }
    }

    fn load(&self, plan: Plan, progress: Progress) -> Result<Arc<dyn Backend>, Error> {
        // Once more: what is loaded since it was planned has taken memory of the GPUs.
        let placement = self.place(&plan)?;
        if let Some(placement) = placement {
            check(&plan, placement, None).map_err(|refusal| Error::Load(refusal.to_string()))?;
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
                "a part of the layers goes to the GPU; the others stay in main memory"
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
/// together. What goes where is looked at by [`Loader::check_places`]; where a GPU does not tell its memory, llama.cpp
/// alone decides.
fn with_gpus(host_bytes: u64, gpu_bytes: Option<u64>) -> u64 {
    gpu_bytes.map_or(u64::MAX, |bytes| host_bytes.saturating_add(bytes))
}

/// Places models one after the other: what one takes is not free for the next. Layers on GPUs of each, if that is known.
fn place_all(plans: &[&Plan], mut vacancy: Vacancy) -> Vec<Result<Option<u32>, StartError>> {
    let mut earlier: Vec<Placed<'_>> = Vec::new();
    let mut places = Vec::with_capacity(plans.len());
    for plan in plans {
        let place = place_next(plan, &earlier, &mut vacancy);
        if let Ok(Some(gpu_layers)) = place {
            earlier.push(Placed {
                name: &plan.name,
                gpu_layers,
            });
        }
        places.push(place);
    }
    places
}

/// A model that has taken of the memory.
#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    name: &'a str,
    gpu_layers: u32,
}

/// Places one more model, beside `earlier` ones.
fn place_next(
    plan: &Plan,
    earlier: &[Placed<'_>],
    vacancy: &mut Vacancy,
) -> Result<Option<u32>, StartError> {
    let placement = vacancy.place(&options(plan), None);
    let placement = placement.map_err(|error| StartError::Load {
        model: plan.name.clone(),
        reason: error.to_string(),
    })?;
    match placement {
        None => Ok(None),
        Some(placement) => check(plan, placement, Some(earlier))
            .map(Some)
            .map_err(|refusal| refusal.into_error(plan)),
    }
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

/// What helps where `asked` of so many layers are too many, or too few, with the number that fits. `is_alone`: no other
/// model takes of the memory.
fn hint(asked: Option<u32>, layers: u32, fitting: Option<u32>, is_alone: bool) -> String {
    // The number is that of all models: another one, or none, places the earlier ones anew, and if it was less than
    // all, these leave more of main memory then.
    let has_fewer = asked.is_some_and(|asked| asked < layers);
    match (fitting, is_alone) {
        (Some(fitting), true) => format!("--gpu-layers {fitting}, or leave the flag out"),
        (Some(_), false) => "leave --gpu-layers out, or serve fewer models".to_owned(),
        (None, true) => {
            "use a smaller model or quantisation, or set a smaller --ctx-size".to_owned()
        }
        (None, false) => {
            let out = if has_fewer {
                "leave --gpu-layers out, "
            } else {
                ""
            };
            format!("{out}serve fewer models, a smaller quantisation, or set a smaller --ctx-size")
        }
    }
}

/// The models that took of the memory before, to follow what is left of it.
fn beside<'a>(earlier: impl Iterator<Item = &'a Placed<'a>>) -> String {
    let names: Vec<String> = earlier.map(|placed| format!("`{}`", placed.name)).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" beside {}", names.join(" and "))
}

/// The layers of a model that go to GPUs if it would be placed so. `earlier`: what has its place before; `None` if that
/// is not known.
///
/// # Errors
/// Why the model is refused.
fn check(
    plan: &Plan,
    placement: Placement,
    earlier: Option<&[Placed<'_>]>,
) -> Result<u32, Refusal> {
    let is_alone = earlier.is_some_and(<[_]>::is_empty);
    let earlier = earlier.unwrap_or_default();
    let on_gpus = || beside(earlier.iter().filter(|placed| placed.gpu_layers > 0));
    match (placement, plan.gpu_layers) {
        (Placement::Fits { gpu_layers, .. }, _) => Ok(gpu_layers),
        (
            Placement::GpuShort {
                layers,
                needed_bytes,
                free_bytes,
                fitting,
            },
            asked,
        ) => {
            let hint = hint(asked, layers, fitting, is_alone);
            let asked = asked.map_or_else(|| "all".to_owned(), |asked| asked.to_string());
            Err(Refusal::Number(format!(
                "--gpu-layers {asked} needs at least {} of a GPU that has {} free{}; hint: {hint}",
                ByteSize(needed_bytes),
                ByteSize(free_bytes),
                on_gpus()
            )))
        }
        (
            Placement::HostShort {
                layers,
                needed_bytes,
                free_bytes,
                fitting,
                ..
            },
            Some(asked),
        ) => {
            let hint = hint(Some(asked), layers, fitting, is_alone);
            Err(Refusal::Number(format!(
                "--gpu-layers {asked} fits the GPU, but the rest needs at least {} of main memory, which has {} \
                 free{}; hint: {hint}",
                ByteSize(needed_bytes),
                ByteSize(free_bytes),
                beside(earlier.iter())
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
        ) => {
            let fewer = if is_alone { "" } else { "serve fewer models, " };
            Err(Refusal::Memory {
                needed_bytes,
                free_bytes,
                hint: format!(
                    "the GPU has room for {gpu_layers} of {layers} layers{}, and main memory must hold the rest: \
                     {fewer}use a smaller model or quantisation, or set a smaller --ctx-size or --parallel",
                    on_gpus()
                ),
            })
        }
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
        refused_beside(Some(&[]), asked, placement)
    }

    /// `earlier`: names, and layers on GPUs.
    fn refused_beside(
        earlier: Option<&[(&str, u32)]>,
        asked: Option<u32>,
        placement: Placement,
    ) -> Option<String> {
        let settings = Settings {
            gpu_layers: asked,
            ..Settings::default()
        };
        let plan = store::plan("m".to_owned(), Source::Embedded(b""), &settings);
        let placed = |&(name, gpu_layers)| Placed { name, gpu_layers };
        let earlier: Option<Vec<_>> = earlier.map(|earlier| earlier.iter().map(placed).collect());
        let refusal = check(&plan, placement, earlier.as_deref()).err()?;
        Some(refusal.into_error(&plan).to_string())
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
            layers: 33,
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
    fn models_of_one_start_share_the_memory_of_a_gpu() {
        let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");
        // What both get of so many MiB of a GPU.
        let placed = |asked, gpu_mib: u64| {
            let settings = Settings {
                gpu_layers: asked,
                ..Settings::default()
            };
            let [a, b] = ["a", "b"].map(|name| {
                let source = Source::File(starter.into());
                store::plan(name.to_owned(), source, &settings)
            });
            place_all(&[&a, &b], Vacancy::new(vec![gpu_mib << 20], GIB))
        };
        let all = placed(None, 10_000)[0].clone();
        assert!(all.as_ref().is_ok_and(|layers| *layers > Some(1)));
        let (mut few, mut enough) = (0_u64, 10_000_u64);
        while enough - few > 1 {
            let middle = few.midpoint(enough);
            if placed(None, middle)[0] == all {
                enough = middle;
            } else {
                few = middle;
            }
        }
        // Enough for one is too little for two, and the second one stays in main memory.
        assert_eq!(placed(None, enough), [all.clone(), Ok(Some(0))]);
        assert_eq!(placed(None, enough * 3), [all.clone(), all.clone()]);
        // Where that may not be, it is refused, and says which has the memory.
        let places = placed(Some(99), enough);
        assert_eq!(places[0], all);
        let error = places[1].as_ref().unwrap_err().to_string();
        assert!(error.contains(" free beside `a`; hint: "), "{error}");
    }

    #[test]
    fn refusals_name_the_models_that_have_the_memory() {
        let gpu_short = |fitting| Placement::GpuShort {
            layers: 33,
            needed_bytes: 20 * GIB,
            free_bytes: 2 * GIB,
            fitting,
        };
        let a: Option<&[(&str, u32)]> = Some(&[("a", 9)]);
        assert_eq!(
            refused_beside(a, Some(99), gpu_short(Some(3))).unwrap(),
            "can't load `m`: --gpu-layers 99 needs at least 20.0 GiB of a GPU that has 2.0 GiB free beside `a`; \
             hint: leave --gpu-layers out, or serve fewer models"
        );
        // With fewer than all, earlier models leave more of main memory without the flag.
        for (asked, out) in [(32, "leave --gpu-layers out, "), (33, ""), (99, "")] {
            let refused = refused_beside(a, Some(asked), gpu_short(None)).unwrap();
            let hint = format!(
                "hint: {out}serve fewer models, a smaller quantisation, or set a smaller --ctx-size"
            );
            assert!(refused.ends_with(&hint), "{refused}");
        }
        let host_short = Placement::HostShort {
            gpu_layers: 5,
            layers: 33,
            needed_bytes: 16 * GIB,
            free_bytes: 8 * GIB,
            fitting: None,
        };
        let some: Option<&[(&str, u32)]> = Some(&[("a", 9), ("b", 1), ("c", 0)]);
        assert_eq!(
            refused_beside(some, None, host_short).unwrap(),
            "not enough memory for `m`: 16.0 GiB needed, 8.0 GiB free; hint: the GPU has room for 5 of 33 layers \
             beside `a` and `b`, and main memory must hold the rest: serve fewer models, use a smaller model or \
             quantisation, or set a smaller --ctx-size or --parallel"
        );
        // Of main memory the third one has something too.
        let refused = refused_beside(some, Some(5), host_short).unwrap();
        assert!(
            refused.contains("which has 8.0 GiB free beside `a` and `b` and `c`; hint: leave"),
            "{refused}"
        );
        // Where nobody knows what is beside it, no number is named.
        assert_eq!(
            refused_beside(None, Some(99), gpu_short(Some(3))).unwrap(),
            "can't load `m`: --gpu-layers 99 needs at least 20.0 GiB of a GPU that has 2.0 GiB free; \
             hint: leave --gpu-layers out, or serve fewer models"
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
