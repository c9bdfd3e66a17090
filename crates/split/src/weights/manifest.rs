//! Owns the list of hashes that a slice's chunks must have, how the owner of a model computes it,
//! and where it keeps hashes that are known. Who may be believed is said in the parent module.

use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use gguf::{ByteSource, Model, ReadError};

use super::chunk::{ChunkId, JobError, SliceJob, TensorTable};
use super::holding::read_exact_at;

/// BLAKE3 of a chunk's bytes.
pub type Hash = [u8; 32];

/// A hash that is not known yet. No chunk has it: finding one would break BLAKE3.
const UNKNOWN: Hash = [0; 32];

/// The hashes of a slice's chunks, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    hashes: Vec<Hash>,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not as many hashes as the slice has chunks.
    #[error("the manifest has {found} bytes and the slice needs {wanted}")]
    Length {
        /// Bytes for the slice.
        wanted: usize,
        /// Bytes that came.
        found: usize,
    },
    /// The model's files could not be read.
    #[error("cannot hash the model's weights: {0}")]
    Io(#[from] io::Error),
    /// The model's files could not be opened.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No such slice.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Whoever watched asked to stop.
    #[error("stopped before all weights were hashed")]
    Stopped,
}

impl Manifest {
    /// Hashes a slice's chunks. `sources` are the model's files in order. `progress` is told the
    /// bytes done and stops the work by returning false. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read, or `progress` stops it.
    pub fn compute<S: ByteSource>(
        job: &SliceJob,
        sources: &[S],
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<Self, ManifestError> {
        let mut hashes = vec![UNKNOWN; job.chunks().len()];
        fill(job, sources, &mut hashes, &mut progress)?;
        let hashes = job.chunks_by_id().map(|(i, _)| hashes[i]).collect();
        Ok(Self { hashes })
    }

    /// [`Manifest::compute`] for a model opened by path. Hashes that were computed before are read
    /// from `folder`, as long as the files have the same size and time; new ones are added there.
    ///
    /// # Errors
    /// As [`Manifest::compute`]. A folder that cannot be written is no error.
    pub fn compute_cached(
        job: &SliceJob,
        model: &Model,
        folder: &Path,
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<Self, ManifestError> {
        let table = TensorTable::of(model)?;
        let path = folder.join(format!("{}.hashes", job.key().model));
        let stamp = stamp(model)?;
        let mut known = Known::load(path, stamp, table.chunks());
        let index = |id| table.index(id).unwrap_or(u64::MAX);
        let mut hashes: Vec<Hash> = job
            .chunks()
            .iter()
            .map(|c| known.get(index(c.id)))
            .collect();
        let new = hashes.contains(&UNKNOWN);
        if new {
            let filled = fill(job, &model.open_sources()?, &mut hashes, &mut progress);
            // Also of a slice that nobody waited for.
            for (chunk, hash) in job.chunks().iter().zip(&hashes) {
                known.set(index(chunk.id), *hash);
            }
            if let Err(error) = known.save() {
                tracing::warn!(%error, "hashes of weights are not kept");
            }
            filled?;
        }
        let hashes = job.chunks_by_id().map(|(i, _)| hashes[i]).collect();
        Ok(Self { hashes })
    }

    /// The hashes, one after the other.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }

    /// Reads what [`Manifest::to_bytes`] wrote for the same slice.
    ///
    /// # Errors
    /// [`ManifestError::Length`].
    pub fn from_bytes(bytes: &[u8], job: &SliceJob) -> Result<Self, ManifestError> {
        let wanted = Self::bytes_len(job);
        if bytes.len() != wanted {
            return Err(ManifestError::Length {
                wanted,
                found: bytes.len(),
            });
        }
        Ok(Self {
            hashes: bytes.as_chunks().0.to_vec(),
        })
    }

    /// Bytes of a slice's manifest.
    pub(crate) fn bytes_len(job: &SliceJob) -> usize {
        job.chunks().len() * size_of::<Hash>()
    }

    /// The hashes in the order of [`SliceJob::chunks`]; `None` for a manifest of another slice.
    pub(crate) fn in_job_order(&self, job: &SliceJob) -> Option<Vec<Hash>> {
        if self.hashes.len() != job.chunks().len() {
            return None;
        }
        let mut out = vec![UNKNOWN; self.hashes.len()];
        for ((i, _), hash) in job.chunks_by_id().zip(&self.hashes) {
            out[i] = *hash;
        }
        Some(out)
    }
}

/// Hashes the chunks of a job that are not known, in file order.
fn fill<S: ByteSource>(
    job: &SliceJob,
    sources: &[S],
    hashes: &mut [Hash],
    progress: &mut impl FnMut(u64) -> bool,
) -> Result<(), ManifestError> {
    let mut buffer = Vec::new();
    let mut done = 0u64;
    for (chunk, hash) in job.chunks().iter().zip(hashes) {
        if *hash == UNKNOWN {
            let source = sources.get(chunk.origin.part);
            let source = source.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            buffer.resize(chunk.len() as usize, 0);
            read_exact_at(source, chunk.origin.bytes.start, &mut buffer)?;
            *hash = blake3::hash(&buffer).into();
        }
        done += u64::from(chunk.len());
        if !progress(done) {
            return Err(ManifestError::Stopped);
        }
    }
    Ok(())
}

/// Names the present state of a model's files: paths, sizes and times.
fn stamp(model: &Model) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    for part in model.parts() {
        let meta = std::fs::metadata(&part.name)?;
        let time = meta.modified()?.duration_since(UNIX_EPOCH);
        let name = part.name.as_os_str().as_encoded_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(&meta.len().to_le_bytes());
        hasher.update(&time.unwrap_or_default().as_nanos().to_le_bytes());
    }
    Ok(hasher.finalize().into())
}

/// All hashes of a model that were ever computed: a file of a stamp and one hash for each chunk.
struct Known {
    path: PathBuf,
    stamp: Hash,
    hashes: Vec<Hash>,
}

impl Known {
    fn load(path: PathBuf, stamp: Hash, chunks: u64) -> Self {
        // The number of chunks is bounded by the tensor table.
        let chunks = chunks as usize;
        let bytes = std::fs::metadata(&path)
            .ok()
            .filter(|meta| meta.len() == ((chunks + 1) * size_of::<Hash>()) as u64)
            .and_then(|_| std::fs::read(&path).ok())
            .unwrap_or_default();
        let mut rows = bytes.as_chunks::<32>().0.iter().copied();
        let hashes = if rows.next() == Some(stamp) {
            rows.collect()
        } else {
            vec![UNKNOWN; chunks]
        };
        Self {
            path,
            stamp,
            hashes,
        }
    }

    fn get(&self, index: u64) -> Hash {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.hashes.get(index).copied().unwrap_or(UNKNOWN)
    }

    fn set(&mut self, index: u64, hash: Hash) {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(own) = self.hashes.get_mut(index) {
            *own = hash;
        }
    }

    fn save(&self) -> io::Result<()> {
        let new = self
            .path
            .with_extension(format!("hashes-{}", std::process::id()));
        let bytes = [&[self.stamp], self.hashes.as_slice()].concat().concat();
        std::fs::write(&new, bytes)?;
        std::fs::rename(&new, &self.path)
    }
}

/// Whether bytes are the chunk that was asked for.
pub(crate) fn matches(hash: &Hash, bytes: &[u8]) -> bool {
    blake3::hash(bytes).as_bytes() == hash
}

/// A chunk's name in messages.
pub(crate) fn describe(id: ChunkId) -> String {
    format!("chunk {} of tensor {}", id.number, id.tensor)
}

#[cfg(test)]
mod tests {
    use gguf::SliceRole;
    use testkit::model::{Architecture, ModelSpec};

    use super::*;

    #[test]
    fn hashes_are_computed_once_and_again_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let spec = ModelSpec::tiny(Architecture::Qwen3);
        let mut file = spec.to_bytes().unwrap();
        std::fs::write(&path, &file).unwrap();
        let model = Model::open(&path).unwrap();
        let job = SliceJob::of(&model, 1..3, SliceRole::Stage).unwrap();
        let mut calls = 0;
        let mut cached = |job: &SliceJob, model: &Model| {
            let mut done = 0;
            let count = |bytes| {
                done = bytes;
                true
            };
            let manifest = Manifest::compute_cached(job, model, folder.path(), count).unwrap();
            calls += 1;
            (manifest, done)
        };
        let (first, done) = cached(&job, &model);
        assert_eq!(done, job.chunk_bytes());
        let fresh = Manifest::compute(&job, &[file.as_slice()], |_| true).unwrap();
        assert_eq!(first, fresh);
        assert_eq!(cached(&job, &model), (first.clone(), 0));
        // A slice that overlaps needs only what is new; its own bytes are counted.
        let wider = SliceJob::of(&model, 0..3, SliceRole::Stage).unwrap();
        assert_eq!(cached(&wider, &model).1, wider.chunk_bytes());

        // A changed file is hashed again.
        let last = job.chunks().last().unwrap().origin.bytes.start as usize;
        file[last] ^= 1;
        file.push(0);
        std::fs::write(&path, &file).unwrap();
        let (changed, done) = cached(&job, &model);
        assert_eq!(done, job.chunk_bytes());
        assert_ne!(changed, first);
        assert_eq!(calls, 4);
    }

    #[test]
    fn manifests_travel_and_stop() {
        let file = ModelSpec::tiny(Architecture::Llama).to_bytes().unwrap();
        let model = Model::read([("m".into(), file.as_slice())]).unwrap();
        let job = SliceJob::of(&model, 0..4, SliceRole::Tail).unwrap();
        let manifest = Manifest::compute(&job, &[file.as_slice()], |_| true).unwrap();
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::from_bytes(&bytes, &job).unwrap(), manifest);
        let error = Manifest::from_bytes(&bytes[1..], &job).unwrap_err();
        assert!(matches!(error, ManifestError::Length { .. }));
        let stopped = Manifest::compute(&job, &[file.as_slice()], |_| false);
        assert!(matches!(stopped, Err(ManifestError::Stopped)));
        let hashes = manifest.in_job_order(&job).unwrap();
        for (chunk, hash) in job.chunks().iter().zip(hashes) {
            let range = chunk.origin.bytes.start as usize..chunk.origin.bytes.end as usize;
            assert!(matches(&hash, &file[range]), "{}", describe(chunk.id));
        }
    }
}
