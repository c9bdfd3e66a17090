//! The settings of the mesh: which one, as what, and how its members are reached.

use std::path::{Path, PathBuf};

use mesh::Role;
use mesh::net::{Network, Relays};
use mesh::ticket::Ticket;
use node::{MeshSettings, SplitModels};
use split::spec::Precision;

use super::{SettingsError, SplitPrecision};
use crate::cli::{MeshFlags, NetworkFlags};

/// What a machine without a name is called.
const NODE_NAME_DEFAULT: &str = "unnamed";
/// Longest name of a node or a region, characters: a column of a table.
const NAME_CHARS_MAX: usize = 32;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// What a node does about a mesh when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing: it serves this machine alone.
    Alone,
    /// Nothing yet: it waits to be told.
    Idle,
    /// Opens its own mesh.
    Open {
        /// What the mesh is called.
        name: Option<String>,
    },
    /// Joins the mesh of a ticket.
    Join(Box<Ticket>),
    /// Comes back to the last mesh.
    Rejoin,
}

/// Which way the flags mean.
pub(super) fn way(flags: &MeshFlags, has_models: bool) -> Result<Way, SettingsError> {
    let is_client = flags.client == Some(true);
    if is_client && has_models {
        return Err(SettingsError::ClientWithModel);
    }
    Ok(if let Some(text) = &flags.join {
        Way::Join(Box::new(read_ticket(text)?))
    } else if flags.rejoin == Some(true) {
        Way::Rejoin
    } else if flags.no_mesh == Some(true) {
        Way::Alone
    } else if is_client {
        // It may not open a mesh.
        Way::Idle
    } else if has_models || flags.name.is_some() {
        let name = flags.name.clone().filter(|name| !name.is_empty());
        Way::Open { name }
    } else {
        Way::Idle
    })
}

/// Reads the ticket that a user pasted.
pub(crate) fn read_ticket(text: &str) -> Result<Ticket, SettingsError> {
    Ok(text.parse()?)
}

/// Which models run on several machines: whoever is in a mesh may hope for the help of others.
pub(super) fn split(flags: &MeshFlags, way: &Way) -> SplitModels {
    let is_alone = *way == Way::Alone || flags.client == Some(true);
    match (flags.split, flags.no_split) {
        _ if is_alone => SplitModels::Never,
        (_, Some(true)) => SplitModels::Never,
        (Some(true), _) => SplitModels::Always,
        _ => SplitModels::IfNeeded,
    }
}

/// How hidden states of split models travel.
pub(super) fn precision(flags: &MeshFlags) -> Precision {
    match flags.split_precision.unwrap_or_default() {
        SplitPrecision::F32 => Precision::F32,
        SplitPrecision::F16 => Precision::F16,
    }
}

/// How the node takes part in a mesh.
pub(super) fn settings(
    flags: MeshFlags,
    network: NetworkFlags,
    way: &Way,
    home: &Path,
    host_name: Option<String>,
) -> MeshSettings {
    let is_client = flags.client == Some(true);
    // Coming back takes the key of the last time.
    let keeps_key = !is_client || flags.keep_key == Some(true) || *way == Way::Rejoin;
    let defaults = MeshSettings::default();
    let node_name = flags.node_name.or(host_name).map(|name| short(&name));
    MeshSettings {
        home: keeps_key.then(|| PathBuf::from(home)),
        network: Network {
            relays: match (network.relay, network.no_relay) {
                (_, Some(true)) => Relays::None,
                (Some(urls), _) if !urls.is_empty() => Relays::Own(urls),
                _ => Relays::Public,
            },
            port: network.bind_port.unwrap_or(0),
            ip: network.bind_ip,
            local_discovery: network.no_mdns != Some(true),
            ..defaults.network
        },
        role: if is_client { Role::Client } else { Role::Serve },
        clients_max: flags.max_clients.map_or(defaults.clients_max, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        }),
        standby: flags.standby == Some(true),
        node_name: node_name
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| NODE_NAME_DEFAULT.to_owned()),
        region: flags
            .region
            .map(|region| short(&region))
            .unwrap_or_default(),
        unread_max: defaults.unread_max,
        trial_wait_max: defaults.trial_wait_max,
    }
}

/// A name that fits into a line of somebody else's terminal.
fn short(name: &str) -> String {
    let printable: String = name.chars().filter(|c| !c.is_control()).collect();
    printable.trim().chars().take(NAME_CHARS_MAX).collect()
}

/// Gigabytes of memory as people say it, 2^30 bytes each.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and at most 10^6, as the flag's parser says"
)]
pub(super) fn bytes_of_gigabytes(number: f64) -> u64 {
    (number * GIB) as u64
}
