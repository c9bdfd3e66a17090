//! Streams of stages over the connections of the mesh, which has checked both ends.

use std::io;

use futures::FutureExt;
use futures::future::BoxFuture;
use mesh::net::{IncomingStream, RecvStream, SendStream};
use mesh::{Mesh, NodeId};
use split::transport::{Duplex, Transport};

use super::STAGES;

/// What stages send to each other goes first on a connection: a token waits for it. Answers and messages of the mesh
/// have 0.
const STAGES_PRIORITY: i32 = 1;

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
            Ok(halves(send, recv))
        }
        .boxed()
    }
}

/// A stream that a member opened.
pub(super) fn duplex(stream: IncomingStream) -> Duplex {
    halves(stream.send, stream.recv)
}

fn halves(send: SendStream, recv: RecvStream) -> Duplex {
    // Fails only on a stream that has ended already.
    let _ = send.set_priority(STAGES_PRIORITY);
    Duplex {
        read: Box::new(recv),
        write: Box::new(send),
    }
}
