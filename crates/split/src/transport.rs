//! Streams between machines, as the ring sees them.

use std::io;

use futures::future::BoxFuture;
use mesh::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};

/// The receiving half of a stream. Dropping it tells the peer to stop sending.
pub type Reading = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// The sending half of a stream. Dropping it ends the stream.
pub type Writing = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Both halves of a stream.
pub struct Duplex {
    /// From the peer.
    pub read: Reading,
    /// To the peer.
    pub write: Writing,
}

impl std::fmt::Debug for Duplex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

/// Opens streams for stages to other machines. The other side gets them with the name of this one, and
/// passes them to [`Station::accept`](crate::station::Station::accept); both sides have checked each other's
/// membership before.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream, connecting first where there is no connection.
    fn open(&self, peer: NodeId) -> BoxFuture<'_, io::Result<Duplex>>;
}
