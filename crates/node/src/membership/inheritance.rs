//! Carries out what `succession` decides: models over several machines that this node hosts, leaves to
//! another, or takes over from a host that is lost.

use std::path::Path;
use std::sync::Arc;

use mesh::announcement::SplitModel;

use super::{Done, Keeper, LOADS_MAX};
use crate::loader::{DraftPlan, Plan, Source};
use crate::node::Shared;
use crate::store;
use crate::succession::{Scene, Step, members};
use crate::{Draft, Settings, SplitModels};

/// How to load a model from its file, the first if there are several, under a name that others have for it; a context or
/// number of slots that is 0 is this node's own.
pub(super) fn plan_as(
    name: &str,
    path: &Path,
    context_tokens: u32,
    slots: u32,
    settings: &Settings,
) -> Plan {
    let file = Source::File(path.to_path_buf());
    let mut plan = store::plan(name.to_owned(), file, settings);
    if settings.draft == Draft::Auto {
        plan.draft = DraftPlan::Auto;
    }
    if context_tokens > 0 {
        plan.context_tokens = Some(context_tokens);
    }
    if slots > 0 {
        plan.slots = Some(slots);
    }
    plan
}

impl Keeper {
    /// Looks who hosts what, and does what follows.
    pub(super) fn succeed(&mut self, shared: &Arc<Shared>) {
        let view = self.mesh.view().borrow().clone();
        let (own, is_open) = {
            let table = shared.models.table();
            (table.splits().collect(), !table.shutting_down)
        };
        let members = members(&view);
        let scene = Scene {
            now_ms: shared.ingress.now_ms(),
            me: view.me,
            members: &members,
            own,
            local: (self.library.iter())
                .map(|volume| volume.fingerprint.clone())
                .collect(),
            willing: is_open
                && self.mesh.role() == mesh::Role::Serve
                && shared.settings.split != SplitModels::Never,
        };
        for step in self.successor.decide(&scene) {
            match step {
                Step::Begin { id, term, follows } => {
                    shared.models.split_begins(id, term, follows);
                }
                Step::Yield { id, to } => {
                    let member = view.member(to);
                    let name = member.map(|member| member.announcement().info.name.clone());
                    let name = name.filter(|name| !name.is_empty());
                    let name = name.unwrap_or_else(|| to.short());
                    if shared.models.split_yields(id, format!("{name} hosts it")) {
                        tracing::info!(host = name, "another node hosts a split model");
                    }
                }
                Step::TakeOver { split } => self.take_over(shared, &split),
            }
        }
    }

    fn take_over(&mut self, shared: &Arc<Shared>, split: &SplitModel) {
        let fingerprint = &split.model.fingerprint;
        let volume = self.library.iter().find(|v| v.fingerprint == *fingerprint);
        let Some(volume) = volume else {
            return;
        };
        let model = &split.model.name;
        let status = shared.models.table().status();
        if status.iter().any(|known| known.name == *model) {
            // Another model that is called so, or this one, which has failed.
            return;
        }
        tracing::info!(model, "taking over a model whose host is lost");
        // Under the name that it had, whatever the file is called here.
        let (context_tokens, slots) = (split.model.context_length, split.slots);
        let plan = plan_as(model, &volume.path, context_tokens, slots, &shared.settings);
        let me = self.mesh.node_id();
        let view = self.mesh.view().borrow().clone();
        let has_others = view.alive().any(|member| {
            let is_other = member.node != me && member.role() == mesh::Role::Serve;
            is_other && member.liveness == mesh::proto::Liveness::Alive
        });
        let free_bytes = shared.models.free_bytes(shared.settings.memory_bytes_max);
        if has_others || volume.needed_bytes > free_bytes {
            shared.begin_split(plan, false, split.forced);
        } else {
            self.load_whole(shared, plan);
        }
    }

    /// Nobody is left to split a model with, and it fits here.
    fn load_whole(&mut self, shared: &Arc<Shared>, plan: Plan) {
        if self.loads >= LOADS_MAX {
            return;
        }
        self.loads += 1;
        let shared = Arc::clone(shared);
        self.tasks.spawn(async move {
            let settings = &shared.settings;
            let loaded = shared.models.load_planned(plan, settings, false).await;
            if let Err(error) = loaded {
                tracing::warn!(%error, "a model could not be taken over");
            }
            Done::Load
        });
    }
}
