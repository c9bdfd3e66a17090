//! Owns what a slice consists of for whoever moves it: chunks, their names, their places in the
//! model's files and in the slice.

use std::collections::BTreeMap;
use std::ops::Range;

use gguf::{
    FileRange, Fingerprint, KeyError, LayerMap, Model, PieceOrigin, SliceError, SlicePlan,
    SliceRole,
};

/// Most bytes of a chunk. Large enough that its hash and its frame cost nothing, small enough that
/// a bad one is fetched again in a moment.
pub const CHUNK_BYTES: u32 = 1 << 20;

/// Most chunks of one model: 4 TiB, several times the largest model there is.
const CHUNKS_MAX: u64 = 1 << 22;

/// Which slice of which model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SliceKey {
    /// The whole model.
    pub model: Fingerprint,
    /// Its layers, counted from 0.
    pub layers: Range<u32>,
    /// What it is for.
    pub role: SliceRole,
}

/// A chunk's name, the same for everybody who has the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId {
    /// The tensor, counted from 0 in the order of names, over all of the model's files.
    pub tensor: u32,
    /// Number in the tensor: it begins at so many [`CHUNK_BYTES`].
    pub number: u32,
}

/// Where a tensor lies in a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorRow {
    pub(crate) part: usize,
    pub(crate) start: u64,
    pub(crate) size: u64,
    /// Chunks of the tensors before it.
    first_chunk: u64,
}

/// All tensors of a model, in the order of names.
#[derive(Debug, Clone)]
pub struct TensorTable {
    rows: Vec<TensorRow>,
    chunks: u64,
}

/// Why no slice can be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The model cannot be cut so.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// A tensor's size is not known.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// More than anybody has.
    #[error("the model has more than {CHUNKS_MAX} chunks of {CHUNK_BYTES} bytes")]
    TooLarge,
}

impl TensorTable {
    /// The tensors of a model.
    ///
    /// # Errors
    /// When a tensor's size is not known, or the model is too large.
    pub fn of(model: &Model) -> Result<Self, JobError> {
        let mut tensors: Vec<_> = model.tensors().collect();
        tensors.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        let mut rows = Vec::with_capacity(tensors.len());
        let mut chunks = 0u64;
        for tensor in tensors {
            let range = tensor.file_range()?;
            let size = range.end - range.start;
            rows.push(TensorRow {
                part: tensor.part,
                start: range.start,
                size,
                first_chunk: chunks,
            });
            chunks = chunks.saturating_add(size.div_ceil(CHUNK_BYTES.into()));
        }
        if chunks > CHUNKS_MAX {
            return Err(JobError::TooLarge);
        }
        Ok(Self { rows, chunks })
    }

    /// Number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True for a model without tensors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Chunks of all tensors.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks
    }

    pub(crate) fn row(&self, tensor: u32) -> Option<&TensorRow> {
        self.rows.get(tensor as usize)
    }

    pub(crate) fn rows(&self) -> &[TensorRow] {
        &self.rows
    }

    /// The bytes of a chunk, counted from the start of its tensor; `None` for one that is not
    /// there.
    pub(crate) fn bytes(&self, id: ChunkId) -> Option<Range<u64>> {
        let size = self.row(id.tensor)?.size;
        let start = u64::from(id.number) * u64::from(CHUNK_BYTES);
        (start < size).then(|| start..size.min(start + u64::from(CHUNK_BYTES)))
    }

    /// Where a chunk lies in the model's files.
    pub(crate) fn origin(&self, id: ChunkId) -> Option<FileRange> {
        let (row, bytes) = (self.row(id.tensor)?, self.bytes(id)?);
        Some(FileRange {
            part: row.part,
            bytes: row.start + bytes.start..row.start + bytes.end,
        })
    }

    /// Number of a chunk among all chunks of the model.
    pub(crate) fn index(&self, id: ChunkId) -> Option<u64> {
        self.bytes(id)?;
        Some(self.row(id.tensor)?.first_chunk + u64::from(id.number))
    }
}

/// One chunk of a slice: its name and its places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its name.
    pub id: ChunkId,
    /// Its bytes in the model's files, as the headers at hand say.
    pub origin: FileRange,
    /// Where it begins in the slice's file, in bytes.
    pub target: u64,
}

impl Chunk {
    /// Its size in bytes, at most [`CHUNK_BYTES`].
    #[must_use]
    pub fn len(&self) -> u32 {
        // A chunk is cut to fit.
        (self.origin.bytes.end - self.origin.bytes.start) as u32
    }

    /// Never true; there are no empty chunks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A slice that is wanted: its plan and its chunks. Made from headers alone.
#[derive(Debug, Clone)]
pub struct SliceJob {
    key: SliceKey,
    plan: SlicePlan,
    /// In the order in which they lie in the slice.
    chunks: Vec<Chunk>,
    /// Indices of `chunks`, in the order of their names.
    by_id: Vec<u32>,
    tensors: usize,
}

impl SliceJob {
    /// Plans a slice of these layers, counted from 0.
    ///
    /// # Errors
    /// When the model cannot be cut so, or is too large.
    pub fn of(model: &Model, layers: Range<u32>, role: SliceRole) -> Result<Self, JobError> {
        let plan = LayerMap::of(model)?.plan(layers.clone(), role)?;
        let table = TensorTable::of(model)?;
        let place = |row: &TensorRow| (row.part, row.start);
        let rows = table.rows().iter().enumerate();
        // Tensors without bytes may share their place with another one.
        let numbers: BTreeMap<_, _> = rows
            .filter(|(_, row)| row.size > 0)
            .map(|(i, row)| (place(row), i as u32))
            .collect();
        let mut chunks = Vec::new();
        for piece in plan.pieces() {
            let PieceOrigin::Copy(range) = &piece.origin else {
                continue;
            };
            if let Some(&tensor) = numbers.get(&(range.part, range.bytes.start)) {
                add_chunks(&mut chunks, tensor, range, piece.target.start);
            }
        }
        let mut by_id: Vec<u32> = (0..chunks.len() as u32).collect();
        by_id.sort_by_key(|&i| chunks[i as usize].id);
        let key = SliceKey {
            model: model.fingerprint(),
            layers,
            role,
        };
        Ok(Self {
            key,
            plan,
            chunks,
            by_id,
            tensors: table.len(),
        })
    }

    /// Which slice it is.
    #[must_use]
    pub fn key(&self) -> &SliceKey {
        &self.key
    }

    /// Its header and places.
    #[must_use]
    pub fn plan(&self) -> &SlicePlan {
        &self.plan
    }

    /// Its chunks, in the order in which they lie in the slice.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The same chunks in the order of their names, each with its index.
    pub(crate) fn chunks_by_id(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        self.by_id
            .iter()
            .map(|&i| (i as usize, &self.chunks[i as usize]))
    }

    /// Tensors of the whole model.
    pub(crate) fn tensors(&self) -> usize {
        self.tensors
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn chunk_bytes(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.len())).sum()
    }
}

fn add_chunks(chunks: &mut Vec<Chunk>, tensor: u32, range: &FileRange, target: u64) {
    let mut start = range.bytes.start;
    let mut number = 0;
    while start < range.bytes.end {
        let end = range.bytes.end.min(start + u64::from(CHUNK_BYTES));
        chunks.push(Chunk {
            id: ChunkId { tensor, number },
            origin: FileRange {
                part: range.part,
                bytes: start..end,
            },
            target: target + (start - range.bytes.start),
        });
        start = end;
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use testkit::model::{Architecture, ModelSpec};

    use super::*;

    #[test]
    fn chunks_cover_what_a_slice_copies_once() {
        let spec = ModelSpec {
            vocab: 5_000,
            ..ModelSpec::tiny(Architecture::Qwen3)
        };
        let model = Model::read([("m".into(), spec.to_bytes().unwrap())]).unwrap();
        for (layers, role) in [(0..2, SliceRole::Stage), (2..4, SliceRole::Tail)] {
            let job = SliceJob::of(&model, layers, role).unwrap();
            assert_eq!(job.chunk_bytes(), job.plan().copied_bytes());
            let ids: Vec<_> = job.chunks_by_id().map(|(_, c)| c.id).collect();
            assert!(ids.is_sorted() && ids.len() == job.chunks().len());
            assert!(job.chunks().windows(2).all(|w| w[0].target < w[1].target));
            let table = TensorTable::of(&model).unwrap();
            for chunk in job.chunks() {
                let bytes = table.bytes(chunk.id).unwrap();
                assert_eq!(bytes.end - bytes.start, u64::from(chunk.len()));
                assert!(table.index(chunk.id).unwrap() < table.chunks());
            }
        }
        // The token embedding of 5,000 rows of 256 bytes has a second chunk, and no third.
        let table = TensorTable::of(&model).unwrap();
        let long = table.rows().iter().position(|r| r.size > 1 << 20).unwrap();
        let id = |number| ChunkId {
            tensor: long as u32,
            number,
        };
        assert!(table.bytes(id(1)).is_some());
        assert_eq!(table.bytes(id(2)), None);
        assert_eq!(table.bytes(id(u32::MAX)), None);
        let beyond = ChunkId {
            tensor: table.len() as u32,
            number: 0,
        };
        assert_eq!(table.index(beyond), None);
    }
}
