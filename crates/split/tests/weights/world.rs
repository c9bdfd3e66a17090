//! A model on disk, members that hold it, and ways to them that behave or do not.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use gguf::{Fingerprint, Model, SliceRole};
use split::weights::{
    Cache, CachedSlice, Dial, FetchError, Grant, Holding, Keeper, Manifest, PeerSource, Progress,
    Server, SliceJob, Source, fetch,
};
use tempfile::TempDir;
use testkit::model::{Architecture, ModelSpec};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::watch;

/// Bytes that a stream in memory holds before its writer waits.
const PIPE_BYTES: usize = 64 << 10;

/// A model in a folder of its own, and a slice of it that is wanted.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) file: Vec<u8>,
    pub(crate) model: Model,
    pub(crate) job: Arc<SliceJob>,
    pub(crate) manifest: Manifest,
}

/// A model of 17 MiB with several chunks in a tensor and many tensors in a chunk.
pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        width: 256,
        head_length: 64,
        feed_forward: 1200,
        vocab: 2500,
        ..ModelSpec::tiny(Architecture::Qwen3)
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(1..3, SliceRole::Stage)
    }

    pub(crate) fn of(layers: std::ops::Range<u32>, role: SliceRole) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let file = spec().to_bytes().unwrap();
        std::fs::write(&path, &file).unwrap();
        let model = Model::open(&path).unwrap();
        let job = Arc::new(SliceJob::of(&model, layers, role).unwrap());
        let manifest = Manifest::compute(&job, &[file.as_slice()], |_| true).unwrap();
        Self {
            folder,
            path,
            file,
            model,
            job,
            manifest,
        }
    }

    pub(crate) fn cache(&self, name: &str) -> Cache {
        Cache::open(self.folder.path().join(name), u64::MAX).unwrap()
    }

    /// What the slice must be.
    pub(crate) fn expected(&self) -> Vec<u8> {
        let plan = self.job.plan();
        plan.write(&[self.file.as_slice()], Vec::new(), |_| true)
            .unwrap()
    }

    /// A member with the whole model.
    pub(crate) fn member(&self) -> Member {
        Member::new(
            Some(Holding::whole(&self.model).unwrap()),
            Some(self.path.clone()),
            self.cache("member"),
        )
    }

    /// A member whose file has the same header and other weights.
    pub(crate) fn liar(&self) -> Member {
        let path = self.folder.path().join("other.gguf");
        let mut file = self.file.clone();
        let data = self.model.parts()[0].header.data_offset as usize;
        file[data..].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, file).unwrap();
        let model = Model::open(&path).unwrap();
        assert_eq!(model.fingerprint(), self.model.fingerprint());
        Member::new(
            Some(Holding::whole(&model).unwrap()),
            Some(path),
            self.cache("liar"),
        )
    }

    /// The same model in a file whose tensors stand in another order.
    pub(crate) fn reordered(&self) -> (PathBuf, Vec<u8>) {
        let mut plan = gguf::Plan::new(self.model.metadata().clone()).unwrap();
        let mut tensors: Vec<_> = self.model.tensors().collect();
        tensors.reverse();
        for t in &tensors {
            plan.add(&t.info.name, &t.info.dims, t.info.ggml_type)
                .unwrap();
        }
        let mut writer = plan.start(Vec::new()).unwrap();
        for t in &tensors {
            let range = t.file_range().unwrap();
            let bytes = &self.file[range.start as usize..range.end as usize];
            writer.tensor(&t.info.name, bytes).unwrap();
        }
        let file = writer.finish().unwrap();
        let path = self.folder.path().join("reordered.gguf");
        std::fs::write(&path, &file).unwrap();
        (path, file)
    }

    /// The member as a source of everything.
    pub(crate) fn source(&self, name: &str, way: Way) -> Arc<dyn Source> {
        let all = vec![true; self.model.tensors().count()];
        let model = self.model.fingerprint();
        Arc::new(PeerSource::new(name.to_owned(), Arc::new(way), model, all))
    }

    pub(crate) async fn fetch(
        &self,
        cache: &Cache,
        sources: Vec<Arc<dyn Source>>,
    ) -> (Result<CachedSlice, FetchError>, Progress) {
        let (progress, seen) = watch::channel(Progress::default());
        let job = Arc::clone(&self.job);
        let slice = fetch(job, &self.manifest, sources, cache, &roomy, &progress).await;
        let seen = seen.borrow().clone();
        (slice, seen)
    }
}

/// A disk with room for anything.
pub(crate) fn roomy(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

/// What a member holds and gives.
pub(crate) struct Shelf {
    pub(crate) grant: Grant,
    pub(crate) holding: Option<Arc<Holding>>,
    pub(crate) path: Option<PathBuf>,
}

impl Keeper<u32> for Shelf {
    fn grant(&self, _: &u32, _: Fingerprint) -> Grant {
        self.grant
    }
    fn holding(&self, model: Fingerprint) -> Option<Arc<Holding>> {
        self.holding.clone().filter(|h| h.model() == model)
    }
    fn path(&self, _: Fingerprint) -> Option<PathBuf> {
        self.path.clone()
    }
}

/// A member of the mesh that answers.
#[derive(Clone)]
pub(crate) struct Member(pub(crate) Server<u32, Shelf>);

impl Member {
    pub(crate) fn new(holding: Option<Holding>, path: Option<PathBuf>, cache: Cache) -> Self {
        Self::granting(Grant::Weights, holding, path, cache)
    }

    pub(crate) fn granting(
        grant: Grant,
        holding: Option<Holding>,
        path: Option<PathBuf>,
        cache: Cache,
    ) -> Self {
        let shelf = Shelf {
            grant,
            holding: holding.map(Arc::new),
            path,
        };
        Self(Server::new(shelf, cache))
    }

    pub(crate) fn way(&self) -> Way {
        Way {
            member: Some(self.clone()),
            bytes_left: Arc::new(AtomicU64::new(u64::MAX)),
            opened: Arc::default(),
        }
    }

    /// A way that breaks for good after so many bytes.
    pub(crate) fn way_of(&self, bytes: u64) -> Way {
        Way {
            bytes_left: Arc::new(AtomicU64::new(bytes)),
            ..self.way()
        }
    }
}

/// Opens streams in memory to a member.
#[derive(Clone)]
pub(crate) struct Way {
    /// Nobody, who takes what is sent and says nothing.
    member: Option<Member>,
    pub(crate) bytes_left: Arc<AtomicU64>,
    pub(crate) opened: Arc<AtomicUsize>,
}

impl Way {
    pub(crate) fn silent() -> Self {
        Self {
            member: None,
            bytes_left: Arc::new(AtomicU64::new(u64::MAX)),
            opened: Arc::default(),
        }
    }
}

/// A half that breaks when the way's bytes are used up.
pub(crate) struct Recv {
    inner: ReadHalf<DuplexStream>,
    bytes_left: Arc<AtomicU64>,
}

impl AsyncRead for Recv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let bytes = (buf.filled().len() - before) as u64;
        let left = self.bytes_left.load(Ordering::SeqCst);
        if left < bytes || left == 0 {
            self.bytes_left.store(0, Ordering::SeqCst);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if left != u64::MAX {
            self.bytes_left.store(left - bytes, Ordering::SeqCst);
        }
        read
    }
}

impl Dial for Way {
    type Recv = Recv;
    type Send = WriteHalf<DuplexStream>;

    async fn open(&self) -> io::Result<(Recv, WriteHalf<DuplexStream>)> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        if self.bytes_left.load(Ordering::SeqCst) == 0 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        match self.member.clone() {
            Some(member) => {
                tokio::spawn(async move {
                    let (recv, send) = tokio::io::split(theirs);
                    // The asking side sees what goes wrong.
                    let _ = member.0.answer(&1, recv, send).await;
                });
            }
            None => {
                tokio::spawn(async move {
                    let _theirs = theirs;
                    std::future::pending::<()>().await;
                });
            }
        }
        let (inner, send) = tokio::io::split(ours);
        let bytes_left = Arc::clone(&self.bytes_left);
        Ok((Recv { inner, bytes_left }, send))
    }
}
