//! From the parts of a node to the [`Snapshot`] that front ends see.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh::announcement::{NodeInfo, NodeState};
use mesh::proto::{Member, View};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::directory;
use crate::models::Table;
use crate::node::Shared;
use crate::snapshot::{Demand, HostedModel, Machine, MemberStatus, MeshStatus, Role, Snapshot};
use crate::{Settings, available_bytes};

/// Free memory is told in steps of so many bytes: it changes all the time.
const MEMORY_STEP_BYTES: u64 = 64 << 20;

/// Requests per minute below this are not worth a line.
const DEMAND_MIN: f32 = 0.01;

/// Demand is told in steps of a hundredth.
const DEMAND_STEPS: f32 = 100.0;

/// What the machine is. Looks at processors and memory; a few milliseconds.
pub(crate) fn machine(settings: &Settings, gpus: Vec<String>) -> Machine {
    let kinds = RefreshKind::nothing()
        .with_memory(MemoryRefreshKind::nothing().with_ram())
        .with_cpu(CpuRefreshKind::nothing());
    let system = System::new_with_specifics(kinds).ok();
    let total = system.as_ref().map_or(0, System::total_memory);
    let cpu = system.as_ref().map(|system| {
        let brand = system.cpus().first().map_or("", |cpu| cpu.brand().trim());
        let threads = system.cpus().len();
        format!("{brand} ({threads} threads)").trim().to_owned()
    });
    let mut machine = Machine {
        name: settings.mesh.node_name.clone(),
        region: settings.mesh.region.clone(),
        // What models are put on comes first.
        devices: gpus.into_iter().chain(cpu).collect(),
        memory_total_bytes: settings
            .memory_bytes_max
            .map_or(total, |max| max.min(total)),
        memory_free_bytes: 0,
        bandwidth_mb_s: None,
    };
    let free = available_bytes().min(settings.memory_bytes_max.unwrap_or(u64::MAX));
    note_memory(&mut machine, free);
    machine
}

/// Notes how much memory models can still take; false if that is no news.
pub(crate) fn note_memory(machine: &mut Machine, free_bytes: u64) -> bool {
    let free_bytes = free_bytes.min(machine.memory_total_bytes);
    let told = free_bytes / MEMORY_STEP_BYTES * MEMORY_STEP_BYTES;
    std::mem::replace(&mut machine.memory_free_bytes, told) != told
}

/// The state of a node that has just been made.
pub(crate) fn first(started_unix_s: u64, machine: &Machine, table: &Table) -> Snapshot {
    Snapshot {
        started_unix_s,
        version: env!("CARGO_PKG_VERSION"),
        models: table.status(),
        shutting_down: false,
        machine: machine.clone(),
        mesh: None,
        targets: directory::targets(table, None, &machine.name),
        demand: Vec::new(),
    }
}

/// The state of a node now.
pub(crate) fn snapshot(shared: &Shared, started_unix_s: u64) -> Snapshot {
    let machine = shared.machine.borrow().clone();
    let membership = shared.membership.borrow().clone();
    let view = membership.as_ref().map(|membership| membership.view());
    let table = shared.models.table();
    let here = shared.ingress.rates();
    let demand = demand(&here, view.as_deref());
    let mesh = membership.zip(view.as_deref()).map(|(membership, view)| {
        let role = role(&table, membership.is_client());
        let links = membership.links();
        Arc::new(MeshStatus {
            id: view.mesh,
            name: membership.mesh().name().map(str::to_owned),
            me: view.me,
            role,
            members: view.members.iter().map(member).collect(),
            clients: links
                .iter()
                .filter(|link| link.role == mesh::Role::Client)
                .count(),
            links,
        })
    });
    Snapshot {
        models: table.status(),
        shutting_down: table.shutting_down,
        targets: directory::targets(&table, view.as_deref(), &machine.name),
        mesh,
        machine,
        demand: told(demand, &here),
        started_unix_s,
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// What a node with these models does.
pub(crate) fn role(table: &Table, is_client: bool) -> Role {
    if is_client {
        Role::Client
    } else if table.ready().next().is_some() {
        Role::Serving
    } else if table.is_loading() {
        Role::Joining
    } else {
        Role::Standby
    }
}

/// Requests per minute of each model in the whole mesh. Members tell what came in at them and at
/// the clients that pull from them; what came in here is known better.
pub(crate) fn demand(here: &BTreeMap<String, f32>, view: Option<&View>) -> BTreeMap<String, f32> {
    let mut demand = here.clone();
    let Some(view) = view else {
        return demand;
    };
    for member in view.alive() {
        let own = member.node == view.me;
        for rate in &member.announcement().info.rates {
            let known = demand.entry(rate.model.clone()).or_insert(0.0);
            if own {
                // Includes our clients, who are not counted here.
                *known = known.max(rate.per_minute);
            } else {
                *known += rate.per_minute;
            }
        }
    }
    demand
}

fn told(demand: BTreeMap<String, f32>, here: &BTreeMap<String, f32>) -> Vec<Demand> {
    let round = |rate: f32| (rate * DEMAND_STEPS).round() / DEMAND_STEPS;
    let mut told: Vec<Demand> = demand
        .into_iter()
        .filter(|(_, rate)| *rate >= DEMAND_MIN)
        .map(|(model, rate)| Demand {
            here_per_minute: round(here.get(&model).copied().unwrap_or(0.0)),
            per_minute: round(rate),
            model,
        })
        .collect();
    told.sort_by(|a, b| {
        b.per_minute
            .total_cmp(&a.per_minute)
            .then(a.model.cmp(&b.model))
    });
    told
}

fn member(member: &Member) -> MemberStatus {
    let info: &NodeInfo = &member.announcement().info;
    MemberStatus {
        id: member.node,
        liveness: member.liveness,
        role: match info.state {
            NodeState::Serving => Role::Serving,
            NodeState::Standby => Role::Standby,
            NodeState::Client => Role::Client,
            NodeState::Idle => Role::Idle,
            NodeState::Joining => Role::Joining,
        },
        machine: Machine {
            name: info.name.clone(),
            region: info.region.clone(),
            devices: info.devices.clone(),
            memory_total_bytes: info.memory_total_bytes,
            memory_free_bytes: info.memory_free_bytes,
            bandwidth_mb_s: info.compute.map(|compute| compute.bandwidth_mb_s),
        },
        version: info.version.clone(),
        started_unix_ms: info.started_at_unix_ms,
        serving: (info.serving.iter().filter(|served| !served.model.draft))
            .map(|served| HostedModel {
                name: served.model.name.clone(),
                fingerprint: served.model.fingerprint.clone(),
                size_bytes: served.model.size_bytes,
                context_tokens: served.model.context_length,
                slots: served.slots,
                busy: served.busy,
                queued: served.queued,
            })
            .collect(),
        local: info.local.iter().map(|model| model.name.clone()).collect(),
        wanted: info.wanted.iter().map(|model| model.name.clone()).collect(),
        round_trip_us: member.round_trip_us,
        connected: member.connected,
    }
}
