//! Where data streams meet whoever waits for them: the next stage, or the host.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gguf::Fingerprint;
use mesh::NodeId;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::spec::RingId;
use crate::transport::{Duplex, Transport};
use crate::wire::{Answer, Opening, Pace, read_answer, read_message, read_pace, write_message};

/// How long opening a stream may take. A new connection through a relay needs some seconds.
const OPEN_MAX: Duration = Duration::from_secs(20);

/// How long the other side may take to answer on a stream that is open.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long a machine may take to find out how fast it is: its turn comes, a layer is cut from a file, or made up once
/// the headers have come, which takes two minutes at most, loaded and run.
const PACE_MAX: Duration = Duration::from_secs(180);

/// A place in one life of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Berth {
    pub(crate) ring: RingId,
    pub(crate) epoch: u32,
    pub(crate) place: u32,
}

/// Who may come to a berth, and whom it is told.
type Waiting = (NodeId, oneshot::Sender<Duplex>);

/// Streams that are expected. Only leases and rings of this process expect any, and there are few of
/// them; whatever else comes is turned away.
#[derive(Debug, Default)]
pub(crate) struct Dock {
    waiting: Mutex<BTreeMap<Berth, Waiting>>,
}

/// Waits for one stream; nobody does once it is dropped.
#[derive(Debug)]
pub(crate) struct Expected {
    dock: Arc<Dock>,
    berth: Berth,
    receiver: oneshot::Receiver<Duplex>,
}

impl Expected {
    /// The stream; `None` if it was expected anew by somebody else.
    pub(crate) async fn stream(&mut self) -> Option<Duplex> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.receiver.close();
        let waiting = self.dock.waiting.lock();
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        if waiting.get(&self.berth).is_some_and(|(_, s)| s.is_closed()) {
            waiting.remove(&self.berth);
        }
    }
}

impl Dock {
    /// From now on `peer`, and nobody else, may send to this berth.
    pub(crate) fn expect(self: &Arc<Self>, berth: Berth, peer: NodeId) -> Expected {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(berth, (peer, sender));
        Expected {
            dock: Arc::clone(self),
            berth,
            receiver,
        }
    }

    fn take(&self, berth: Berth, peer: NodeId) -> Option<oneshot::Sender<Duplex>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(&berth).filter(|(from, _)| *from == peer)?;
        waiting.remove(&berth).map(|(_, sender)| sender)
    }

    /// A stream has come.
    pub(crate) async fn arrive(&self, berth: Berth, peer: NodeId, mut stream: Duplex) {
        let sender = self.take(berth, peer).filter(|sender| !sender.is_closed());
        let answer = match &sender {
            Some(_) => Answer::Welcome,
            None => {
                tracing::debug!(peer = peer.short(), ring = %berth.ring, "an unexpected stream");
                Answer::NotExpected
            }
        };
        let bytes = answer.to_bytes();
        let written = timeout(ANSWER_MAX, write_message(&mut stream.write, &bytes)).await;
        if let (Some(sender), Ok(Ok(()))) = (sender, written) {
            // Whoever waited may have given up just now; then the stream ends here.
            let _ = sender.send(stream);
        }
    }
}

/// Opens a stream and says what it is for.
pub(crate) async fn open(
    transport: &dyn Transport,
    peer: NodeId,
    opening: Opening,
) -> io::Result<Duplex> {
    let opened = async {
        let mut stream = transport.open(peer).await?;
        write_message(&mut stream.write, &opening.to_bytes()).await?;
        Ok(stream)
    };
    match timeout(OPEN_MAX, opened).await {
        Ok(opened) => opened,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it can't be reached",
        )),
    }
}

/// Asks `peer` how fast it computes a model. `None`: it does not say.
pub(crate) async fn pace(
    transport: &dyn Transport,
    peer: NodeId,
    model: Fingerprint,
) -> Option<Pace> {
    let opened = open(transport, peer, Opening::Measure { model }).await;
    let mut stream = opened.ok()?;
    let answer = timeout(PACE_MAX, read_message(&mut stream.read)).await;
    read_pace(&answer.ok()?.ok()??).ok()
}

/// Opens a data stream to a berth at `peer`.
pub(crate) async fn dial(
    transport: &dyn Transport,
    peer: NodeId,
    berth: Berth,
) -> io::Result<Duplex> {
    let Berth { ring, epoch, place } = berth;
    let mut stream = open(transport, peer, Opening::Data { ring, epoch, place }).await?;
    let answer = timeout(ANSWER_MAX, read_message(&mut stream.read)).await;
    let other = |text: String| io::Error::other(text);
    let bytes = match answer {
        Ok(Ok(Some(bytes))) => bytes,
        Ok(Ok(None)) => return Err(other("it turned the stream away".to_owned())),
        Ok(Err(error)) => return Err(other(error.to_string())),
        Err(_) => {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it does not answer",
            ));
        }
    };
    match read_answer(&bytes) {
        Ok(Answer::Welcome) => Ok(stream),
        Ok(Answer::NotExpected) => Err(other("it does not expect the stream".to_owned())),
        Err(error) => Err(other(error.to_string())),
    }
}
