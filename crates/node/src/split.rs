//! Models that run on several machines: this node as the host of some, and as a worker for others'.
//!
//! - `streams`, `slices`: what [`split::station`] needs of this machine: ways to the others, and layers.
//! - `pool`: who could take part, from what the mesh says. Pure.
//! - `host`: one such model, from the plan to its end.
//! - `stages`: what stands in its decode thread for the layers of other machines.

mod backend;
mod host;
mod pool;
mod runner;
mod slices;
mod stages;
mod streams;

use std::path::PathBuf;
use std::sync::Arc;

use mesh::Mesh;
use mesh::net::StreamKind;
use split::station::{Offer, Station};

pub(crate) use self::host::keep;
use self::slices::Slices;
use self::streams::MeshStreams;
pub(crate) use self::streams::duplex;
use crate::node::Shared;

/// Streams of stages. Other kinds belong to other protocols.
pub(crate) const STAGES: StreamKind = StreamKind(2);

/// This node's part in rings of the mesh. A client hosts and computes nothing.
pub(crate) fn station(shared: &Arc<Shared>, mesh: &Mesh) -> Option<Station> {
    let loader = shared.models.loader()?;
    if mesh.role() == mesh::Role::Client {
        return None;
    }
    let offer = Offer {
        source: Arc::new(Slices::new(shared.settings.clone(), Arc::clone(loader))),
        budget_bytes: shared.models.free_bytes(shared.settings.memory_bytes_max),
    };
    let transport = Arc::new(MeshStreams::new(mesh.clone()));
    Some(Station::new(mesh.node_id(), transport, Some(offer)))
}

/// Where slices are kept: under the user's cache folder, or, without one, among the node's own files.
fn slices_folder(settings: &crate::Settings) -> PathBuf {
    let own = settings.mesh.home.clone();
    let folder = settings.cache_dir.clone().or(own);
    folder.unwrap_or_else(std::env::temp_dir).join("slices")
}
