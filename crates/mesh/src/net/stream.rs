//! Owns application streams: what they are called, and that their connection stays while they live.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use iroh::endpoint as quic;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::{NodeId, Role};

/// What a stream is for. The numbers belong to the application; the mesh only carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKind(pub u8);

/// A stream that a member opened to this node. Its membership was checked just before.
#[derive(Debug)]
pub struct IncomingStream {
    /// Who opened it.
    pub peer: NodeId,
    /// What the peer's membership allows.
    pub role: Role,
    /// What it is for.
    pub kind: StreamKind,
    /// Whether it came over a connection for bulk, whose sender gives way to all else.
    pub is_bulk: bool,
    /// Towards the peer.
    pub send: SendStream,
    /// From the peer.
    pub recv: RecvStream,
}

/// Streams that other members open.
#[derive(Debug)]
pub struct Streams {
    receiver: mpsc::Receiver<IncomingStream>,
}

impl Streams {
    /// Most streams that wait to be taken. Further ones are turned away as busy.
    pub const WAITING_MAX: usize = 256;

    pub(crate) fn channel() -> (mpsc::Sender<IncomingStream>, Self) {
        let (sender, receiver) = mpsc::channel(Self::WAITING_MAX);
        (sender, Self { receiver })
    }

    /// The next stream; `None` once the mesh was left.
    pub async fn next(&mut self) -> Option<IncomingStream> {
        self.receiver.recv().await
    }
}

/// While one of these lives, its connection is in use.
pub(crate) type InUse = Arc<()>;

/// The sending half. Writes wait while the peer does not read. Dropped without
/// [`finish`](quic::SendStream::finish) or [`reset`](quic::SendStream::reset) it ends as if finished.
#[derive(Debug)]
pub struct SendStream {
    inner: quic::SendStream,
    _in_use: InUse,
}

/// The receiving half. Dropping it tells the peer to stop sending.
#[derive(Debug)]
pub struct RecvStream {
    inner: quic::RecvStream,
    _in_use: InUse,
}

pub(crate) fn halves(
    (send, recv): (quic::SendStream, quic::RecvStream),
    in_use: &InUse,
) -> (SendStream, RecvStream) {
    let send = SendStream {
        inner: send,
        _in_use: in_use.clone(),
    };
    let recv = RecvStream {
        inner: recv,
        _in_use: in_use.clone(),
    };
    (send, recv)
}

impl SendStream {
    /// Ends the stream abnormally; the reader gets an error with this number.
    pub fn abort(&mut self, code: u32) {
        // Fails only on a stream that has ended already.
        let _ = self.inner.reset(code.into());
    }
}

impl RecvStream {
    /// Tells the sender that nothing more will be read; its writes fail with this number.
    pub fn abort(&mut self, code: u32) {
        // Fails only on a stream that has ended already.
        let _ = self.inner.stop(code.into());
    }
}

impl Deref for SendStream {
    type Target = quic::SendStream;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for SendStream {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

impl Deref for RecvStream {
    type Target = quic::RecvStream;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for RecvStream {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.inner), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.inner), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.inner), cx)
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.inner), cx, buffer)
    }
}
