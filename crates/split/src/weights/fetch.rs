//! Owns one fetch: runs what the schedule decides, checks and writes what comes, and says how far
//! it is. Its tasks end with it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::cache::{Cache, CacheError, CachedSlice};
use super::chunk::{Chunk, SliceJob};
use super::manifest::{Hash, Manifest, describe, matches};
use super::partial::Partial;
use super::progress::{Phase, Progress, SourceProgress};
use super::schedule::{Order, Refused, SOURCES_MAX, Schedule};
use super::source::{Fault, Sink, Source};

/// Bytes of the disk that a fetch leaves free, for whatever else the machine does.
const DISK_RESERVE_BYTES: u64 = 1 << 30;

/// Events between tasks and the schedule: a few for each batch under way.
const EVENTS_MAX: usize = 256;

/// Longest sleep. The schedule wakes the fetch before, or an event does.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Why a slice did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The disk is too small.
    #[error(
        "the slice needs {needed} bytes more and the disk at {} has {free}, of which {DISK_RESERVE_BYTES} stay free\nhint: make room, or put the cache on another disk",
        .folder.display()
    )]
    NoSpace {
        /// The cache.
        folder: PathBuf,
        /// Bytes that are missing.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The manifest is of another slice.
    #[error(
        "the hashes are those of another slice\nhint: the host may run another version of mesh-llm"
    )]
    Manifest,
    /// Nobody gives some chunk any more.
    #[error("nobody has {what} of {of} chunks{}\nhint: what has come is kept; try again when a machine with the model is back, or set a hub", reasons(.sources))]
    Stuck {
        /// The chunk.
        what: String,
        /// Chunks of the slice.
        of: usize,
        /// Every source.
        sources: Vec<SourceProgress>,
    },
    /// The cache fails.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The disk cannot be asked.
    #[error("cannot tell how much room the disk has: {0}")]
    Disk(io::Error),
    /// A bug of ours.
    #[error("fetching weights failed: {0}")]
    Broken(#[from] JoinError),
}

fn reasons(sources: &[SourceProgress]) -> String {
    let left_out = |s: &SourceProgress| Some(format!("; {}: {}", s.name, s.left_out.as_ref()?));
    sources.iter().filter_map(left_out).collect()
}

/// What the tasks of a fetch share.
#[derive(Debug)]
pub(crate) struct Work {
    job: Arc<SliceJob>,
    hashes: Vec<Hash>,
    partial: Partial,
    events: mpsc::Sender<Event>,
}

/// What a task has to tell.
#[derive(Debug)]
enum Event {
    Arrived {
        batch: u64,
        chunk: u32,
    },
    Refused {
        batch: u64,
        chunk: u32,
        why: Refused,
    },
    Disk(CacheError),
}

impl Work {
    /// Checks a chunk and writes it.
    pub(crate) async fn take(self: &Arc<Self>, batch: u64, chunk: u32, bytes: Vec<u8>) {
        let work = Arc::clone(self);
        let checked = spawn_blocking(move || {
            let index = chunk as usize;
            if !matches(&work.hashes[index], &bytes) {
                return Ok(false);
            }
            work.partial.write(&work.job, index, &bytes).map(|()| true)
        });
        let event = match checked.await {
            Ok(Ok(true)) => Event::Arrived { batch, chunk },
            Ok(Ok(false)) => Event::Refused {
                batch,
                chunk,
                why: Refused::Corrupt,
            },
            Ok(Err(error)) => Event::Disk(error),
            // The runtime is going down.
            Err(_) => return,
        };
        // Nobody listens once the fetch is over.
        let _ = self.events.send(event).await;
    }

    pub(crate) async fn miss(&self, batch: u64, chunk: u32) {
        let why = Refused::Missing;
        let event = Event::Refused { batch, chunk, why };
        let _ = self.events.send(event).await;
    }
}

/// Fetches a slice into the cache. At most 32 sources are asked; put the best first.
/// `free_bytes` says how much room the disk of a folder has. Dropping the future ends the fetch; what
/// has come is kept, and the next one goes on from there.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(
    job: Arc<SliceJob>,
    manifest: &Manifest,
    sources: Vec<Arc<dyn Source>>,
    cache: &Cache,
    free_bytes: &(dyn Fn(&Path) -> io::Result<u64> + Send + Sync),
    progress: &watch::Sender<Progress>,
) -> Result<CachedSlice, FetchError> {
    let hashes = manifest.in_job_order(&job).ok_or(FetchError::Manifest)?;
    let mut partial = begin(&job, cache, free_bytes).await?;
    progress.send_replace(Progress {
        phase: Phase::Checking,
        bytes_total: job.chunk_bytes(),
        ..Progress::default()
    });
    let resuming = Arc::clone(&job);
    let (partial, hashes, done) = spawn_blocking(move || {
        let done = partial.resume(&resuming, &hashes);
        (partial, hashes, done)
    })
    .await?;
    let done = done?;
    let (events, incoming) = mpsc::channel(EVENTS_MAX);
    let work = Arc::new(Work {
        job: Arc::clone(&job),
        hashes,
        partial,
        events,
    });
    let mut fetching = Fetching::new(work, sources, incoming, &done, progress);
    let outcome = fetching.run().await;
    fetching.tasks.shutdown().await;
    outcome?;
    // Somebody else's copy of a chunk may still be on its way to the disk, with the same bytes.
    let cache = cache.clone();
    let work = fetching.work;
    Ok(spawn_blocking(move || work.partial.finish(&cache, &job)).await??)
}

/// Makes room, and looks whether it is enough.
pub(crate) async fn begin(
    job: &Arc<SliceJob>,
    cache: &Cache,
    free_bytes: &(dyn Fn(&Path) -> io::Result<u64> + Send + Sync),
) -> Result<Partial, FetchError> {
    let (own, planned) = (cache.clone(), Arc::clone(job));
    let partial = spawn_blocking(move || own.begin(&planned)).await??;
    let file_bytes = job.plan().file_bytes();
    let needed = file_bytes.saturating_sub(partial.allocated_bytes());
    let short = || -> Result<(u64, u64), FetchError> {
        let free = free_bytes(cache.folder()).map_err(FetchError::Disk)?;
        let wanted = needed.saturating_add(DISK_RESERVE_BYTES);
        Ok((free, wanted.saturating_sub(free)))
    };
    let (_, missing) = short()?;
    let own = cache.clone();
    spawn_blocking(move || own.free_up(missing)).await??;
    match short()? {
        (_, 0) => Ok(partial),
        (free, _) => Err(FetchError::NoSpace {
            folder: cache.folder().to_owned(),
            needed,
            free,
        }),
    }
}

struct Fetching<'a> {
    work: Arc<Work>,
    sources: Vec<Arc<dyn Source>>,
    schedule: Schedule,
    tasks: JoinSet<(u64, Result<(), Fault>)>,
    incoming: mpsc::Receiver<Event>,
    progress: &'a watch::Sender<Progress>,
    began: Instant,
    /// For each batch under way its source.
    batches: BTreeMap<u64, usize>,
}

impl<'a> Fetching<'a> {
    fn new(
        work: Arc<Work>,
        mut sources: Vec<Arc<dyn Source>>,
        incoming: mpsc::Receiver<Event>,
        done: &[bool],
        progress: &'a watch::Sender<Progress>,
    ) -> Self {
        sources.truncate(SOURCES_MAX);
        let chunks = work.job.chunks();
        let mut schedule = Schedule::new(chunks.iter().map(Chunk::len).collect(), done);
        for source in &sources {
            schedule.add_source(source.tier(), |i| source.has(chunks[i].id.tensor));
        }
        let here = chunks.iter().zip(done).filter(|(_, done)| **done);
        let bytes = here.map(|(chunk, _)| u64::from(chunk.len())).sum();
        progress.send_replace(Progress {
            phase: Phase::Fetching,
            bytes_total: work.job.chunk_bytes(),
            bytes_done: bytes,
            bytes_resumed: bytes,
            sources: sources
                .iter()
                .map(|s| SourceProgress::of(s.as_ref()))
                .collect(),
        });
        Self {
            work,
            sources,
            schedule,
            tasks: JoinSet::new(),
            incoming,
            progress,
            began: Instant::now(),
            batches: BTreeMap::new(),
        }
    }

    async fn run(&mut self) -> Result<(), FetchError> {
        while !self.schedule.is_complete() {
            if let Some(chunk) = self.schedule.stuck() {
                let chunks = self.work.job.chunks();
                return Err(FetchError::Stuck {
                    what: describe(chunks[chunk as usize].id),
                    of: chunks.len(),
                    sources: self.progress.borrow().sources.clone(),
                });
            }
            let now = self.began.elapsed();
            while let Some(order) = self.schedule.next(now) {
                self.start(order);
            }
            let wake_at = self.schedule.wake_at(now);
            let wake_at = wake_at.unwrap_or(now + SLEEP_MAX).min(now + SLEEP_MAX);
            tokio::select! {
                // What has come is told before the end of its batch.
                biased;
                event = self.incoming.recv() => {
                    if let Some(event) = event {
                        self.handle(event)?;
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    let (batch, result) = ended?;
                    self.end(batch, result)?;
                }
                () = sleep_until(self.began + wake_at) => {}
            }
        }
        Ok(())
    }

    fn start(&mut self, order: Order) {
        let source = Arc::clone(&self.sources[order.source]);
        let all = self.work.job.chunks();
        let chunks: Vec<Chunk> = order
            .chunks
            .iter()
            .map(|&i| all[i as usize].clone())
            .collect();
        let sink = Sink {
            work: Arc::clone(&self.work),
            batch: order.batch,
            indices: order.chunks,
        };
        self.batches.insert(order.batch, order.source);
        self.tasks.spawn(async move {
            let result = source.fetch(&chunks, &sink).await;
            (sink.batch, result)
        });
    }

    fn handle(&mut self, event: Event) -> Result<(), FetchError> {
        let now = self.began.elapsed();
        match event {
            Event::Arrived { batch, chunk } => {
                let fresh = self.schedule.arrived(batch, chunk, now);
                let bytes = u64::from(self.work.job.chunks()[chunk as usize].len());
                let source = self.batches.get(&batch).copied();
                self.progress.send_if_modified(|progress| {
                    if fresh {
                        progress.bytes_done += bytes;
                        if let Some(s) = source.and_then(|s| progress.sources.get_mut(s)) {
                            s.bytes += bytes;
                        }
                    }
                    fresh
                });
            }
            Event::Refused { batch, chunk, why } => {
                let source = self.batches.get(&batch).copied();
                if let Some(source) = source {
                    let name = self.sources[source].name();
                    tracing::warn!(source = name, chunk, ?why, "a chunk did not come");
                }
                self.schedule.refused(batch, chunk, why);
                self.note_left_out(source);
            }
            Event::Disk(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn end(&mut self, batch: u64, result: Result<(), Fault>) -> Result<(), FetchError> {
        // Everything that the batch had to tell is in the queue by now.
        while let Ok(event) = self.incoming.try_recv() {
            self.handle(event)?;
        }
        let source = self.batches.remove(&batch);
        if let (Err(fault), Some(source)) = (&result, source) {
            tracing::info!(source = self.sources[source].name(), %fault, "a batch of weights broke off");
        }
        self.schedule.ended(batch, result, self.began.elapsed());
        self.note_left_out(source);
        Ok(())
    }

    fn note_left_out(&self, source: Option<usize>) {
        let Some(source) = source else { return };
        let Some(why) = self.schedule.out(source) else {
            return;
        };
        self.progress.send_if_modified(|progress| {
            let own = progress.sources.get_mut(source);
            own.is_some_and(|own| own.left_out.replace(why.to_owned()).is_none())
        });
    }
}
