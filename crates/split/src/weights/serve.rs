//! Owns the holder's side: who may have what, how much at once, and the answer to each ask. It
//! gives out headers, hashes and chunks of models, and no other bytes of any file.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gguf::{Fingerprint, Model};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cache::Cache;
use super::chunk::{CHUNK_BYTES, ChunkId, SliceJob, SliceKey};
use super::headers::Headers;
use super::holding::Holding;
use super::manifest::Manifest;
use super::place::HubPlace;
use super::wire::{
    ASK_BYTES_MAX, Answer, Ask, Garbled, Refusal, pack_bits, read_frame, write_answer,
};

/// Asks of one peer at a time: twice what one fetch sends. Each holds one chunk in memory, so this
/// also bounds the bytes in flight to a peer, at 8 MiB.
const ASKS_PER_PEER_MAX: u32 = 8;

/// Asks in all: 64 MiB of chunks.
const ASKS_MAX: u32 = 64;

/// How long a peer may take to say what it wants.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a peer may take to read one frame: a chunk at 140 kbit/s.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a peer may take to read all chunks of one ask. Asks of slow peers are short, because
/// they ask for about a second's worth.
const CHUNKS_TIME_MAX: Duration = Duration::from_secs(600);

/// How often a peer that waits for hashes is told that they are being made.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How much of a model a peer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// Nothing.
    Nothing,
    /// Headers and hashes: what a worker needs to check the weights it gets elsewhere.
    Proof,
    /// The weights too.
    Weights,
}

/// Whether a mesh's members give each other weights: in private meshes, and where the owner asked
/// for it. Who publishes a mesh need not want to pay for strangers' downloads.
#[must_use]
pub fn shares_weights(mesh_is_published: bool, asked_for: Option<bool>) -> bool {
    asked_for.unwrap_or(!mesh_is_published)
}

/// Says what this machine holds and who may have it. `P` names a peer.
pub trait Keeper<P>: Send + Sync + 'static {
    /// What the peer may have of a model.
    fn grant(&self, peer: &P, model: Fingerprint) -> Grant;
    /// Where this machine has the model's tensors, if it has any.
    fn holding(&self, model: Fingerprint) -> Option<Arc<Holding>>;
    /// The file of the whole model, or the first of its files, if it is here.
    fn path(&self, model: Fingerprint) -> Option<PathBuf>;
}

/// Why an ask was cut off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The peer breaks the protocol.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// It sends too much, or the stream broke.
    #[error("the ask does not arrive: {0}")]
    Ask(String),
    /// It does not read, or does not ask.
    #[error("the peer is silent")]
    Silent,
    /// It left, or wants no more.
    #[error("the peer is gone: {0}")]
    Gone(#[from] io::Error),
}

/// Answers asks. A handle that is cheap to clone.
#[derive(Debug)]
pub struct Server<P, K> {
    shared: Arc<Shared<P, K>>,
}

impl<P, K> Clone for Server<P, K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

#[derive(Debug)]
struct Shared<P, K> {
    keeper: K,
    cache: Cache,
    /// Running asks of each peer that has any.
    asks: Mutex<BTreeMap<P, u32>>,
    /// One slice is hashed at a time: it takes the whole disk anyway.
    hashing: Arc<Semaphore>,
}

/// One running ask.
struct Running<'a, P: Ord, K> {
    shared: &'a Shared<P, K>,
    peer: &'a P,
}

impl<P: Ord, K> Drop for Running<'_, P, K> {
    fn drop(&mut self) {
        let mut asks = lock(&self.shared.asks);
        if let Some(own) = asks.get_mut(self.peer) {
            *own -= 1;
            if *own == 0 {
                asks.remove(self.peer);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Ord + Clone + Send + Sync + 'static, K: Keeper<P>> Server<P, K> {
    /// A server of what `keeper` holds. Hashes and headers are kept in the cache's folder.
    pub fn new(keeper: K, cache: Cache) -> Self {
        Self {
            shared: Arc::new(Shared {
                keeper,
                cache,
                asks: Mutex::default(),
                hashing: Arc::new(Semaphore::new(1)),
            }),
        }
    }

    /// Answers the one ask of a stream and ends its sending half. Dropping the future ends it.
    ///
    /// # Errors
    /// When the peer breaks the protocol, stalls, or leaves: the stream should be reset then. A
    /// refusal is no error.
    pub async fn answer(
        &self,
        peer: &P,
        mut recv: impl AsyncRead + Unpin,
        mut send: impl AsyncWrite + Unpin,
    ) -> Result<(), ServeError> {
        self.run(peer, &mut recv, &mut send).await?;
        match timeout(WRITE_TIME_MAX, send.shutdown()).await {
            Ok(ended) => Ok(ended?),
            Err(_) => Err(ServeError::Silent),
        }
    }

    async fn run(
        &self,
        peer: &P,
        recv: &mut (impl AsyncRead + Unpin),
        send: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), ServeError> {
        let Some(_running) = self.begin(peer) else {
            return say(send, Answer::Refused(Refusal::Busy)).await;
        };
        let frame = match timeout(ASK_TIME_MAX, read_frame(recv, ASK_BYTES_MAX)).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return Err(ServeError::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(Err(error)) => return Err(ServeError::Ask(error.to_string())),
            Err(_) => return Err(ServeError::Silent),
        };
        let ask = Ask::from_bytes(&frame)?;
        let needed = match ask {
            Ask::Headers(_) | Ask::Manifest(_) | Ask::Place(_) => Grant::Proof,
            Ask::Holdings(_) | Ask::Chunks(..) => Grant::Weights,
        };
        if self.shared.keeper.grant(peer, ask.model()) < needed {
            return say(send, Answer::Refused(Refusal::Closed)).await;
        }
        match ask {
            Ask::Headers(model) => self.headers(model, send).await,
            Ask::Holdings(model) => match self.shared.keeper.holding(model) {
                Some(holding) => say_body(send, &pack_bits(holding.tensors())).await,
                None => say(send, Answer::Refused(Refusal::Unknown)).await,
            },
            Ask::Manifest(key) => self.manifest(key, send).await,
            Ask::Place(model) => self.place(model, send).await,
            Ask::Chunks(model, ids) => {
                let giving = self.chunks(model, ids, send);
                let given = timeout(CHUNKS_TIME_MAX, giving).await;
                given.map_err(|_| ServeError::Silent)?
            }
        }
    }

    fn begin<'a>(&'a self, peer: &'a P) -> Option<Running<'a, P, K>> {
        let mut asks = lock(&self.shared.asks);
        let all: u32 = asks.values().sum();
        let own = asks.get(peer).copied().unwrap_or(0);
        if own >= ASKS_PER_PEER_MAX || all >= ASKS_MAX {
            return None;
        }
        asks.insert(peer.clone(), own + 1);
        Some(Running {
            shared: &self.shared,
            peer,
        })
    }

    async fn headers(
        &self,
        model: Fingerprint,
        send: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), ServeError> {
        let shared = Arc::clone(&self.shared);
        let read = move || {
            let Some(path) = shared.keeper.path(model) else {
                let kept = shared.cache.headers(model);
                return kept.map(|(headers, _)| headers).ok_or(Refusal::Unknown);
            };
            let whole = open(path, model)?;
            let sources = whole.open_sources().map_err(failed)?;
            Headers::of(&whole, &sources).map_err(failed)
        };
        match blocking(read, send).await? {
            Ok(headers) => say_body(send, &headers.to_bytes()).await,
            Err(refusal) => say(send, Answer::Refused(refusal)).await,
        }
    }

    async fn place(
        &self,
        model: Fingerprint,
        send: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), ServeError> {
        let shared = Arc::clone(&self.shared);
        let read = move || {
            let path = shared.keeper.path(model).ok_or(Refusal::Unknown)?;
            Ok(HubPlace::of(&open(path, model)?))
        };
        match blocking(read, send).await? {
            Ok(place) => {
                let bytes = place.map(|place| place.to_bytes());
                say_body(send, &bytes.unwrap_or_default()).await
            }
            Err(refusal) => say(send, Answer::Refused(refusal)).await,
        }
    }

    async fn manifest(
        &self,
        key: SliceKey,
        send: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), ServeError> {
        let Some(path) = self.shared.keeper.path(key.model) else {
            return say(send, Answer::Refused(Refusal::Unknown)).await;
        };
        let turn = Arc::clone(&self.shared.hashing).acquire_owned();
        let turn = waiting(turn, send).await?;
        let folder = self.shared.cache.folder().to_owned();
        let stop = StopOnDrop::default();
        let stopped = Arc::clone(&stop.0);
        let compute = move || {
            let _turn = turn;
            let model = open(path, key.model)?;
            let job = SliceJob::of(&model, key.layers, key.role).map_err(|error| {
                tracing::debug!(%error, "a peer asks for the hashes of an impossible slice");
                Refusal::Unknown
            })?;
            let go_on = |_| !stopped.load(Ordering::Relaxed);
            Manifest::compute_cached(&job, &model, &folder, go_on).map_err(failed)
        };
        match blocking(compute, send).await? {
            Ok(manifest) => say_body(send, &manifest.to_bytes()).await,
            Err(refusal) => say(send, Answer::Refused(refusal)).await,
        }
    }

    async fn chunks(
        &self,
        model: Fingerprint,
        ids: Vec<ChunkId>,
        send: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), ServeError> {
        let Some(holding) = self.shared.keeper.holding(model) else {
            return say(send, Answer::Refused(Refusal::Unknown)).await;
        };
        for id in ids {
            let holding = Arc::clone(&holding);
            let read = move || match holding.read(id) {
                Ok(bytes) => Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::Unknown),
                Err(error) => Err(failed(error)),
            };
            let answer = blocking(read, send).await?;
            let answer = answer.map_or_else(Answer::Refused, Answer::Data);
            say(send, answer).await?;
        }
        Ok(())
    }
}

/// Ends blocking work when nobody waits for it any more.
#[derive(Debug, Default)]
pub(crate) struct StopOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn open(path: PathBuf, wanted: Fingerprint) -> Result<Model, Refusal> {
    let model = Model::open(path).map_err(failed)?;
    if model.fingerprint() != wanted {
        // The file was replaced.
        return Err(Refusal::Unknown);
    }
    Ok(model)
}

/// Our own trouble is for our own log.
fn failed(error: impl std::fmt::Display) -> Refusal {
    tracing::warn!(%error, "weights cannot be given to a peer");
    Refusal::Failed
}

/// Runs blocking work, with signs of life meanwhile.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    send: &mut (impl AsyncWrite + Unpin),
) -> Result<Result<T, Refusal>, ServeError> {
    let work: JoinHandle<_> = tokio::task::spawn_blocking(work);
    // Panics only on our own bugs, and then only this ask is lost.
    Ok(waiting(work, send)
        .await?
        .unwrap_or_else(|error| Err(failed(error))))
}

/// Waits for `work`, with signs of life meanwhile.
async fn waiting<T>(
    work: impl Future<Output = T>,
    send: &mut (impl AsyncWrite + Unpin),
) -> Result<T, ServeError> {
    let mut work = std::pin::pin!(work);
    loop {
        match timeout(ALIVE_INTERVAL, &mut work).await {
            Ok(done) => return Ok(done),
            Err(_) => say(send, Answer::Alive).await?,
        }
    }
}

async fn say(send: &mut (impl AsyncWrite + Unpin), answer: Answer) -> Result<(), ServeError> {
    match timeout(WRITE_TIME_MAX, write_answer(send, &answer)).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(ServeError::Silent),
    }
}

async fn say_body(send: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), ServeError> {
    say(send, Answer::Body(bytes.len() as u64)).await?;
    for data in bytes.chunks(CHUNK_BYTES as usize) {
        say(send, Answer::Data(data.to_vec())).await?;
    }
    Ok(())
}
