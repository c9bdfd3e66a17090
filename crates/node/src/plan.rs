//! What to load: finds the files, names the models, and checks that they fit into memory, all
//! before anything is loaded.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::loader::{DraftPlan, Loader, Plan, Source};
use crate::memory::ByteSize;
use crate::source::{Search, first_part, name_of};
use crate::{Draft, ModelSource, Settings, SplitModels, StartError};

/// Memory for models at one moment, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// What the machine can still give.
    pub(crate) available_bytes: u64,
    /// What models take that are being loaded and do not have all of it yet.
    pub(crate) loading_bytes: u64,
    /// What all models take, loading ones included.
    pub(crate) loaded_bytes: u64,
    /// What the owner allows in all.
    pub(crate) bytes_max: Option<u64>,
}

impl Budget {
    /// What one more model may take.
    pub(crate) fn free_bytes(self) -> u64 {
        let allowed = self
            .bytes_max
            .map_or(u64::MAX, |max| max.saturating_sub(self.loaded_bytes));
        self.available_bytes
            .saturating_sub(self.loading_bytes)
            .min(allowed)
    }
}

/// What to load here, with the memory of each, and what to split over several machines.
pub(crate) struct Plans {
    pub(crate) whole: Vec<(Plan, u64)>,
    pub(crate) split: Vec<Plan>,
}

/// Makes the plans of all models of `settings`, or says why they can't be loaded together.
pub(crate) fn plan(settings: &Settings, loader: &dyn Loader) -> Result<Plans, StartError> {
    let mut plans: Vec<(Plan, u64)> = Vec::new();
    let mut split: Vec<Plan> = Vec::new();
    for source in &settings.models {
        let plan = plan_one(source, settings)?;
        let whole = plans.iter().map(|(plan, _)| plan);
        if whole.chain(&split).any(|known| known.name == plan.name) {
            return Err(StartError::Duplicate { name: plan.name });
        }
        if settings.split == SplitModels::Always {
            split.push(plan);
        } else {
            let needed_bytes = needed(&plan, loader)?;
            plans.push((plan, needed_bytes));
        }
    }
    let needs: Vec<_> = plans
        .iter()
        .map(|(plan, bytes)| (plan.name.clone(), *bytes))
        .collect();
    let budget = Budget {
        available_bytes: loader.memory_available(),
        loading_bytes: 0,
        loaded_bytes: 0,
        bytes_max: settings.memory_bytes_max,
    };
    let mut fits = check_fits(&needs, budget.free_bytes());
    while fits.is_err() && settings.split == SplitModels::IfNeeded {
        // The largest first: most of the others may fit without it.
        let Some(largest) = largest(&plans) else {
            break;
        };
        split.push(plans.remove(largest).0);
        let needs: Vec<_> = plans
            .iter()
            .map(|(plan, bytes)| (plan.name.clone(), *bytes))
            .collect();
        fits = check_fits(&needs, budget.free_bytes());
    }
    fits?;
    let may_split = settings.split == SplitModels::IfNeeded;
    find_places(&mut plans, &mut split, may_split, loader)?;
    Ok(Plans {
        whole: plans,
        split,
    })
}

/// Gives all models their places, each beside those before it. `may_split`: where one has none, it or an earlier one goes
/// to `split`.
fn find_places(
    plans: &mut Vec<(Plan, u64)>,
    split: &mut Vec<Plan>,
    may_split: bool,
    loader: &dyn Loader,
) -> Result<(), StartError> {
    // Ends: each round but the last one takes a plan out.
    loop {
        let all: Vec<&Plan> = plans.iter().map(|(plan, _)| plan).collect();
        let places = loader.check_places(&all);
        debug_assert_eq!(places.len(), all.len(), "each model has one result");
        let mut results = plans.iter().zip(&places).enumerate();
        let refused =
            results.find_map(|(index, (_, place))| Some((index, place.as_ref().err()?.clone())));
        let Some((index, error)) = refused else {
            // The last one may have all that is free when it is loaded.
            let others = plans.len().saturating_sub(1);
            for ((plan, _), place) in plans.iter_mut().zip(places).take(others) {
                plan.gpu_layers_max = place.ok().flatten();
            }
            return Ok(());
        };
        if !may_split || !matches!(error, StartError::Memory { .. }) {
            return Err(error);
        }
        let Some(index) = gives_way(&plans[..=index], loader) else {
            return Err(error);
        };
        split.push(plans.remove(index).0);
    }
}

/// Which model is split because the last of `plans` has no place beside the others: that one if it has none by itself
/// either, else the largest, as with those that are too large for all memory together.
fn gives_way(plans: &[(Plan, u64)], loader: &dyn Loader) -> Option<usize> {
    let ((last, _), others) = plans.split_last()?;
    if loader.check_places(&[last]).iter().all(Result::is_ok) {
        return largest(plans);
    }
    can_split(last).then_some(others.len())
}

/// The largest model that could run on several machines. Reads no more headers than it must.
fn largest(plans: &[(Plan, u64)]) -> Option<usize> {
    let mut sizes: Vec<_> = plans.iter().enumerate().collect();
    sizes.sort_by_key(|(_, (_, bytes))| *bytes);
    let mut largest_first = sizes.into_iter().rev();
    largest_first
        .find(|(_, (plan, _))| can_split(plan))
        .map(|(index, _)| index)
}

/// Whether a model gives embeddings instead of text. Those run whole: they are small, and a split one has nothing that
/// would pool what its parts compute.
pub(crate) fn embeds(model: &gguf::Model) -> bool {
    !matches!(
        model.metadata().pooling(),
        Ok(None | Some(gguf::Pooling::None))
    )
}

/// Whether a model could run on several machines. Reads its header.
pub(crate) fn can_split(plan: &Plan) -> bool {
    let Source::File(path) = &plan.source else {
        return false;
    };
    let model = gguf::Model::open(path);
    model.is_ok_and(|model| gguf::LayerMap::of(&model).is_ok() && !embeds(&model))
}

/// Memory that a model will take, bytes.
pub(crate) fn needed(plan: &Plan, loader: &dyn Loader) -> Result<u64, StartError> {
    loader
        .memory_needed(plan)
        .map_err(|error| StartError::Load {
            model: plan.name.clone(),
            reason: error.to_string(),
        })
}

/// Makes the plan of one model.
pub(crate) fn plan_one(source: &ModelSource, settings: &Settings) -> Result<Plan, StartError> {
    let (name, source) = match source {
        ModelSource::Embedded { name, bytes } => (name.clone(), Source::Embedded(bytes)),
        file => {
            let path = find(file, settings)?;
            (name_of(&path), Source::File(path))
        }
    };
    let draft = match &settings.draft {
        Draft::None => DraftPlan::None,
        Draft::Auto => DraftPlan::Auto,
        Draft::Model(ModelSource::Embedded { name, .. }) => {
            return Err(StartError::NotFound {
                model: name.clone(),
                hint: "a draft model must be a file".to_owned(),
            });
        }
        Draft::Model(file) => DraftPlan::File(find(file, settings)?),
    };
    Ok(Plan {
        name,
        source,
        draft,
        context_tokens: settings.context_tokens,
        slots: settings.slots,
        gpu_layers: settings.gpu_layers,
        gpu_layers_max: None,
        device: settings.device.clone(),
        threads: settings.threads,
        queue_max: settings.queue_max,
    })
}

fn find(source: &ModelSource, settings: &Settings) -> Result<PathBuf, StartError> {
    let path = match source {
        ModelSource::Path(path) => first_part(path),
        ModelSource::Named(name) | ModelSource::Embedded { name, .. } => {
            let folders = &settings.models_dirs;
            return Search { folders }.find(name);
        }
    };
    check_readable(&path)?;
    Ok(path)
}

fn check_readable(path: &Path) -> Result<(), StartError> {
    let unreadable = |reason: String| StartError::Unreadable {
        path: path.to_path_buf(),
        reason,
    };
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unreadable("there is no such file".to_owned()),
        _ => unreadable(error.to_string()),
    })?;
    let metadata = file
        .metadata()
        .map_err(|error| unreadable(error.to_string()))?;
    if metadata.is_dir() {
        return Err(unreadable(
            "it is a folder; hint: name a file in it, or pass it with --models-dir".to_owned(),
        ));
    }
    Ok(())
}

/// Refuses models that need more than there is. `needs`: names and bytes.
pub(crate) fn check_fits(needs: &[(String, u64)], free_bytes: u64) -> Result<(), StartError> {
    let needed_bytes = needs
        .iter()
        .map(|(_, bytes)| *bytes)
        .fold(0, u64::saturating_add);
    if needed_bytes <= free_bytes {
        return Ok(());
    }
    let models = needs.iter().map(|(name, bytes)| match needs.len() {
        1 => format!("`{name}`"),
        _ => format!("`{name}` ({})", ByteSize(*bytes)),
    });
    let hint = if needs.len() > 1 {
        "serve fewer models, a smaller quantisation, or set a smaller --ctx-size or --parallel"
    } else {
        "use a smaller model or quantisation, or set a smaller --ctx-size or --parallel"
    };
    Err(StartError::Memory {
        models: models.collect(),
        needed_bytes,
        free_bytes,
        hint: hint.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::{Backend, Error};

    use super::*;
    use crate::loader::Progress;

    /// Refuses every place with the same words.
    struct Placeless(StartError);

    impl Loader for Placeless {
        fn memory_needed(&self, _: &Plan) -> Result<u64, Error> {
            Ok(10)
        }

        fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
            Err(Error::ShuttingDown)
        }

        fn memory_available(&self) -> u64 {
            100
        }

        fn check_places(&self, plans: &[&Plan]) -> Vec<Result<Option<u32>, StartError>> {
            vec![Err(self.0.clone()); plans.len()]
        }
    }

    /// Has 100 bytes for all models together, but only 10 in one place. `NEEDED-TAKES` is the name of a model that takes
    /// so many of those.
    struct Narrow;

    fn number(plan: &Plan, index: usize) -> u32 {
        let part = plan.name.split('-').nth(index).unwrap();
        part.parse().unwrap()
    }

    impl Loader for Narrow {
        fn memory_needed(&self, plan: &Plan) -> Result<u64, Error> {
            Ok(number(plan, 0).into())
        }

        fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
            Err(Error::ShuttingDown)
        }

        fn memory_available(&self) -> u64 {
            100
        }

        fn check_places(&self, plans: &[&Plan]) -> Vec<Result<Option<u32>, StartError>> {
            let mut free = 10;
            let mut places = Vec::new();
            for plan in plans {
                let takes = number(plan, 1);
                places.push(if takes <= free {
                    free -= takes;
                    Ok(Some(takes))
                } else {
                    Err(StartError::Memory {
                        models: vec![plan.name.clone()],
                        needed_bytes: takes.into(),
                        free_bytes: free.into(),
                        hint: String::new(),
                    })
                });
            }
            places
        }
    }

    #[test]
    fn models_are_placed_beside_earlier_ones() {
        let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(format!("{name}.gguf"));
        for name in ["6-6", "7-6", "8-8", "1-11"] {
            std::fs::copy(starter, path(name)).unwrap();
        }
        // An empty file can't be split.
        std::fs::write(path("9-4"), b"").unwrap();
        let check = |split, names: &[&str], whole: &[&str], parted: &[&str]| {
            let models = names.iter().map(|name| ModelSource::Path(path(name)));
            let settings = Settings {
                models: models.collect(),
                split,
                ..Settings::default()
            };
            let plans = plan(&settings, &Narrow).unwrap();
            let found: Vec<&str> = plans.whole.iter().map(|(p, _)| p.name.as_str()).collect();
            assert_eq!(found, whole, "{names:?}");
            let found: Vec<&str> = plans.split.iter().map(|p| p.name.as_str()).collect();
            assert_eq!(found, parted, "{names:?}");
            // What is promised to those behind is kept for them, and nobody is behind the last one.
            let ((last, _), others) = plans.whole.split_last().unwrap();
            assert_eq!(last.gpu_layers_max, None);
            for (plan, _) in others {
                assert_eq!(plan.gpu_layers_max, Some(number(plan, 1)));
            }
            assert!(plans.split.iter().all(|p| p.gpu_layers_max.is_none()));
        };
        check(SplitModels::Never, &["6-6", "9-4"], &["6-6", "9-4"], &[]);
        let check = |names: &[&str], whole: &[&str], parted: &[&str]| {
            check(SplitModels::IfNeeded, names, whole, parted);
        };
        // The largest that can gives way, wherever it stands.
        check(&["7-6", "6-6"], &["6-6"], &["7-6"]);
        check(&["6-6", "7-6"], &["6-6"], &["7-6"]);
        check(&["8-8", "9-4", "6-6"], &["9-4", "6-6"], &["8-8"]);
        check(&["6-6", "8-8", "7-6"], &["6-6"], &["8-8", "7-6"]);
        // But no other one for what has no place at all.
        check(&["8-8", "1-11"], &["8-8"], &["1-11"]);
        // Without splitting it is refused before anything is loaded.
        let settings = Settings {
            models: ["8-8", "9-4"]
                .map(|name| ModelSource::Path(path(name)))
                .into(),
            ..Settings::default()
        };
        let Err(StartError::Memory {
            models, free_bytes, ..
        }) = plan(&settings, &Narrow)
        else {
            panic!("both have a place");
        };
        assert_eq!((models, free_bytes), (vec!["9-4".to_owned()], 2));
    }

    #[test]
    fn a_model_without_a_place_is_refused_or_split() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, b"").unwrap();
        let mut settings = Settings {
            models: vec![ModelSource::Path(path)],
            split: SplitModels::IfNeeded,
            ..Settings::default()
        };
        let short = StartError::Memory {
            models: vec!["`m`".into()],
            needed_bytes: 10,
            free_bytes: 5,
            hint: "use a smaller model".into(),
        };
        let wrong = StartError::Load {
            model: "m".into(),
            reason: "--gpu-layers 9 is too much".into(),
        };
        for error in [short.clone(), wrong] {
            // An empty file can't be split.
            let plans = plan(&settings, &Placeless(error.clone()));
            assert_eq!(plans.map(|_| ()), Err(error));
        }
        // What is split anyway needs no place here.
        settings.split = SplitModels::Always;
        let plans = plan(&settings, &Placeless(short)).unwrap();
        assert_eq!((plans.whole.len(), plans.split.len()), (0, 1));
    }
}
