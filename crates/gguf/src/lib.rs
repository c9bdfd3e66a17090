//! GGUF files: reading headers from a file, from bytes or through a byte-range source, writing,
//! and cutting models into slices of layers.
//!
//! - [`Model`] opens a model of one or several files; [`Header`] is one file's header.
//! - [`Metadata`] answers what the keys say; [`TensorInfo`] and [`Tensor`] say where weights lie.
//! - [`Plan`] and [`Writer`] write a file, streaming tensor data with bounded memory.
//! - [`LayerMap`] and [`SlicePlan`] cut a model; [`SplitArchitecture`] says which ones.
//!
//! ```
//! use gguf::{GgmlType, Metadata, Model, Plan};
//!
//! let mut metadata = Metadata::new();
//! metadata.set("general.architecture", "qwen3");
//! metadata.set("qwen3.block_count", 1u32);
//! let mut plan = Plan::new(metadata)?;
//! plan.add("token_embd.weight", &[64, 2], GgmlType::F16)?;
//! let mut writer = plan.start(Vec::new())?;
//! writer.tensor("token_embd.weight", &[0; 256])?;
//! let file = writer.finish()?;
//!
//! let model = Model::read([("in memory".into(), file)])?;
//! assert_eq!(model.metadata().block_count()?, 1);
//! assert_eq!(model.tensor_bytes()?, 256);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Every byte is treated as hostile: no input may panic, loop, or allocate beyond [`limits`].
//! The crate contains no FFI and no networking, and it never reads tensor data unless a
//! [`Writer`] copies it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod blocks;
mod encode;
mod error;
mod file_type;
mod fingerprint;
mod ggml_type;
mod header;
pub mod limits;
mod metadata;
mod model;
mod part_name;
mod shape;
mod slice;
mod source;
mod tensor;
mod value;
mod writer;

pub use error::{KeyError, ReadError, WriteError};
pub use file_type::file_type_name;
pub use fingerprint::{Fingerprint, FingerprintParseError};
pub use ggml_type::{Block, GgmlType};
pub use header::{Header, KEY_ALIGNMENT};
pub use metadata::{Metadata, optional};
pub use model::{KEY_SPLIT_COUNT, KEY_SPLIT_NO, KEY_SPLIT_TENSORS, Model, Part, Tensor};
pub use part_name::PartName;
pub use shape::Pooling;
pub use slice::{
    EmbeddingScale, FileRange, LayerMap, LayerPeriod, PieceOrigin, SliceError, SliceOrigin,
    SlicePiece, SlicePlan, SliceRole, SplitArchitecture, slice,
};
pub use source::{ByteSource, FileSource, Prefix};
pub use tensor::TensorInfo;
pub use value::{Array, StringArray, Value, ValueType};
pub use writer::{Plan, Writer};
