//! Streams of stages over the connections of the mesh, which has checked both ends.

use std::io;

use futures::FutureExt;
use futures::future::BoxFuture;
use mesh::net::IncomingStream;
use mesh::{Mesh, NodeId};
use split::transport::{Duplex, Transport};

use super::STAGES;

/// Opens streams to members.
pub(super) struct MeshStreams {
    mesh: Mesh,
}

impl MeshStreams {
    pub(super) fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }
}

impl Transport for MeshStreams {
    fn open(&self, peer: NodeId) -> BoxFuture<'_, io::Result<Duplex>> {
        async move {
            let opened = self.mesh.open(peer, STAGES).await;
            let (send, recv) = opened.map_err(io::Error::other)?;
            Ok(Duplex {
                read: Box::new(recv),
                write: Box::new(send),
            })
        }
        .boxed()
    }
}

/// A stream that a member opened.
pub(super) fn duplex(stream: IncomingStream) -> Duplex {
    Duplex {
        read: Box::new(stream.recv),
        write: Box::new(stream.send),
    }
}
