//! Owns the plan of one slice: its header, and for every tensor the range of which file it is
//! copied from. Planning reads headers alone; writing streams through one buffer of fixed size.

use std::io::{self, Write};
use std::ops::Range;

use super::SliceRole;
use super::error::SliceError;
use super::header::Cut;
use super::layers::{LayerMap, TOKEN_EMBEDDING};
use super::table::Head;
use crate::error::WriteError;
use crate::ggml_type::GgmlType;
use crate::limits::COPY_BYTES;
use crate::metadata::Metadata;
use crate::source::ByteSource;
use crate::tensor::TensorInfo;
use crate::writer::{Plan, Writer};

/// A range of bytes in one file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRange {
    /// Index of the file among the model's parts, from 0.
    pub part: usize,
    /// The bytes, counted from the start of that file.
    pub bytes: Range<u64>,
}

/// Where a tensor's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PieceOrigin {
    /// From a file of the model.
    Copy(FileRange),
    /// Made up: F32 zeros.
    Zeros,
    /// Made up: F32 ones.
    Ones,
}

/// One tensor of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePiece {
    /// Where its bytes come from.
    pub origin: PieceOrigin,
    /// Where they lie in the slice, counted from the start of its file. Gaps between pieces are
    /// zeros.
    pub target: Range<u64>,
}

/// A slice to be: its header and where its weights come from. Holds no weights and borrows nothing.
#[derive(Debug, Clone)]
pub struct SlicePlan {
    plan: Plan,
    pieces: Vec<SlicePiece>,
    parts: usize,
    /// Alignment of each part's data, in bytes.
    alignments: Vec<u32>,
    header_bytes: u64,
}

impl SlicePlan {
    pub(crate) fn of(
        map: &LayerMap<'_>,
        range: Range<u32>,
        role: SliceRole,
    ) -> Result<Self, SliceError> {
        map.check(&range, role)?;
        let cut = Cut { map, range, role };
        let mut plan = Plan::new(cut.metadata()?)?;
        let mut origins = Vec::new();
        if role == SliceRole::Stage {
            add_made_up(map, &mut plan, &mut origins)?;
        }
        for tensor in map.model().tensors() {
            let Some(name) = cut.tensor_name(&tensor.info.name)? else {
                continue;
            };
            plan.add(&name, &tensor.info.dims, tensor.info.ggml_type)?;
            origins.push(PieceOrigin::Copy(FileRange {
                part: tensor.part,
                bytes: tensor.file_range()?,
            }));
        }
        let header_bytes = plan.header_bytes()?.len() as u64;
        let pieces = pieces(plan.tensors(), origins, header_bytes)?;
        let parts = map.model().parts();
        Ok(Self {
            plan,
            pieces,
            parts: parts.len(),
            alignments: parts.iter().map(|p| p.header.alignment).collect(),
            header_bytes,
        })
    }

    /// The slice's metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        self.plan.metadata()
    }

    /// The slice's tensors, in file order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        self.plan.tensors()
    }

    /// For each of [`SlicePlan::tensors`], in the same order, where its bytes come from.
    #[must_use]
    pub fn pieces(&self) -> &[SlicePiece] {
        &self.pieces
    }

    /// The slice's first bytes: everything before the weights.
    ///
    /// # Errors
    /// Those of [`Plan::header_bytes`], which were looked for when the plan was made.
    pub fn header(&self) -> Result<Vec<u8>, WriteError> {
        self.plan.header_bytes()
    }

    /// Bytes of the whole file that will be written.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.header_bytes.saturating_add(self.plan.data_bytes())
    }

    /// The ranges of the model's files that the slice needs, in file order. Neighbours with
    /// nothing but padding between them are one range.
    #[must_use]
    pub fn ranges(&self) -> Vec<FileRange> {
        let mut out: Vec<FileRange> = Vec::new();
        for piece in &self.pieces {
            let PieceOrigin::Copy(range) = &piece.origin else {
                continue;
            };
            let alignment = self.alignments.get(range.part).copied().unwrap_or(1);
            match out.last_mut() {
                Some(last)
                    if last.part == range.part
                        && last.bytes.end.checked_next_multiple_of(alignment.into())
                            == Some(range.bytes.start) =>
                {
                    last.bytes.end = range.bytes.end;
                }
                _ => out.push(range.clone()),
            }
        }
        out
    }

    /// Bytes of weights that are copied from the model's files.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        let copied = |p: &&SlicePiece| matches!(p.origin, PieceOrigin::Copy(_));
        let sizes = self.pieces.iter().filter(copied);
        sizes.fold(0, |sum, p| {
            sum.saturating_add(p.target.end - p.target.start)
        })
    }

    /// Writes the slice. `sources` are the model's files, in order of its parts; only the ranges
    /// of [`SlicePlan::ranges`] are read. `progress` is told the bytes of weights written so far
    /// and stops the work by returning false.
    ///
    /// # Errors
    /// [`SliceError::Sources`], [`SliceError::Stopped`], or [`SliceError::Write`] when a source or
    /// the sink fails. What was written by then is useless.
    pub fn write<S: ByteSource, W: Write>(
        &self,
        sources: &[S],
        out: W,
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<W, SliceError> {
        if sources.len() != self.parts {
            return Err(SliceError::Sources {
                wanted: self.parts,
                found: sources.len(),
            });
        }
        let mut writer = self.plan.clone().start(out)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut done = 0u64;
        for (tensor, piece) in self.plan.tensors().iter().zip(&self.pieces) {
            let name = tensor.name.as_str();
            let more = match &piece.origin {
                PieceOrigin::Copy(range) => writer.copy_through(
                    name,
                    &sources[range.part],
                    range.bytes.start,
                    &mut buffer,
                    &mut |bytes| {
                        done = done.saturating_add(bytes);
                        progress(done)
                    },
                )?,
                PieceOrigin::Zeros => fill(&mut writer, tensor, 0.0)?,
                PieceOrigin::Ones => fill(&mut writer, tensor, 1.0)?,
            };
            if !more {
                return Err(SliceError::Stopped);
            }
        }
        Ok(writer.finish()?)
    }
}

/// What the loader asks for and a stage does not use: a token, a norm, and for some a head.
fn add_made_up(
    map: &LayerMap<'_>,
    plan: &mut Plan,
    origins: &mut Vec<PieceOrigin>,
) -> Result<(), WriteError> {
    let width = u64::from(map.width());
    let mut add = |name: &str, dims: &[u64], origin| {
        plan.add(name, dims, GgmlType::F32)?;
        origins.push(origin);
        Ok::<(), WriteError>(())
    };
    add(TOKEN_EMBEDDING, &[width, 1], PieceOrigin::Zeros)?;
    add("output_norm.weight", &[width], PieceOrigin::Ones)?;
    if map.architecture().head == Head::Required {
        add("output.weight", &[width, 1], PieceOrigin::Zeros)?;
    }
    Ok(())
}

fn pieces(
    tensors: &[TensorInfo],
    origins: Vec<PieceOrigin>,
    header_bytes: u64,
) -> Result<Vec<SlicePiece>, SliceError> {
    let piece = |(tensor, origin): (&TensorInfo, PieceOrigin)| {
        let size = tensor.size_bytes()?;
        let start = header_bytes.checked_add(tensor.offset);
        let target = start.and_then(|start| Some(start..start.checked_add(size)?));
        target
            .map(|target| SlicePiece { origin, target })
            .ok_or_else(|| SliceError::Tensor {
                name: tensor.name.clone(),
                why: "does not fit into a file".to_owned(),
            })
    };
    tensors.iter().zip(origins).map(piece).collect()
}

/// Writes an F32 tensor of one number. Rows of the widest model take 4 MiB, written in pieces.
fn fill<W: Write>(
    writer: &mut Writer<W>,
    tensor: &TensorInfo,
    number: f32,
) -> Result<bool, WriteError> {
    let size = tensor
        .size_bytes()
        .map_err(|e| WriteError::invalid(format!("tensor {:?}", tensor.name), e.to_string()))?;
    writer.stream(&tensor.name, |out| repeat(out, &number.to_le_bytes(), size))?;
    Ok(true)
}

/// Writes the bytes of a pattern, which has some, again and again until so many are written.
pub(super) fn repeat(out: &mut dyn Write, pattern: &[u8], bytes: u64) -> io::Result<()> {
    const PIECE_PATTERNS: usize = 1024;
    let piece = pattern.repeat(PIECE_PATTERNS);
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        out.write_all(&piece[..n])?;
        left -= n as u64;
    }
    Ok(())
}
