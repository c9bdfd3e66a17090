//! Owns what a source of chunks is, and the nearest one: files of this machine.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::chunk::Chunk;
use super::fetch::Work;
use super::holding::Holding;

/// Where a source is. Nearer ones are asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// This machine.
    Local,
    /// A member of the mesh.
    Peer,
    /// The hub.
    Hub,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "this machine",
            Self::Peer => "peer",
            Self::Hub => "hub",
        })
    }
}

/// Why a source gave less than it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It may be better in a while.
    #[error("{0}")]
    Broken(String),
    /// It will not get better.
    #[error("{0}")]
    Gone(String),
}

/// The future of [`Source::fetch`].
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>>;

/// Somebody who has chunks.
pub trait Source: Send + Sync + 'static {
    /// Its name, for people.
    fn name(&self) -> String;
    /// Where it is.
    fn tier(&self) -> Tier;
    /// Whether it has a tensor. Tensors are counted in the order of names.
    fn has(&self, tensor: u32) -> bool;
    /// Brings chunks, each to the sink under its place in `chunks`, in any order. Must end by
    /// itself within a bounded time. Dropping the future ends it.
    fn fetch<'a>(&'a self, chunks: &'a [Chunk], sink: &'a Sink) -> Fetching<'a>;
}

/// Takes the chunks of one batch: checks them, writes them, and tells the schedule.
#[derive(Debug)]
pub struct Sink {
    pub(crate) work: Arc<Work>,
    pub(crate) batch: u64,
    /// For each place in the batch, the chunk's index in the job.
    pub(crate) indices: Vec<u32>,
}

impl Sink {
    /// A chunk has come. Anything but the bytes that the manifest names counts against the source.
    pub async fn chunk(&self, place: usize, bytes: Vec<u8>) {
        if let Some(&index) = self.indices.get(place) {
            self.work.take(self.batch, index, bytes).await;
        }
    }

    /// The source does not have a chunk after all.
    pub async fn missing(&self, place: usize) {
        if let Some(&index) = self.indices.get(place) {
            self.work.miss(self.batch, index).await;
        }
    }
}

/// Files of this machine: a whole model, or slices of other layers.
#[derive(Debug)]
pub struct LocalSource {
    holding: Arc<Holding>,
}

impl LocalSource {
    /// A source of what is held here.
    #[must_use]
    pub fn new(holding: Arc<Holding>) -> Self {
        Self { holding }
    }
}

impl Source for LocalSource {
    fn name(&self) -> String {
        Tier::Local.to_string()
    }

    fn tier(&self) -> Tier {
        Tier::Local
    }

    fn has(&self, tensor: u32) -> bool {
        self.holding.has(tensor)
    }

    fn fetch<'a>(&'a self, chunks: &'a [Chunk], sink: &'a Sink) -> Fetching<'a> {
        Box::pin(async move {
            for (place, chunk) in chunks.iter().enumerate() {
                let (holding, id) = (Arc::clone(&self.holding), chunk.id);
                let read = tokio::task::spawn_blocking(move || holding.read(id)).await;
                match read {
                    Ok(Ok(bytes)) => sink.chunk(place, bytes).await,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "cannot read weights of this machine");
                        sink.missing(place).await;
                    }
                    Err(error) => return Err(Fault::Broken(error.to_string())),
                }
            }
            Ok(())
        })
    }
}
