//! Owns one peer connection while it stands: messages in and out, streams that the peer opens, and
//! what ends it. Knows nothing of other peers.

use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::actor::Input;
use super::close::{CloseCode, STREAM_BUSY};
use super::stream::{InUse, IncomingStream, StreamKind, halves};
use super::{frame, unix_ms};
use crate::admission::{Certificate, Trust};
use crate::bucket::Bucket;
use crate::proto::{
    MESSAGE_BYTES_MAX, Message, PEER_BYTES_BURST, PEER_BYTES_PER_SECOND, PEER_MESSAGES_BURST,
    PEER_MESSAGES_PER_SECOND,
};
use crate::{NodeId, Role};

/// Messages that wait to be written to one peer. More are dropped: the protocol compares tables.
pub(super) const OUTBOX_MAX: usize = 256;

/// Streams that one peer may open in a second, averaged, and at once: requests of a busy ingress.
const STREAMS_PER_SECOND: u32 = 200;
const STREAMS_BURST: u32 = 512;

/// Opened streams of one peer that have not said yet what they are for.
const NAMELESS_MAX: usize = 64;

/// How long a stream may take to say so.
const NAME_MAX: Duration = Duration::from_secs(5);

/// How long the last messages may take to arrive before the connection closes.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A connection that stands, and what it needs to run.
pub(super) struct PeerConnection {
    pub(super) node: NodeId,
    pub(super) role: Role,
    /// Tells this connection from earlier and later ones with the same peer.
    pub(super) serial: u64,
    pub(super) connection: Connection,
    pub(super) chain: Arc<[Certificate]>,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    /// Messages to write; its end means goodbye.
    pub(super) outbox: mpsc::Receiver<Arc<[u8]>>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) streams: mpsc::Sender<IncomingStream>,
    pub(super) trust: watch::Receiver<Trust>,
    pub(super) in_use: InUse,
}

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// This node said goodbye or closed it.
    Ours,
    /// The peer closed it with this code.
    Theirs(CloseCode),
    /// It was lost.
    Lost(String),
    /// The peer broke a rule and was cut off.
    Fault(String),
    /// The peer is no member any more.
    Expelled(String),
}

impl Ending {
    /// Whether either side meant it, and the peer is not to blame.
    pub(crate) const fn is_clean(&self) -> bool {
        match self {
            Self::Ours => true,
            Self::Theirs(code) => code.is_clean(),
            Self::Lost(_) | Self::Fault(_) | Self::Expelled(_) => false,
        }
    }
}

/// Runs the connection until it ends, and tells the actor.
pub(super) async fn serve(peer: PeerConnection) {
    let PeerConnection {
        node,
        role,
        serial,
        connection,
        chain,
        send,
        recv,
        outbox,
        inputs,
        streams,
        trust,
        in_use,
    } = peer;
    let acceptor = Acceptor {
        node,
        role,
        connection: connection.clone(),
        chain,
        streams,
        trust,
        in_use,
        is_bulk: false,
    };
    let ending = tokio::select! {
        ending = read_messages(recv, node, serial, &inputs) => ending,
        ending = write_messages(send, outbox) => ending,
        ending = acceptor.run() => ending,
        error = connection.closed() => ended(&error),
    };
    let ending = close(&connection, ending).await;
    let _ = inputs
        .send(Input::Closed {
            node,
            serial,
            ending,
        })
        .await;
}

async fn close(connection: &Connection, ending: Ending) -> Ending {
    match &ending {
        Ending::Ours => CloseCode::Leaving.close(connection, "goodbye"),
        Ending::Fault(reason) => CloseCode::Misbehaved.close(connection, reason),
        Ending::Expelled(reason) => CloseCode::Expelled.close(connection, reason),
        Ending::Theirs(_) => {}
        // A stream that ends is followed by the reason why the connection does.
        Ending::Lost(_) => {
            if let Ok(error) = timeout(GOODBYE_MAX, connection.closed()).await {
                return ended(&error);
            }
            CloseCode::Done.close(connection, "");
        }
    }
    ending
}

fn ended(error: &ConnectionError) -> Ending {
    match (CloseCode::of(error), error) {
        (Some(code), _) => Ending::Theirs(code),
        (None, ConnectionError::LocallyClosed) => Ending::Ours,
        (None, error) => Ending::Lost(error.to_string()),
    }
}

async fn read_messages(
    mut stream: RecvStream,
    node: NodeId,
    serial: u64,
    inputs: &mpsc::Sender<Input>,
) -> Ending {
    let start = Instant::now();
    let mut messages = Bucket::new(PEER_MESSAGES_PER_SECOND, PEER_MESSAGES_BURST, 0);
    let mut bytes = Bucket::new(PEER_BYTES_PER_SECOND, PEER_BYTES_BURST, 0);
    loop {
        let message = match frame::read(&mut stream, MESSAGE_BYTES_MAX).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ending::Lost("the peer ended its messages".into()),
            Err(frame::FrameError::Ended(reason)) => return Ending::Lost(reason),
            Err(error) => return Ending::Fault(error.to_string()),
        };
        let now_ms = millis_since(start);
        if !messages.take(1, now_ms) || !bytes.take(message.len() as u64, now_ms) {
            return Ending::Fault("it sends more messages than allowed".into());
        }
        let message = match Message::decode(&message) {
            Ok(Some(message)) => message,
            // Of a newer version.
            Ok(None) => continue,
            Err(error) => return Ending::Fault(format!("it sent an unreadable message: {error}")),
        };
        let input = Input::Message {
            node,
            serial,
            message,
        };
        if inputs.send(input).await.is_err() {
            return Ending::Ours;
        }
    }
}

async fn write_messages(mut stream: SendStream, mut outbox: mpsc::Receiver<Arc<[u8]>>) -> Ending {
    while let Some(message) = outbox.recv().await {
        match frame::write(&mut stream, &message).await {
            Ok(()) => {}
            Err(frame::FrameError::Ended(reason)) => return Ending::Lost(reason),
            Err(error) => return Ending::Fault(error.to_string()),
        }
    }
    // Fails only if the peer is gone already.
    let _ = stream.finish();
    let _ = timeout(GOODBYE_MAX, stream.stopped()).await;
    Ending::Ours
}

fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Takes the streams of a connection that carries nothing else, until it ends.
pub(super) async fn serve_streams(acceptor: Acceptor) -> Ending {
    let connection = acceptor.connection.clone();
    let ending = acceptor.run().await;
    close(&connection, ending).await
}

/// Takes streams that the peer opens.
pub(super) struct Acceptor {
    pub(super) node: NodeId,
    pub(super) role: Role,
    pub(super) connection: Connection,
    pub(super) chain: Arc<[Certificate]>,
    pub(super) streams: mpsc::Sender<IncomingStream>,
    pub(super) trust: watch::Receiver<Trust>,
    pub(super) in_use: InUse,
    pub(super) is_bulk: bool,
}

impl Acceptor {
    async fn run(self) -> Ending {
        let start = Instant::now();
        let mut rate = Bucket::new(STREAMS_PER_SECOND, STREAMS_BURST, 0);
        let mut nameless = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.connection.accept_bi(), if nameless.len() < NAMELESS_MAX => accepted,
                Some(_) = nameless.join_next() => continue,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => return ended(&error),
            };
            let valid = self.trust.borrow().check_still(&self.chain, unix_ms());
            if let Err(refusal) = valid {
                return Ending::Expelled(refusal.to_string());
            }
            if !rate.take(1, millis_since(start)) {
                return Ending::Fault("it opens more streams than allowed".into());
            }
            let halves = halves(stream, &self.in_use);
            nameless.spawn(hand_over(
                self.node,
                self.role,
                self.is_bulk,
                halves,
                self.streams.clone(),
            ));
        }
    }
}

/// Reads what a stream is for, and gives it to the application.
async fn hand_over(
    peer: NodeId,
    role: Role,
    is_bulk: bool,
    (mut send, mut recv): (super::SendStream, super::RecvStream),
    streams: mpsc::Sender<IncomingStream>,
) {
    let mut kind = [0];
    match timeout(NAME_MAX, recv.read_exact(&mut kind)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(peer = %peer.short(), %error, "a stream ended before it began");
            return;
        }
        Err(_) => {
            tracing::warn!(peer = %peer.short(), "a stream did not say in time what it is for");
            send.abort(STREAM_BUSY);
            recv.abort(STREAM_BUSY);
            return;
        }
    }
    let stream = IncomingStream {
        peer,
        role,
        kind: StreamKind(kind[0]),
        is_bulk,
        send,
        recv,
    };
    if let Err(error) = streams.try_send(stream) {
        let mut stream = error.into_inner();
        tracing::warn!(peer = %peer.short(), "too many streams wait; turned one away");
        stream.send.abort(STREAM_BUSY);
        stream.recv.abort(STREAM_BUSY);
    }
}

#[cfg(test)]
mod tests;
