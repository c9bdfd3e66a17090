//! A node's state as text. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use api::management::{
    Host, Link, Liveness, Model, ModelPhase, NodeStatus, PathKind, Peer, Role, Status, Target,
};
use node::ByteSize;

use crate::table;

/// Digits of an id that tell nodes apart.
const ID_CHARS: usize = 10;
/// Longest list of names in one cell.
const NAMES_MAX: usize = 4;

/// The state as text.
pub(super) fn status(status: &Status, now_unix_s: u64) -> String {
    let mut text = head(status, now_unix_s);
    if status.mesh.is_some() {
        text.push_str(&format!("\n{}", members(status)));
    }
    let models = models(status);
    if !models.is_empty() {
        text.push_str(&format!("\n{models}"));
    }
    if status.mesh.is_none() && status.models.is_empty() {
        text.push_str(
            "\nNothing to do: `mesh-llm load NAME` serves a model, `mesh-llm join TICKET` joins a mesh.\n",
        );
    }
    text
}

fn head(status: &Status, now_unix_s: u64) -> String {
    let node = &status.node;
    let mut rows = vec![
        ["node".to_owned(), name_of(node)],
        ["does".to_owned(), doing(node, now_unix_s)],
        [
            "memory".to_owned(),
            memory(node.memory_free_bytes, node.memory_total_bytes),
        ],
    ];
    if !node.devices.is_empty() {
        let devices: Vec<String> = node.devices.iter().map(|device| plain(device)).collect();
        rows.push(["devices".to_owned(), devices.join(", ")]);
    }
    if let Some(url) = &node.api_url {
        rows.push(["API".to_owned(), plain(url)]);
    }
    rows.push(["mesh".to_owned(), mesh_of(status)]);
    table::table(&rows)
}

fn name_of(node: &NodeStatus) -> String {
    let mut text = plain(&node.name);
    if !node.region.is_empty() {
        text.push_str(&format!(" in {}", plain(&node.region)));
    }
    if let Some(id) = &node.id {
        text.push_str(&format!(" ({})", short(id)));
    }
    text
}

fn doing(node: &NodeStatus, now_unix_s: u64) -> String {
    let up = Duration::from_secs(now_unix_s.saturating_sub(node.started_unix_s));
    let up = humantime::format_duration(up).to_string();
    let up: Vec<&str> = up.split(' ').take(2).collect();
    let state = if node.stopping {
        "stopping"
    } else {
        role(node.role)
    };
    format!(
        "{state}, version {}, up {}",
        plain(&node.version),
        up.join(" ")
    )
}

fn mesh_of(status: &Status) -> String {
    let Some(mesh) = &status.mesh else {
        return "none".to_owned();
    };
    let alive = |peer: &&Peer| matches!(peer.liveness, Liveness::Alive | Liveness::Suspect);
    let others = status.peers.iter().filter(alive).count();
    let name = match &mesh.name {
        Some(name) => format!("{} ({})", plain(name), short(&mesh.id)),
        None => short(&mesh.id),
    };
    let members = match others {
        0 => "no other member".to_owned(),
        1 => "1 other member".to_owned(),
        count => format!("{count} other members"),
    };
    format!(
        "{name}, {members}, {} connected here",
        count(mesh.clients, "client")
    )
}

fn members(status: &Status) -> String {
    let heads = [
        "MEMBER",
        "ID",
        "DOES",
        "MODELS",
        "FREE MEMORY",
        "ROUND TRIP",
        "WAY",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    let node = &status.node;
    let ready = status
        .models
        .iter()
        .filter(|model| model.state == ModelPhase::Ready);
    rows.push([
        plain(&node.name),
        node.id.as_deref().map(short).unwrap_or_default(),
        role(node.role).to_owned(),
        names(ready.map(|model| model.name.as_str())),
        memory(node.memory_free_bytes, node.memory_total_bytes),
        String::new(),
        "this node".to_owned(),
    ]);
    let links: BTreeMap<&str, &Link> = status
        .links
        .iter()
        .map(|link| (link.node.as_str(), link))
        .collect();
    let mut peers: Vec<&Peer> = status.peers.iter().collect();
    peers.sort_by_key(|peer| (standing(peer.liveness), &peer.name, &peer.id));
    rows.extend(
        peers
            .into_iter()
            .map(|peer| member(peer, links.get(peer.id.as_str()).copied())),
    );
    table::table(&rows)
}

/// The living first.
fn standing(liveness: Liveness) -> u8 {
    match liveness {
        Liveness::Alive | Liveness::Suspect => 0,
        Liveness::Dead | Liveness::Left | Liveness::Other => 1,
    }
}

fn member(peer: &Peer, link: Option<&Link>) -> [String; 7] {
    let does = match peer.liveness {
        Liveness::Alive => role(peer.role).to_owned(),
        Liveness::Suspect => format!("{}, silent", role(peer.role)),
        Liveness::Dead => "dead".to_owned(),
        Liveness::Left => "left".to_owned(),
        Liveness::Other => "?".to_owned(),
    };
    if standing(peer.liveness) > 0 {
        let nothing = String::new;
        let (name, id) = (plain(&peer.name), short(&peer.id));
        return [name, id, does, nothing(), nothing(), nothing(), nothing()];
    }
    let trip = link.map(|link| link.round_trip_us);
    let trip = trip.or(peer.round_trip_us.map(u64::from));
    [
        plain(&peer.name),
        short(&peer.id),
        does,
        names(peer.serving.iter().map(|model| model.name.as_str())),
        memory(peer.memory_free_bytes, peer.memory_total_bytes),
        trip.map(milliseconds).unwrap_or_default(),
        match link {
            Some(link) => way(link),
            None if peer.connected => "connected".to_owned(),
            None => "not connected".to_owned(),
        },
    ]
}

fn way(link: &Link) -> String {
    let address = link.address.as_deref().map(plain).unwrap_or_default();
    match link.path {
        PathKind::Direct => format!("direct {address}"),
        PathKind::Relayed => format!("by relay {address}"),
        PathKind::Unknown => "not settled".to_owned(),
    }
}

/// Every model that can be asked for or is on its way here, and how much it is asked for.
fn models(status: &Status) -> String {
    let heads = [
        "MODEL", "SIZE", "CONTEXT", "STATE", "HOSTS", "REQUESTS", "A MINUTE",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    for target in &status.targets {
        rows.push(target_row(target, status));
    }
    let is_target = |name: &str| status.targets.iter().any(|target| target.model == name);
    for model in status.models.iter().filter(|model| !is_target(&model.name)) {
        rows.push(model_row(model, status));
    }
    let wanted = |name: &str| status.models.iter().any(|model| model.name == name);
    for demand in &status.demand {
        if !is_target(&demand.model) && !wanted(&demand.model) {
            let nothing = String::new;
            let state = "nobody serves it".to_owned();
            let rate = rate(&demand.model, status);
            rows.push([
                plain(&demand.model),
                nothing(),
                nothing(),
                state,
                nothing(),
                nothing(),
                rate,
            ]);
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    table::table(&rows)
}

fn target_row(target: &Target, status: &Status) -> [String; 7] {
    let own = status
        .models
        .iter()
        .find(|model| model.name == target.model);
    let sum = |of: fn(&Host) -> u32| target.hosts.iter().map(|host| u64::from(of(host))).sum();
    [
        plain(&target.model),
        ByteSize(target.size_bytes).to_string(),
        target.context_tokens.to_string(),
        own.map_or_else(|| "ready".to_owned(), state),
        names(target.hosts.iter().map(|host| host.name.as_str())),
        requests(
            sum(|host| host.running),
            sum(|host| host.slots),
            sum(|host| host.waiting),
        ),
        rate(&target.model, status),
    ]
}

fn model_row(model: &Model, status: &Status) -> [String; 7] {
    let is_known = model.size_bytes > 0;
    let known = |text: String| if is_known { text } else { String::new() };
    [
        plain(&model.name),
        known(ByteSize(model.size_bytes).to_string()),
        known(model.context_tokens.to_string()),
        state(model),
        plain(&status.node.name),
        known(requests(
            model.running.into(),
            model.slots.into(),
            model.waiting.into(),
        )),
        rate(&model.name, status),
    ]
}

fn state(model: &Model) -> String {
    let state = phase(model);
    let loading = model.loading.iter().map(|stage| plain(&stage.summary));
    [state]
        .into_iter()
        .chain(loading)
        .collect::<Vec<_>>()
        .join("; ")
}

fn phase(model: &Model) -> String {
    match model.state {
        ModelPhase::Loading => format!("loading {:.0} %", model.progress * 100.0),
        ModelPhase::Ready => match &model.split {
            Some(split) => format!("ready, {}", plain(&split.summary)),
            None => "ready".to_owned(),
        },
        ModelPhase::Waiting => {
            let reason = model.reason.as_deref().map(plain).unwrap_or_default();
            // The planner's words for too little memory.
            match reason.starts_with("needs ") {
                true => format!("waiting for memory: {reason}"),
                false => format!("waiting: {reason}"),
            }
        }
        ModelPhase::Elsewhere => model.reason.as_deref().map(plain).unwrap_or_default(),
        ModelPhase::Dropping => "dropping".to_owned(),
        ModelPhase::Failed => {
            let reason = model.reason.as_deref().map(plain).unwrap_or_default();
            format!("failed: {reason}")
        }
        ModelPhase::Other => "?".to_owned(),
    }
}

fn requests(running: u64, slots: u64, waiting: u64) -> String {
    let text = format!("{running} of {slots}");
    match waiting {
        0 => text,
        waiting => format!("{text}, {waiting} wait"),
    }
}

fn rate(model: &str, status: &Status) -> String {
    let demand = status.demand.iter().find(|demand| demand.model == model);
    demand.map_or_else(String::new, |demand| format!("{:.1}", demand.per_minute))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Idle => "idle",
        Role::Standby => "standby",
        Role::Joining => "loading",
        Role::Serving => "serving",
        Role::Client => "client",
        Role::Other => "?",
    }
}

fn memory(free_bytes: u64, total_bytes: u64) -> String {
    if total_bytes == 0 {
        return "unknown".to_owned();
    }
    format!("{} of {}", ByteSize(free_bytes), ByteSize(total_bytes))
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<String> = names.map(plain).collect();
    let more = all.len().saturating_sub(NAMES_MAX);
    let shown = all
        .into_iter()
        .take(NAMES_MAX)
        .collect::<Vec<_>>()
        .join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1000.0)
}

fn short(id: &str) -> String {
    plain(id).chars().take(ID_CHARS).collect()
}

/// Without what could move the cursor or colour the terminal: names come from other machines.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
