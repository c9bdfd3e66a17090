//! Owns where this machine has the tensors of one model: in the files of the whole model, in slices
//! of it, or in both. It answers for single chunks and knows nothing of peers.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use gguf::{ByteSource, FileSource, Fingerprint, KeyError, Model, ReadError, SliceOrigin};

use super::chunk::{ChunkId, JobError, SliceJob, TensorTable};

/// The tensors of one model that this machine has, and where.
#[derive(Debug, Clone)]
pub struct Holding {
    model: Fingerprint,
    table: TensorTable,
    files: Vec<PathBuf>,
    /// For each tensor, in the order of names.
    places: Vec<Option<Place>>,
}

/// Where a tensor lies on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Index into `files`.
    file: usize,
    /// Offset of its first byte.
    start: u64,
}

/// Why a file is no slice that can be given on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HoldingError {
    /// Not a slice of this model.
    #[error("{} is no slice of this model", .path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its metadata make no sense.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The model cannot be cut so.
    #[error(transparent)]
    Job(#[from] JobError),
}

impl Holding {
    /// A whole model, opened by path.
    ///
    /// # Errors
    /// When a tensor's size is not known, or the model is too large.
    pub fn whole(model: &Model) -> Result<Self, JobError> {
        let table = TensorTable::of(model)?;
        let place = |row: &super::chunk::TensorRow| {
            Some(Place {
                file: row.part,
                start: row.start,
            })
        };
        Ok(Self {
            model: model.fingerprint(),
            places: table.rows().iter().map(place).collect(),
            files: model.parts().iter().map(|p| p.name.clone()).collect(),
            table,
        })
    }

    /// A slice of a model at this path, or all of it. `model` are the headers of the whole one.
    ///
    /// # Errors
    /// When the file cannot be read, or is no slice of this model.
    pub fn slice(model: &Model, path: &Path) -> Result<Self, HoldingError> {
        let slice = Model::open(path)?;
        if slice.fingerprint() == model.fingerprint() {
            // All of it, as some members keep it.
            return Ok(Self::whole(&slice)?);
        }
        let other = || HoldingError::Other {
            path: path.to_owned(),
        };
        let origin = SliceOrigin::of(slice.metadata())?.ok_or_else(other)?;
        if origin.model != model.fingerprint() {
            return Err(other());
        }
        let table = TensorTable::of(model)?;
        let mut names: Vec<_> = model.tensors().map(|t| t.info.name.as_str()).collect();
        names.sort_unstable();
        let mut places = vec![None; table.len()];
        for tensor in slice.tensors() {
            let name = whole_name(&tensor.info.name, origin.layers.start);
            let Ok(number) = names.binary_search(&name.as_str()) else {
                continue;
            };
            let range = tensor.file_range()?;
            if table
                .row(number as u32)
                .is_some_and(|row| row.size == range.end - range.start)
            {
                places[number] = Some(Place {
                    file: 0,
                    start: range.start,
                });
            }
        }
        // A stage has made-up tensors under the names of true ones.
        let job = SliceJob::of(model, origin.layers, origin.role)?;
        let copied: BTreeSet<_> = job.chunks().iter().map(|c| c.id.tensor).collect();
        for (number, place) in places.iter_mut().enumerate() {
            place.take_if(|_| !copied.contains(&(number as u32)));
        }
        Ok(Self {
            model: origin.model,
            table,
            files: vec![path.to_owned()],
            places,
        })
    }

    /// Adds what another holding of the same model has and this one lacks.
    pub fn add(&mut self, other: &Self) {
        if self.model != other.model || self.table.len() != other.table.len() {
            return;
        }
        let first = self.files.len();
        self.files.extend(other.files.iter().cloned());
        for (own, new) in self.places.iter_mut().zip(&other.places) {
            if own.is_none() {
                *own = new.map(|place| Place {
                    file: first + place.file,
                    ..place
                });
            }
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> Fingerprint {
        self.model
    }

    /// For each tensor of the model, in the order of names, whether it is here.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        self.places.iter().map(Option::is_some)
    }

    /// True when this tensor is here.
    pub(crate) fn has(&self, tensor: u32) -> bool {
        matches!(self.places.get(tensor as usize), Some(Some(_)))
    }

    /// The bytes of a chunk, at most [`super::CHUNK_BYTES`]. Blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] for a chunk that is not here, and the system's errors.
    pub(crate) fn read(&self, id: ChunkId) -> io::Result<Vec<u8>> {
        let place = self.places.get(id.tensor as usize).copied().flatten();
        let (Some(place), Some(bytes)) = (place, self.table.bytes(id)) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let path = self.files.get(place.file);
        let source = FileSource::open(path.ok_or(io::ErrorKind::NotFound)?)?;
        let start = place.start.saturating_add(bytes.start);
        let mut chunk = vec![0; (bytes.end - bytes.start) as usize];
        read_exact_at(&source, start, &mut chunk)?;
        Ok(chunk)
    }
}

/// The name in the whole model of a slice's tensor.
fn whole_name(name: &str, first: u32) -> String {
    let layer = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    let layer = layer.and_then(|(number, rest)| Some((number.parse::<u32>().ok()?, rest)));
    match layer {
        Some((number, rest)) => format!("blk.{}.{rest}", number.saturating_add(first)),
        None => name.to_owned(),
    }
}

/// Fills a buffer from a source.
pub(crate) fn read_exact_at<S: ByteSource + ?Sized>(
    source: &S,
    mut offset: u64,
    mut buffer: &mut [u8],
) -> io::Result<()> {
    while !buffer.is_empty() {
        match source.read_at(offset, buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                offset = offset.saturating_add(n as u64);
                buffer = buffer.get_mut(n..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
