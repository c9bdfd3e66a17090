//! What this node says of itself in the mesh.

use mesh::Role;
use mesh::announcement::{
    LOCAL_MODELS_MAX, Model, ModelRate, NodeInfo, NodeState, RATES_MAX, ServedModel, SplitModel,
    WANTED_MODELS_MAX,
};
use mesh::proto::View;

use crate::directory;
use crate::library::Volume;
use crate::models::{Hosting, Purpose, is_auto};
use crate::node::Shared;

/// What the node says before it has looked around.
pub(super) fn first_info(shared: &Shared, role: Role) -> NodeInfo {
    info(shared, None, &[], role)
}

/// What the node is, has and serves at this moment.
pub(super) fn info(
    shared: &Shared,
    view: Option<&View>,
    library: &[Volume],
    role: Role,
) -> NodeInfo {
    let machine = shared.machine.borrow().clone();
    let table = shared.models.table();
    let rates = shared.ingress.rates();
    // A node that is about to stop serves nothing new.
    let ready = table.ready().filter(|_| !table.shutting_down);
    let serving: Vec<ServedModel> = ready
        .map(|backend| {
            let (info, load) = (backend.info(), backend.load());
            ServedModel {
                model: Model {
                    name: info.name.clone(),
                    fingerprint: info.fingerprint.clone(),
                    size_bytes: info.size_bytes,
                    context_length: info.context_tokens,
                    draft: false,
                    embeds: info.embeds,
                },
                slots: info.slots,
                busy: load.running,
                queued: load.waiting,
            }
        })
        .collect();
    let state = match role {
        Role::Client => NodeState::Client,
        Role::Serve if !serving.is_empty() => NodeState::Serving,
        Role::Serve if table.is_loading() => NodeState::Joining,
        Role::Serve => NodeState::Standby,
    };
    let is_served = |name: &str| directory::find(&table, view, name, Purpose::Generate).is_some();
    let wanted = rates
        .keys()
        .filter(|name| !is_auto(name) && !is_served(name));
    let mut info = NodeInfo {
        state,
        name: machine.name,
        region: machine.region,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_unix_ms: shared.started_unix_ms(),
        // Filled in by the mesh.
        addresses: Vec::new(),
        devices: machine.devices,
        memory_total_bytes: machine.memory_total_bytes,
        // Nobody is to plan with a node that is about to stop.
        memory_free_bytes: match table.shutting_down {
            true => 0,
            false => machine.memory_free_bytes,
        },
        compute: shared.compute.get().copied(),
        wanted: wanted
            .take(WANTED_MODELS_MAX)
            .map(|name| Model {
                name: name.clone(),
                ..Model::default()
            })
            .collect(),
        local: (library.iter().take(LOCAL_MODELS_MAX))
            .map(|volume| Model {
                name: volume.name.clone(),
                fingerprint: volume.fingerprint.clone(),
                size_bytes: volume.size_bytes,
                context_length: volume.context_tokens,
                ..Model::default()
            })
            .collect(),
        serving,
        rates: (rates.iter().take(RATES_MAX))
            .map(|(model, per_minute)| ModelRate {
                model: model.clone(),
                per_minute: *per_minute,
            })
            .collect(),
        splits: table.splits().filter_map(split).collect(),
    };
    info.trim();
    info
}

/// What others are told of a model over several machines, if this node hosts it.
fn split(hosting: Hosting) -> Option<SplitModel> {
    let facts = hosting.facts;
    Some(SplitModel {
        model: Model {
            name: hosting.name,
            fingerprint: facts.fingerprint,
            size_bytes: facts.size_bytes,
            context_length: facts.context_tokens,
            ..Model::default()
        },
        slots: facts.slots,
        term: hosting.term?,
        stage: hosting.stage,
        forced: facts.forced,
        host_bytes: facts.host_bytes,
    })
}
