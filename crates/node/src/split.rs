//! Models that run on several machines: this node as the host of some, and as a worker for others'.
//!
//! - `streams`, `slices`: what [`split::station`] needs of this machine: ways to the others, and layers.
//! - `bandwidth`, `probe`, `speeds`: how fast this machine is, and what is known of others.
//! - `distances`: how far machines are from each other, where members do not announce it.
//! - `pool`: who could take part, from what the mesh says. Pure.
//! - `host`: one such model, from the plan to its end.
//! - `stages`: what stands in its decode thread for the layers of other machines.

mod backend;
mod bandwidth;
mod distances;
mod host;
mod pool;
mod probe;
mod runner;
mod slices;
mod speeds;
mod stages;
mod streams;
mod weights;

use std::path::PathBuf;
use std::sync::Arc;

use mesh::announcement::Compute;
use mesh::net::{IncomingStream, StreamKind};
use mesh::{Mesh, NodeId};
use split::layers::LayerSource;
use split::station::{Offer, Station};
use split::weights::{Cache, Server, shares_weights};

use self::bandwidth::Field;
use self::distances::DISTANCES;
pub(crate) use self::distances::Distances;
pub(crate) use self::host::keep;
use self::slices::Slices;
pub(crate) use self::slices::{Need, WholeFile};
pub(crate) use self::speeds::Speeds;
use self::streams::{MeshStreams, duplex};
use self::weights::{Shelf, WEIGHTS};

use crate::Settings;
use crate::node::Shared;

/// Streams of stages. Other kinds belong to other protocols.
const STAGES: StreamKind = StreamKind(2);

/// Code with which a stream is ended that broke a rule or a deadline.
const CODE_BROKEN: u32 = 1;

/// Most bytes of slices that are kept; those that were used longest ago go first.
const CACHE_BYTES_MAX: u64 = 256 << 30;

/// Meshes are private: nothing publishes one yet.
const MESH_IS_PUBLISHED: bool = false;

/// This node's part in rings of a mesh: stages, weights for those of others, and how far machines are.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) station: Station,
    /// Models on this machine's disk, slices of them, and the way to those of others.
    pub(crate) slices: Arc<Slices>,
    weights: Server<NodeId, Shelf>,
    pub(crate) distances: Distances,
}

impl Part {
    /// That of `shared` in `mesh`; a client hosts and computes nothing.
    pub(crate) fn new(shared: &Arc<Shared>, mesh: &Mesh) -> Option<Self> {
        let loader = shared.models.loader()?;
        if mesh.role() == mesh::Role::Client {
            return None;
        }
        let folder = slices_folder(&shared.settings);
        let cache = match Cache::open(folder, CACHE_BYTES_MAX) {
            Ok(cache) => cache,
            Err(error) => {
                tracing::warn!(%error, "this node takes no part in split models");
                return None;
            }
        };
        let slices = Arc::new(Slices::new(
            shared.settings.clone(),
            Arc::clone(loader),
            cache.clone(),
            mesh.clone(),
            Arc::clone(&shared.speeds),
        ));
        let offer = Offer {
            source: Arc::clone(&slices) as Arc<dyn LayerSource>,
            budget_bytes: shared.models.free_bytes(shared.settings.memory_bytes_max),
        };
        let gives = shares_weights(MESH_IS_PUBLISHED, Some(!shared.settings.keeps_weights));
        let transport = Arc::new(MeshStreams::new(mesh.clone()));
        Some(Self {
            station: Station::new(mesh.node_id(), transport, Some(offer)),
            weights: Server::new(Shelf::new(Arc::clone(&slices), cache.clone(), gives), cache),
            slices,
            distances: Distances::new(mesh.clone(), Arc::clone(&shared.calls)),
        })
    }

    /// Whether files of models may be fetched here because members ask. What a giver's own user says, the giver minds.
    pub(crate) fn could_fetch(&self) -> bool {
        shares_weights(MESH_IS_PUBLISHED, None)
    }

    /// Takes a stream that is this protocol's, until it is over; gives back any other.
    pub(crate) async fn take(&self, mut stream: IncomingStream) {
        if stream.kind == STAGES {
            let peer = stream.peer;
            return self.station.accept(peer, duplex(stream)).await;
        }
        if stream.kind == DISTANCES {
            return self.distances.answer(stream).await;
        }
        let peer = stream.peer;
        let answered = self
            .weights
            .answer(&peer, &mut stream.recv, &mut stream.send)
            .await;
        if let Err(error) = answered {
            tracing::debug!(peer = peer.short(), %error, "an ask for weights was cut off");
            stream.recv.abort(CODE_BROKEN);
            stream.send.abort(CODE_BROKEN);
        }
    }

    /// Whether a stream belongs here. Weights give way to all else over a connection for bulk alone: there and
    /// nowhere else they are asked for.
    pub(crate) fn is_mine(kind: StreamKind, is_bulk: bool) -> bool {
        match kind {
            WEIGHTS => is_bulk,
            STAGES | DISTANCES => !is_bulk,
            _ => false,
        }
    }
}

/// Where layers are cut out, or made up, for a trial.
fn trial_folder(settings: &Settings) -> PathBuf {
    slices_folder(settings).with_file_name("trials")
}

/// What is known of speeds from earlier runs.
pub(crate) fn speeds(settings: &Settings) -> Arc<Speeds> {
    let own = settings.mesh.home.clone();
    Arc::new(Speeds::open(settings.cache_dir.clone().or(own)))
}

/// Measures the memory of this machine, unless that was done before. Blocks for some 100 ms.
pub(crate) fn measure(shared: &Shared) -> Option<Compute> {
    let loader = shared.models.loader()?;
    let settings = &shared.settings;
    // Layers on a GPU have another memory; only a run on one of them tells.
    if !loader.gpus().is_empty() && settings.gpu_layers != Some(0) {
        return None;
    }
    let threads = settings.threads.unwrap_or_else(engine::threads_default);
    let processor = shared.machine.borrow().devices.join(", ");
    let known = shared.speeds.bandwidth(&processor, threads);
    let bytes_per_s = known.unwrap_or_else(|| {
        let measured = Field::new().bytes_per_s(threads);
        tracing::info!(gb_per_s = measured / 1e9, threads, "memory was measured");
        shared.speeds.note_bandwidth(&processor, threads, measured);
        shared.speeds.save();
        measured
    });
    Some(Compute {
        bandwidth_mb_s: (bytes_per_s / 1e6) as u32,
        threads,
    })
}

/// Where slices are kept: under the user's cache folder, or, without one, among the node's own files.
fn slices_folder(settings: &Settings) -> PathBuf {
    let own = settings.mesh.home.clone();
    let folder = settings.cache_dir.clone().or(own);
    folder.unwrap_or_else(std::env::temp_dir).join("slices")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_all_else_have_connections_of_their_own() {
        for (kind, mine, mine_in_bulk) in [
            (STAGES, true, false),
            (WEIGHTS, false, true),
            (DISTANCES, true, false),
            (crate::peer::CALLS, false, false),
        ] {
            let is_mine = [Part::is_mine(kind, false), Part::is_mine(kind, true)];
            assert_eq!(is_mine, [mine, mine_in_bulk], "{kind:?}");
        }
    }
}
