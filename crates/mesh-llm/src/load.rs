//! `mesh-llm load` and `drop`: the models of the running node.

use std::path::Path;
use std::time::{Duration, Instant};

use api::management::{Model, ModelNamed, ModelPhase, ModelRequest, Status};
use serde_json::json;

use crate::console::Console;
use crate::control::Control;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::settings::Settings;

/// How often the node is asked how far it is: a bar that moves, and no work to speak of.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A model that is split is waited for so long while other machines are looked for. Then only a person
/// can help, who is told how.
const MACHINES_WAIT_MAX: Duration = Duration::from_secs(10);

/// Lets the running node load a model, and waits until it answers, or waits for other machines.
pub(crate) async fn load(settings: &Settings, model: &str) -> Result<(), Failure> {
    let console = Console::new(settings.log_format);
    let control = Control::new(settings)?;
    let request = ModelRequest {
        model: absolute(model)?,
    };
    let ModelNamed { model } = control.post("/api/models/load", &request).await?;
    let mut progress = Progress::new(console);
    let mut waits_since = None;
    let ended = loop {
        let status: Status = control.get("/api/status").await?;
        let found = status.models.iter().find(|found| found.name == model);
        match found.filter(|found| found.state == ModelPhase::Waiting) {
            Some(found) => {
                let since = *waits_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= MACHINES_WAIT_MAX {
                    progress.clear();
                    waits(console, found);
                    return Ok(());
                }
            }
            None => waits_since = None,
        }
        if let Some(ended) =
            found.map_or_else(|| Some(gone(&model)), |found| judge(found, &mut progress))
        {
            break ended;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    progress.clear();
    ended?;
    console.say(&format!("`{model}` is ready"));
    console.event("model_ready", json!({ "model": model }));
    Ok(())
}

/// Says what a model waits for.
fn waits(console: Console, model: &Model) {
    let (name, reason) = (&model.name, model.reason.as_deref().unwrap_or_default());
    console.say(&format!("`{name}` waits: {reason}"));
    console.event("model_waits", json!({ "model": name, "reason": reason }));
}

fn gone(model: &str) -> Result<(), Failure> {
    Err(Failure::model(format!(
        "`{model}` went before it was ready; hint: `mesh-llm status` shows what the node serves"
    )))
}

/// How it ended, if it did.
fn judge(model: &Model, progress: &mut Progress) -> Option<Result<(), Failure>> {
    match model.state {
        ModelPhase::Ready | ModelPhase::Elsewhere => Some(Ok(())),
        ModelPhase::Failed => {
            let reason = model.reason.as_deref().unwrap_or("it can't be loaded");
            Some(Err(Failure::model(reason)))
        }
        ModelPhase::Loading => {
            progress.show(&model.name, model.progress);
            None
        }
        ModelPhase::Dropping => Some(gone(&model.name)),
        ModelPhase::Waiting | ModelPhase::Other => None,
    }
}

/// Lets the running node drop a model.
pub(crate) async fn drop(settings: &Settings, model: &str) -> Result<(), Failure> {
    let request = ModelRequest {
        model: model.to_owned(),
    };
    let control = Control::new(settings)?;
    let ModelNamed { model } = control.post("/api/models/drop", &request).await?;
    let console = Console::new(settings.log_format);
    console.say(&format!(
        "`{model}` takes no new requests; its memory is free once running answers have ended"
    ));
    console.event("dropping", json!({ "model": model }));
    Ok(())
}

/// A file's path as the node, which runs in another folder, finds it too.
fn absolute(model: &str) -> Result<String, Failure> {
    let node::ModelSource::Path(path) = node::ModelSource::parse(model) else {
        return Ok(model.to_owned());
    };
    let path = std::path::absolute(&path)
        .map_err(|error| Failure::other(format!("can't find {}: {error}", path.display())))?;
    let text = |path: &Path| path.to_str().map(str::to_owned);
    text(&path).ok_or_else(|| {
        Failure::other(format!(
            "{} is not UTF-8; hint: rename the file",
            path.display()
        ))
    })
}
