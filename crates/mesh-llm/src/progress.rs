//! How far models are: a bar for a person, steps for a program.

use indicatif::{ProgressBar, ProgressStyle};
use node::{ModelState, Node};
use serde_json::json;

use crate::console::Console;

/// A program is told of loading in steps of this share.
const STEP: f32 = 0.1;

/// Shows how far the models are, until all are ready or one has failed.
pub(crate) async fn show_loading(node: &Node, console: Console) {
    let mut watch = node.watch();
    let mut progress = Progress::new(console);
    loop {
        let snapshot = watch.borrow_and_update().clone();
        let is_failed =
            |model: &node::ModelStatus| matches!(model.state, ModelState::Failed { .. });
        // What waits for other machines is not loaded here.
        let waits = |model: &node::ModelStatus| {
            matches!(
                model.state,
                ModelState::Ready | ModelState::Waiting { .. } | ModelState::Elsewhere { .. }
            )
        };
        if snapshot.models.iter().all(waits) || snapshot.models.iter().any(is_failed) {
            break;
        }
        let loading = snapshot.models.iter().find_map(|model| match model.state {
            ModelState::Loading { progress } => Some((&model.name, progress)),
            _ => None,
        });
        if let Some((name, share)) = loading {
            progress.show(name, share);
        }
        if watch.changed().await.is_err() {
            break;
        }
    }
    progress.clear();
}

/// The bar, or the events, of the model that is being loaded.
pub(crate) struct Progress {
    console: Console,
    bar: Option<(String, ProgressBar)>,
    told: Option<(String, f32)>,
}

impl Progress {
    pub(crate) fn new(console: Console) -> Self {
        Self {
            console,
            bar: None,
            told: None,
        }
    }

    /// That `model` is loaded to this share, 0 to 1.
    pub(crate) fn show(&mut self, model: &str, share: f32) {
        if self.console.is_json() {
            let is_news = match &self.told {
                Some((told, before)) => told != model || share >= before + STEP,
                None => true,
            };
            if is_news {
                self.told = Some((model.to_owned(), share));
                self.console
                    .event("loading", json!({ "model": model, "progress": share }));
            }
            return;
        }
        if !self.console.is_watched() {
            return;
        }
        if self.bar.as_ref().is_none_or(|(shown, _)| shown != model) {
            self.clear();
            self.bar = Some((model.to_owned(), bar(model)));
        }
        if let Some((_, bar)) = &self.bar {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share between 0 and 1"
            )]
            bar.set_position((share * 100.0) as u64);
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(model: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("loading {msg} {bar:30} {percent} %")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(100)
        .with_style(style)
        .with_message(model.to_owned())
}
