//! What happens while the node serves, told as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh::MeshId;
use mesh::proto::Liveness;
use node::{Layout, ModelState, Node, Snapshot};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::console::Console;
use crate::progress::Progress;

/// Who tells what changes.
pub(super) struct Teller {
    console: Console,
    watch: watch::Receiver<Arc<Snapshot>>,
    /// The state as it was told.
    before: Arc<Snapshot>,
}

impl Teller {
    /// Knows the state of this moment, and will tell what changes from now on.
    pub(super) fn new(node: &Node, console: Console) -> Self {
        let mut watch = node.watch();
        let before = watch.borrow_and_update().clone();
        Self {
            console,
            watch,
            before,
        }
    }

    /// Tells, until the node is gone.
    pub(super) async fn tell(mut self) {
        let mut progress = Progress::new(self.console);
        loop {
            show_progress(&self.before, &mut progress);
            if self.watch.changed().await.is_err() {
                progress.clear();
                return;
            }
            let now = self.watch.borrow_and_update().clone();
            for news in news(&self.before, &now) {
                progress.clear();
                self.console.say(&news.sentence());
                let (name, fields) = news.event();
                self.console.event(name, fields);
            }
            self.before = now;
        }
    }
}

fn show_progress(snapshot: &Snapshot, progress: &mut Progress) {
    let loading = snapshot.models.iter().find_map(|model| match model.state {
        ModelState::Loading { progress } => Some((&model.name, progress)),
        _ => None,
    });
    match loading {
        Some((name, share)) => progress.show(name, share),
        None => progress.clear(),
    }
}

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    ModelReady {
        model: String,
        /// How it lies over several machines, if it does.
        layout: Option<String>,
    },
    /// A machine of a split model is lost; its streams wait.
    ModelPauses {
        model: String,
        reason: String,
    },
    /// A split model runs on other machines than before, or again.
    ModelGoesOn {
        model: String,
        layout: String,
    },
    ModelFailed {
        model: String,
        reason: String,
    },
    /// It waits for machines, or for memory.
    ModelWaits {
        model: String,
        reason: String,
    },
    /// All of it runs on another machine.
    ModelWhole {
        model: String,
        host: String,
    },
    ModelGone(String),
    Joined {
        mesh: MeshId,
        name: Option<String>,
    },
    Left(MeshId),
    PeerCame {
        id: String,
        name: String,
    },
    PeerLeft {
        id: String,
        name: String,
        said_goodbye: bool,
    },
}

impl News {
    fn sentence(&self) -> String {
        match self {
            Self::ModelReady {
                model,
                layout: None,
            } => format!("`{model}` is ready"),
            Self::ModelReady {
                model,
                layout: Some(layout),
            } => format!("model `{model}` is ready {layout}"),
            Self::ModelPauses { model, reason } => format!("`{model}` pauses: {reason}"),
            Self::ModelGoesOn { model, layout } => format!("model `{model}` goes on {layout}"),
            Self::ModelFailed { model, reason } => format!("`{model}` failed: {reason}"),
            Self::ModelWaits { model, reason } => format!("`{model}` waits: {reason}"),
            Self::ModelWhole { model, host } => format!("model `{model}` runs whole on {host}"),
            Self::ModelGone(model) => format!("`{model}` is dropped"),
            Self::Joined { mesh, name } => {
                let short = mesh.short();
                format!("in the mesh {}", name.as_deref().unwrap_or(&short))
            }
            Self::Left(mesh) => format!("out of the mesh {}", mesh.short()),
            Self::PeerCame { name, id } => format!("{name} ({}) is here", short(id)),
            Self::PeerLeft {
                name,
                id,
                said_goodbye: true,
            } => format!("{name} ({}) left", short(id)),
            Self::PeerLeft { name, id, .. } => format!("{name} ({}) is gone", short(id)),
        }
    }

    fn event(&self) -> (&'static str, Value) {
        match self {
            Self::ModelReady {
                model,
                layout: None,
            } => ("model_ready", json!({ "model": model })),
            Self::ModelReady {
                model,
                layout: Some(layout),
            } => ("model_ready", json!({ "model": model, "layout": layout })),
            Self::ModelPauses { model, reason } => {
                ("model_pauses", json!({ "model": model, "reason": reason }))
            }
            Self::ModelGoesOn { model, layout } => {
                ("model_goes_on", json!({ "model": model, "layout": layout }))
            }
            Self::ModelFailed { model, reason } => {
                ("model_failed", json!({ "model": model, "reason": reason }))
            }
            Self::ModelWaits { model, reason } => {
                ("model_waits", json!({ "model": model, "reason": reason }))
            }
            Self::ModelWhole { model, host } => {
                ("model_elsewhere", json!({ "model": model, "host": host }))
            }
            Self::ModelGone(model) => ("model_gone", json!({ "model": model })),
            Self::Joined { mesh, name } => (
                "joined",
                json!({ "mesh_id": mesh.to_string(), "name": name }),
            ),
            Self::Left(mesh) => ("left", json!({ "mesh_id": mesh.to_string() })),
            Self::PeerCame { id, name } => ("peer_came", json!({ "node_id": id, "name": name })),
            Self::PeerLeft {
                id,
                name,
                said_goodbye,
            } => (
                "peer_left",
                json!({ "node_id": id, "name": name, "said_goodbye": said_goodbye }),
            ),
        }
    }
}

fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

/// What changed between two states. Pure.
fn news(before: &Snapshot, now: &Snapshot) -> Vec<News> {
    let mut news = Vec::new();
    of_models(before, now, &mut news);
    of_mesh(before, now, &mut news);
    news
}

fn of_models(before: &Snapshot, now: &Snapshot, news: &mut Vec<News>) {
    let earlier = |name: &str| before.models.iter().find(|model| model.name == name);
    for model in &now.models {
        let was = earlier(&model.name).map(|model| &model.state);
        match &model.state {
            ModelState::Ready if was != Some(&ModelState::Ready) => {
                let layout = model.layout.as_deref().map(ToString::to_string);
                let model = model.name.clone();
                news.push(News::ModelReady { model, layout });
            }
            ModelState::Ready => {
                let was = earlier(&model.name).and_then(|was| was.layout.as_deref());
                let is = model.layout.as_deref();
                news.extend(
                    was.zip(is)
                        .and_then(|(was, is)| of_layout(&model.name, was, is)),
                );
            }
            ModelState::Failed { reason } if was != Some(&model.state) => {
                news.push(News::ModelFailed {
                    model: model.name.clone(),
                    reason: reason.clone(),
                });
            }
            ModelState::Waiting { reason } if !waited_so(was, reason) => {
                news.push(News::ModelWaits {
                    model: model.name.clone(),
                    reason: reason.clone(),
                });
            }
            ModelState::Elsewhere { host } if was != Some(&model.state) => {
                news.push(News::ModelWhole {
                    model: model.name.clone(),
                    host: host.clone(),
                });
            }
            _ => {}
        }
    }
    let left: BTreeSet<&str> = now.models.iter().map(|model| model.name.as_str()).collect();
    let gone = before
        .models
        .iter()
        .filter(|model| !left.contains(model.name.as_str()));
    news.extend(gone.map(|model| News::ModelGone(model.name.clone())));
}

/// What happened to a split model that was ready before and is.
fn of_layout(model: &str, was: &Layout, is: &Layout) -> Option<News> {
    let model = model.to_owned();
    match (&was.waiting, &is.waiting) {
        (None, Some(reason)) => Some(News::ModelPauses {
            model,
            reason: reason.clone(),
        }),
        (waited, None) if waited.is_some() || was.stages != is.stages => Some(News::ModelGoesOn {
            model,
            layout: is.to_string(),
        }),
        _ => None,
    }
}

/// Whether a model waited for the same thing before. Numbers in a reason change all the time.
fn waited_so(was: Option<&ModelState>, reason: &str) -> bool {
    let gist = |text: &str| -> String { text.chars().filter(|c| !c.is_ascii_digit()).collect() };
    match was {
        Some(ModelState::Waiting { reason: before }) => gist(before) == gist(reason),
        _ => false,
    }
}

fn of_mesh(before: &Snapshot, now: &Snapshot, news: &mut Vec<News>) {
    let (was, is) = (before.mesh.as_deref(), now.mesh.as_deref());
    let same = was.map(|mesh| mesh.id) == is.map(|mesh| mesh.id);
    if !same {
        news.extend(was.map(|mesh| News::Left(mesh.id)));
        news.extend(is.map(|mesh| News::Joined {
            mesh: mesh.id,
            name: mesh.name.clone(),
        }));
    }
    let (Some(was), Some(is)) = (was.filter(|_| same), is) else {
        return;
    };
    let lives = |liveness| matches!(liveness, Liveness::Alive | Liveness::Suspect);
    let lived: BTreeMap<_, bool> = (was.members.iter())
        .map(|member| (member.id, lives(member.liveness)))
        .collect();
    for member in is.members.iter().filter(|member| member.id != is.me) {
        let id = member.id.to_string();
        let name: String = member
            .machine
            .name
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        match (
            lived.get(&member.id).copied().unwrap_or(false),
            lives(member.liveness),
        ) {
            (false, true) => news.push(News::PeerCame { id, name }),
            (true, false) => news.push(News::PeerLeft {
                id,
                name,
                said_goodbye: member.liveness == Liveness::Left,
            }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
