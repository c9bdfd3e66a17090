//! What decides which models this node takes up: the mesh and the node as they are at the moment.

use mesh::Role;
use mesh::announcement::{NodeInfo, SplitStage};
use mesh::proto::{Liveness, View};

use super::Keeper;
use crate::library::Volume;
use crate::node::Shared;
use crate::promotion::{Fitting, Member, Scene};
use crate::{Settings, SplitModels, picture};

impl Keeper {
    /// What `promotion` decides from.
    pub(super) fn scene(&self, shared: &Shared) -> Scene {
        let view = self.mesh.view().borrow().clone();
        let table = shared.models.table();
        let free_bytes = shared.machine.borrow().memory_free_bytes;
        let own = table.names();
        let failed: Vec<String> = (table.status().into_iter())
            .filter(|model| matches!(model.state, crate::ModelState::Failed { .. }))
            .map(|model| model.name)
            .collect();
        let others = view
            .alive()
            .filter(|member| member.node != view.me)
            .map(|member| {
                let info = &member.announcement().info;
                Member {
                    node: member.node,
                    standby: info.state == mesh::announcement::NodeState::Standby,
                    serving: serving(info),
                    local: (info.local.iter())
                        .map(|model| {
                            let has_room = model.size_bytes <= info.memory_free_bytes;
                            (model.name.clone(), has_room)
                        })
                        .collect(),
                }
            });
        let me = Member {
            node: view.me,
            standby: own.is_empty(),
            serving: own,
            // By the measure that others have for this node.
            local: (self.library.iter())
                .map(|volume| (volume.name.clone(), volume.size_bytes <= free_bytes))
                .collect(),
        };
        let settings = &shared.settings;
        let demand = picture::demand(&shared.ingress.rates(), Some(&view));
        let shared_bytes = shared_bytes(&view, settings).saturating_add(free_bytes);
        // What is asked for may be split; to do that unasked would take memory that others want.
        let splits = |volume: &Volume| {
            volume.can_split
                && demand.contains_key(&volume.name)
                && volume.needed_bytes <= shared_bytes
        };
        let fits = |volume: &&Volume| {
            let fits = volume.needed_bytes <= free_bytes || splits(volume);
            fits && !failed.contains(&volume.name)
        };
        Scene {
            now_ms: shared.ingress.now_ms(),
            me: view.me,
            members: others.chain([me]).collect(),
            fitting: (self.library.iter().filter(fits))
                .map(|volume| Fitting {
                    name: volume.name.clone(),
                    size_bytes: volume.size_bytes,
                })
                .collect(),
            demand,
            willing: self.mesh.role() == Role::Serve
                && !table.shutting_down
                && !table.is_loading()
                && !self.library.is_empty(),
            wants_assignment: settings.models.is_empty() && !settings.mesh.standby,
        }
    }
}

/// Memory that others could give to a split model, bytes.
fn shared_bytes(view: &View, settings: &Settings) -> u64 {
    if settings.split == SplitModels::Never {
        return 0;
    }
    let others = view.alive().filter(|member| {
        member.node != view.me && member.role() == Role::Serve && member.liveness == Liveness::Alive
    });
    others
        .map(|member| member.announcement().info.memory_free_bytes)
        .fold(0, u64::saturating_add)
}

/// Models that answer at a node, or will: what it brings up over several machines is taken care of.
fn serving(info: &NodeInfo) -> Vec<String> {
    let comes = info
        .splits
        .iter()
        .filter(|split| split.stage != SplitStage::Waiting);
    let served = info.serving.iter().map(|served| &served.model);
    let models = served.chain(comes.map(|split| &split.model));
    models.map(|model| model.name.clone()).collect()
}
