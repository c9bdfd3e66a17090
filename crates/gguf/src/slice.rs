//! Owns slices: contiguous layers of a model as a GGUF file of their own, which llama.cpp loads
//! as a smaller model of the same architecture.
//!
//! A model of `n` layers is run by several machines, one after the other. All but the last hold a
//! [stage](SliceRole::Stage): layers and no vocabulary, so that they pay for no head. The last
//! holds the [tail](SliceRole::Tail): its layers, tokenizer, token embedding, norm and head.
//!
//! - [`SplitArchitecture`] is the table of architectures for which that works, and how.
//! - [`LayerMap`] says how large the layers of a model are and where it may be cut.
//! - [`SlicePlan`] is one slice to be: its header, and which ranges of which files it copies. It
//!   needs nothing but headers, so that whoever lacks the model can fetch just those ranges, or
//!   [make the weights up](SlicePlan::write_made_up) to see how long its layers take.
//!
//! What is cut: `blk.i` becomes `blk.(i-a)`, `block_count` the slice's length, per-layer arrays
//! are cut to the range, `leading_dense_block_count` loses the layers before the range. Layers
//! that only draft tokens (MTP) are left out of every slice. Bytes of weights are never changed.
//! [All of a model](SliceRole::Whole) is no slice: it is what its files hold, in one of them.
//!
//! It reads no weights but to copy them, and runs nothing.

mod error;
mod header;
mod layers;
mod made_up;
mod origin;
mod plan;
mod table;
mod variant;

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;

use crate::model::Model;
use crate::source::ByteSource;

pub use error::SliceError;
pub use layers::LayerMap;
pub use origin::SliceOrigin;
pub use plan::{FileRange, PieceOrigin, SlicePiece, SlicePlan};
pub use table::{EmbeddingScale, LayerPeriod, SplitArchitecture};

/// What a slice is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SliceRole {
    /// Takes hidden states and gives hidden states. No tokenizer, a vocabulary of one token, a
    /// token embedding of one row of zeros and an output norm of ones.
    Stage,
    /// The last layers, with tokenizer, token embedding, output norm and head.
    Tail,
    /// All of the model as it is, in one file: whoever reads that sees the model and no slice.
    Whole,
}

impl fmt::Display for SliceRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stage => "stage",
            Self::Tail => "tail",
            Self::Whole => "whole",
        })
    }
}

impl LayerMap<'_> {
    /// Plans a slice of these layers, counted from 0.
    ///
    /// # Errors
    /// As [`LayerMap::check`], or when metadata or tensors cannot be written.
    pub fn plan(&self, range: Range<u32>, role: SliceRole) -> Result<SlicePlan, SliceError> {
        SlicePlan::of(self, range, role)
    }
}

/// Reads a model's headers and writes a slice of it: planning and writing in one call. `sources`
/// are the model's files in order; layers count from 0.
///
/// ```
/// # use gguf::{GgmlType, Metadata, Plan};
/// # let mut metadata = Metadata::new();
/// # metadata.set("general.architecture", "qwen3");
/// # metadata.set("qwen3.block_count", 2u32);
/// # metadata.set("qwen3.embedding_length", 32u32);
/// # let mut plan = Plan::new(metadata)?;
/// # for name in ["token_embd.weight", "blk.0.ffn_up.weight", "blk.1.ffn_up.weight"] {
/// #     plan.add(name, &[32, 4], GgmlType::F16)?;
/// # }
/// # let mut writer = plan.start(Vec::new())?;
/// # while let Some(due) = writer.due() {
/// #     let name = due.name.clone();
/// #     writer.tensor(&name, &[1; 256])?;
/// # }
/// # let file = writer.finish()?;
/// use gguf::{Header, SliceRole};
///
/// let stage = gguf::slice(&[file.as_slice()], 1..2, SliceRole::Stage, Vec::new())?;
/// let header = Header::read(&stage)?;
/// assert_eq!(header.metadata.block_count()?, 1);
/// assert!(header.tensor("blk.0.ffn_up.weight").is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`SliceError`], also for a model that cannot be read.
pub fn slice<S: ByteSource, W: Write>(
    sources: &[S],
    range: Range<u32>,
    role: SliceRole,
    out: W,
) -> Result<W, SliceError> {
    let name = |i: usize| PathBuf::from(format!("part {}", i + 1));
    let model = Model::read(sources.iter().enumerate().map(|(i, s)| (name(i), s)))?;
    LayerMap::of(&model)?
        .plan(range, role)?
        .write(sources, out, |_| true)
}
