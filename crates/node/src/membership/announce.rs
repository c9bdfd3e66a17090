//! What this node says of itself in the mesh.

use std::collections::{BTreeMap, BTreeSet};

use mesh::Role;
use mesh::announcement::{
    LOCAL_MODELS_MAX, Model, ModelRate, NodeInfo, NodeState, RATES_MAX, ServedModel, SplitModel,
    WANTED_MODELS_MAX,
};
use mesh::proto::View;

use crate::directory;
use crate::library::Volume;
use crate::models::{Hosting, Purpose, Table, is_auto};
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
    let held = held(&table, view, library, &rates);
    let unserved = (rates.iter()).filter(|(name, _)| !is_auto(name) && !is_served(name));
    let wanted = hottest(unserved, &held, WANTED_MODELS_MAX);
    let hottest = hottest(rates.iter(), &held, RATES_MAX);
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
        wanted: (wanted.into_keys())
            .map(|name| Model {
                name: name.to_owned(),
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
        rates: (hottest.into_iter())
            .map(|(model, per_minute)| ModelRate {
                model: model.to_owned(),
                per_minute,
            })
            .collect(),
        splits: table.splits().filter_map(split).collect(),
    };
    info.trim();
    info
}

/// Names among `rates` that somebody in the mesh serves or has on disk. None while all of them are told
/// anyway.
fn held<'a>(
    table: &Table,
    view: Option<&View>,
    library: &[Volume],
    rates: &'a BTreeMap<String, f32>,
) -> BTreeSet<&'a str> {
    if rates.len() <= WANTED_MODELS_MAX.min(RATES_MAX) {
        return BTreeSet::new();
    }
    let members = view.into_iter().flat_map(|view| view.alive());
    let elsewhere = members.flat_map(|member| {
        let info = &member.announcement().info;
        let served = info.serving.iter().map(|served| &served.model);
        let split = info.splits.iter().map(|split| &split.model);
        let models = served.chain(split).chain(&info.local);
        models.map(|model| model.name.as_str())
    });
    let here = table.names();
    let on_disk = library.iter().map(|volume| volume.name.as_str());
    let names = elsewhere
        .chain(here.iter().map(String::as_str))
        .chain(on_disk);
    names
        .filter_map(|name| rates.get_key_value(name))
        .map(|(name, _)| name.as_str())
        .collect()
}

/// The models that are asked for most, so many at most. Those that somebody has come before all others,
/// because anybody can ask for names that nobody has. By name, so that what is told changes with
/// the choice alone.
fn hottest<'a>(
    rates: impl Iterator<Item = (&'a String, &'a f32)>,
    held: &BTreeSet<&str>,
    count_max: usize,
) -> BTreeMap<&'a str, f32> {
    let mut rates: Vec<(&str, f32)> = rates
        .map(|(name, per_minute)| (name.as_str(), *per_minute))
        .collect();
    rates.sort_by(|(a, rate_a), (b, rate_b)| {
        let by_holder = held.contains(b).cmp(&held.contains(a));
        by_holder.then(rate_b.total_cmp(rate_a)).then(a.cmp(b))
    });
    rates.truncate(count_max);
    rates.into_iter().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// More made-up names than are told, all at the front of the alphabet.
    fn made_up() -> BTreeMap<String, f32> {
        (0..RATES_MAX + 4)
            .map(|number| (format!("aa{number:02}"), 2.0))
            .collect()
    }

    #[test]
    fn made_up_names_do_not_hide_what_is_asked_for_most() {
        let mut rates = made_up();
        rates.insert("zebra".into(), 50.0);
        rates.insert("yak".into(), 1.0);
        let nobody = BTreeSet::new();
        for count_max in [1, WANTED_MODELS_MAX, RATES_MAX] {
            let told = hottest(rates.iter(), &nobody, count_max);
            assert_eq!(told.len(), count_max);
            assert_eq!(told.get("zebra"), Some(&50.0), "{told:?}");
            assert!(!told.contains_key("yak"), "{told:?}");
        }
        // What somebody has comes first, however much is asked for the rest.
        let held = BTreeSet::from(["yak"]);
        let told = hottest(rates.iter(), &held, 1);
        assert_eq!(told, BTreeMap::from([("yak", 1.0)]));
        let told = hottest(rates.iter(), &held, 2);
        assert_eq!(told, BTreeMap::from([("yak", 1.0), ("zebra", 50.0)]));
    }

    #[test]
    fn what_is_on_disk_is_known_among_many_names() {
        let mut rates = made_up();
        rates.insert("yak".into(), 1.0);
        let volume = |name: &str| Volume {
            name: name.into(),
            path: "x.gguf".into(),
            fingerprint: String::new(),
            size_bytes: 1,
            context_tokens: 1,
            needed_bytes: 1,
            can_split: false,
        };
        let library = [volume("yak"), volume("nobody asks for it")];
        let held = held(&Table::default(), None, &library, &rates);
        assert_eq!(held, BTreeSet::from(["yak"]));
    }
}
