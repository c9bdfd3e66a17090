//! Weights of models between members: what this node gives, and the way to what it lacks.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use gguf::{Fingerprint, Model};
use mesh::net::{RecvStream, SendStream, StreamKind};
use mesh::{Mesh, NodeId};
use split::weights::{Cache, Dial, Grant, Holding, Keeper};

use super::slices::Slices;

/// Streams with asks for weights, one each. Other kinds belong to other protocols.
pub(crate) const WEIGHTS: StreamKind = StreamKind(3);

/// Models whose place is remembered; those that members ask for at a time are few.
const HOLDINGS_MAX: usize = 16;

/// Opens streams to one member, over a connection of their own: weights must not make hidden states wait.
pub(super) struct MemberDial {
    pub(super) mesh: Mesh,
    pub(super) node: NodeId,
}

impl Dial for MemberDial {
    type Recv = RecvStream;
    type Send = SendStream;

    async fn open(&self) -> io::Result<(RecvStream, SendStream)> {
        let opened = self.mesh.open_bulk(self.node, WEIGHTS).await;
        let (send, recv) = opened.map_err(io::Error::other)?;
        Ok((recv, send))
    }
}

/// What this node holds, for members. All of a private mesh may have
/// it: they may ask for answers, too.
pub(crate) struct Shelf {
    slices: Arc<Slices>,
    cache: Cache,
    /// What members may have.
    grant: Grant,
    holdings: Mutex<BTreeMap<PathBuf, Arc<Holding>>>,
}

impl Shelf {
    /// `gives`: weights, and not only what is needed to check those from elsewhere.
    pub(super) fn new(slices: Arc<Slices>, cache: Cache, gives: bool) -> Self {
        Self {
            slices,
            cache,
            grant: if gives { Grant::Weights } else { Grant::Proof },
            holdings: Mutex::default(),
        }
    }

    fn whole(&self, path: PathBuf, model: Fingerprint) -> Option<Arc<Holding>> {
        let mut holdings = self.holdings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = holdings.get(&path) {
            return Some(Arc::clone(known));
        }
        let read = Model::open(&path)
            .ok()
            .filter(|read| read.fingerprint() == model)?;
        let holding = Arc::new(Holding::whole(&read).ok()?);
        if holdings.len() >= HOLDINGS_MAX {
            holdings.pop_first();
        }
        holdings.insert(path, Arc::clone(&holding));
        Some(holding)
    }
}

impl Keeper<NodeId> for Shelf {
    fn grant(&self, _: &NodeId, _: Fingerprint) -> Grant {
        self.grant
    }

    fn holding(&self, model: Fingerprint) -> Option<Arc<Holding>> {
        if let Some(path) = self.path(model) {
            return self.whole(path, model);
        }
        let (_, headers) = self.cache.headers(model)?;
        let (held, _) = self.cache.holding(&headers).ok()?;
        held.map(Arc::new)
    }

    fn path(&self, model: Fingerprint) -> Option<PathBuf> {
        self.slices.find(&model.to_string())
    }
}
