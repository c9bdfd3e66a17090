//! What to load: finds the files, names the models, and checks that they fit into memory, all
//! before anything is loaded.

use std::fs::File;
use std::path::{Path, PathBuf};

use engine::Error;

use crate::loader::{DraftPlan, Loader, Plan, Source};
use crate::memory::ByteSize;
use crate::source::{Search, first_part, name_of};
use crate::{Draft, ModelSource, Settings, StartError};

/// Makes the plans of all models of `settings`, or says why they can't be loaded together.
pub(crate) fn plan(settings: &Settings, loader: &dyn Loader) -> Result<Vec<Plan>, StartError> {
    let mut plans: Vec<Plan> = Vec::new();
    for source in &settings.models {
        let plan = plan_one(source, settings)?;
        if plans.iter().any(|known| known.name == plan.name) {
            return Err(StartError::Duplicate { name: plan.name });
        }
        plans.push(plan);
    }
    check_memory(&plans, loader)?;
    Ok(plans)
}

fn plan_one(source: &ModelSource, settings: &Settings) -> Result<Plan, StartError> {
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

fn check_memory(plans: &[Plan], loader: &dyn Loader) -> Result<(), StartError> {
    let mut needed_bytes: u64 = 0;
    let mut models = Vec::new();
    for plan in plans {
        let needed = loader
            .memory_needed(plan)
            .map_err(|error| load_error(plan, &error))?;
        needed_bytes = needed_bytes.saturating_add(needed);
        models.push(match plans.len() {
            1 => format!("`{}`", plan.name),
            _ => format!("`{}` ({})", plan.name, ByteSize(needed)),
        });
    }
    let free_bytes = loader.memory_available();
    if needed_bytes <= free_bytes {
        return Ok(());
    }
    let hint = if plans.len() > 1 {
        "serve fewer models, a smaller quantisation, or set a smaller --ctx-size or --parallel"
    } else {
        "use a smaller model or quantisation, or set a smaller --ctx-size or --parallel"
    };
    Err(StartError::Memory {
        models,
        needed_bytes,
        free_bytes,
        hint: hint.to_owned(),
    })
}

fn load_error(plan: &Plan, error: &Error) -> StartError {
    StartError::Load {
        model: plan.name.clone(),
        reason: error.to_string(),
    }
}
