//! Owns the order in which a slice is looked for: cache, own file, members, hub.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gguf::{Model, ReadError};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::ask::{AskError, Dial, PeerSource, ask_headers, ask_holdings, ask_manifest};
use super::cache::{Cache, CacheError, CachedSlice};
use super::chunk::{JobError, SliceJob, SliceKey};
use super::fetch::{FetchError, begin, fetch};
use super::headers::HeadersError;
use super::http::{HttpSource, HubFiles};
use super::progress::{Phase, Progress, SourceProgress};
use super::serve::StopOnDrop;
use super::source::{LocalSource, Source, Tier};

/// How long members may take to say what they have. Who is slower is not asked for weights.
const HOLDINGS_TIME_MAX: Duration = Duration::from_secs(10);

/// Most members that are asked what they have.
const PEERS_MAX: usize = 30;

/// Who may have a slice's weights.
#[derive(Debug)]
pub struct Suppliers<D> {
    /// A file of this machine with the whole model, by its fingerprint.
    pub own: Option<PathBuf>,
    /// The host of the split model: gives hashes and headers, and weights if it shares them.
    pub host: Arc<D>,
    /// Name and way to every member that may have some of the model, the nearest first. The host
    /// is one of them only if it stands here too.
    pub peers: Vec<(String, Arc<D>)>,
    /// The hub's files, where they are known.
    pub hub: Option<HubFiles>,
}

/// Why there is no slice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObtainError {
    /// The slice did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The cache fails.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The model cannot be cut so.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The own file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The host does not give what the weights are checked with.
    #[error("the host does not give the hashes of the weights: {0}")]
    Manifest(AskError),
    /// Nobody gives the headers.
    #[error("the host does not give the model's headers: {0}")]
    Headers(AskError),
    /// The headers that came cannot be used.
    #[error(transparent)]
    Unusable(#[from] HeadersError),
    /// The HTTP client cannot be set up.
    #[error("cannot ask the hub: {0}")]
    Hub(io::Error),
    /// A bug of ours.
    #[error("looking for weights failed: {0}")]
    Broken(#[from] JoinError),
}

impl ObtainError {
    /// Whether the same slice is being made by somebody else on this machine: it may be there when one looks again.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let (Self::Cache(error) | Self::Fetch(FetchError::Cache(error))) = self else {
            return false;
        };
        matches!(error, CacheError::Busy { .. })
    }
}

/// Brings a slice to this machine, if it is not here yet. Where from, in order: the cache; the own
/// file of the whole model; slices of other layers, members and the hub, chunk by chunk.
/// `free_bytes` says how much room the disk of a folder has. Dropping the future ends the work, and
/// what has come is kept.
///
/// # Errors
/// [`ObtainError`].
pub async fn obtain<D: Dial>(
    key: &SliceKey,
    suppliers: Suppliers<D>,
    cache: &Cache,
    free_bytes: &(dyn Fn(&Path) -> io::Result<u64> + Send + Sync),
    progress: &watch::Sender<Progress>,
) -> Result<CachedSlice, ObtainError> {
    if let Some(slice) = cache.lookup(key)? {
        return Ok(slice);
    }
    progress.send_replace(Progress::default());
    if let Some(path) = suppliers.own.clone() {
        match cut(key, path, cache, free_bytes, progress).await {
            Ok(Some(slice)) => return Ok(slice),
            Ok(None) => tracing::warn!("a file is no longer the model that it was"),
            // The others may have what the own file has lost.
            Err(ObtainError::Read(error)) => tracing::warn!(%error, "cannot read the own model"),
            Err(error) => return Err(error),
        }
    }
    let model = Arc::new(headers(key, &suppliers, cache).await?);
    let job = Arc::new(SliceJob::of(&model, key.layers.clone(), key.role)?);
    let (sources, _in_use) = sources(&job, model, suppliers.peers, suppliers.hub, cache).await?;
    let manifest = ask_manifest(suppliers.host.as_ref(), &job).await;
    let manifest = manifest.map_err(ObtainError::Manifest)?;
    Ok(fetch(job, &manifest, sources, cache, free_bytes, progress).await?)
}

/// Cuts the slice out of a whole model; `None` if the file is another model.
async fn cut(
    key: &SliceKey,
    path: PathBuf,
    cache: &Cache,
    free_bytes: &(dyn Fn(&Path) -> io::Result<u64> + Send + Sync),
    progress: &watch::Sender<Progress>,
) -> Result<Option<CachedSlice>, ObtainError> {
    let model = spawn_blocking(move || Model::open(path)).await??;
    if model.fingerprint() != key.model {
        return Ok(None);
    }
    let job = Arc::new(SliceJob::of(&model, key.layers.clone(), key.role)?);
    let partial = begin(&job, cache, free_bytes).await?;
    let total = job.chunk_bytes();
    progress.send_replace(Progress {
        phase: Phase::Cutting,
        bytes_total: total,
        sources: vec![SourceProgress {
            name: Tier::Local.to_string(),
            tier: Tier::Local,
            bytes: 0,
            left_out: None,
        }],
        ..Progress::default()
    });
    let sources = model.open_sources()?;
    let (cache, progress) = (cache.clone(), progress.clone());
    let stop = StopOnDrop::default();
    let stopped = Arc::clone(&stop.0);
    let cutting = spawn_blocking(move || {
        let whole = partial.cut(&job, &sources, |bytes| {
            progress.send_modify(|progress| {
                progress.bytes_done = bytes;
                if let Some(own) = progress.sources.first_mut() {
                    own.bytes = bytes;
                }
            });
            !stopped.load(Ordering::Relaxed)
        });
        match whole {
            Ok(true) => partial.finish(&cache, &job).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        }
    });
    Ok(cutting.await??)
}

/// The headers of the whole model, from the cache, the host or the hub.
async fn headers<D: Dial>(
    key: &SliceKey,
    suppliers: &Suppliers<D>,
    cache: &Cache,
) -> Result<Model, ObtainError> {
    let (own, wanted) = (cache.clone(), key.model);
    if let Some((_, model)) = spawn_blocking(move || own.headers(wanted)).await? {
        return Ok(model);
    }
    let (headers, model) = match ask_headers(suppliers.host.as_ref(), key.model).await {
        Ok(read) => read,
        Err(error) => {
            let Some(hub) = suppliers.hub.clone() else {
                return Err(ObtainError::Headers(error));
            };
            tracing::info!(%error, "the host gives no headers, the hub is asked");
            let hub = HttpSource::new(hub).map_err(ObtainError::Hub)?;
            hub.headers(key.model).await?
        }
    };
    let own = cache.clone();
    let kept = spawn_blocking(move || own.save_headers(wanted, &headers)).await?;
    if let Err(error) = kept {
        tracing::debug!(%error, "headers of a model are not kept");
    }
    Ok(model)
}

/// Everybody who has some of the slice, and the files of the cache that must stay meanwhile.
async fn sources<D: Dial>(
    job: &Arc<SliceJob>,
    model: Arc<Model>,
    peers: Vec<(String, Arc<D>)>,
    hub: Option<HubFiles>,
    cache: &Cache,
) -> Result<(Vec<Arc<dyn Source>>, Vec<CachedSlice>), ObtainError> {
    let mut out: Vec<Arc<dyn Source>> = Vec::new();
    let (own, whole) = (cache.clone(), Arc::clone(&model));
    let (holding, in_use) = spawn_blocking(move || own.holding(&whole)).await??;
    if let Some(holding) = holding {
        out.push(Arc::new(LocalSource::new(Arc::new(holding))));
    }
    if let Some(files) = hub {
        match hub_source(files, &model).await {
            Ok(hub) => out.push(Arc::new(hub)),
            Err(error) => tracing::warn!(%error, "the hub is of no use"),
        }
    }
    let mut asking = JoinSet::new();
    for (place, (name, dial)) in peers.into_iter().take(PEERS_MAX).enumerate() {
        let job = Arc::clone(job);
        asking.spawn(async move {
            let has = timeout(HOLDINGS_TIME_MAX, ask_holdings(dial.as_ref(), &job)).await;
            (place, name, dial, has)
        });
    }
    let mut found = Vec::new();
    while let Some(answer) = asking.join_next().await {
        let (place, name, dial, has) = answer?;
        match has {
            Ok(Ok(has)) => {
                let source = PeerSource::new(name, dial, job.key().model, has);
                found.push((place, source));
            }
            Ok(Err(error)) => tracing::debug!(name, %error, "a member gives no weights"),
            Err(_) => tracing::debug!(name, "a member does not say what it has"),
        }
    }
    found.sort_by_key(|(place, _)| *place);
    for (_, source) in found {
        out.push(Arc::new(source));
    }
    Ok((out, in_use))
}

/// The hub as a source. Its files are those that the headers describe, or else divide the same
/// model otherwise, and then its own headers say where the tensors lie.
async fn hub_source(files: HubFiles, model: &Model) -> Result<HttpSource, ObtainError> {
    let same = files.files.len() == model.parts().len();
    let hub = HttpSource::new(files).map_err(ObtainError::Hub)?;
    if same {
        return Ok(hub);
    }
    let (_, own) = hub.headers(model.fingerprint()).await?;
    Ok(hub.with_layout(&own)?)
}
