//! Owns the errors of reading, of looking at metadata, and of writing.

use std::io;

use crate::value::ValueType;

/// Why a file could not be read as GGUF.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source failed.
    #[error("cannot read {name}: {source}")]
    Io {
        /// File or source that failed.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The source failed while its header was read.
    #[error("cannot read the model file: {0}")]
    Source(#[from] io::Error),
    /// Not a GGUF file at all.
    #[error(
        "not a GGUF file: it starts with {found}, not \"GGUF\"\nhint: other formats (safetensors, PyTorch, ONNX) must be converted to GGUF first"
    )]
    Magic {
        /// The first bytes, escaped.
        found: String,
    },
    /// A version this reader does not know.
    #[error(
        "GGUF version {found} is not supported, only 2 and 3 are\nhint: convert the model again with a current tool"
    )]
    Version {
        /// Version in the file.
        found: u32,
    },
    /// Written for big-endian machines.
    #[error(
        "the GGUF file is big-endian and this program reads little-endian only\nhint: get the ordinary (little-endian) file of this model"
    )]
    BigEndian,
    /// The header ends before it is complete.
    #[error(
        "the file is truncated: it ends at byte {at}, in the middle of {what}\nhint: download or copy it again"
    )]
    TruncatedHeader {
        /// Where the bytes ended.
        at: u64,
        /// What was being read.
        what: String,
    },
    /// The tensor data ends before it is complete.
    #[error("the file is truncated: it has {found} bytes and its tensors need {needed}, so {} are missing\nhint: download or copy it again", .needed - .found)]
    TruncatedData {
        /// Bytes that the tensors need, counted from the start of the file.
        needed: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// A number in the file passes a fixed maximum.
    #[error("{what} is {found}, over the maximum of {max}: the file is damaged or not a model")]
    TooMany {
        /// What was counted.
        what: String,
        /// Number in the file.
        found: u64,
        /// The maximum.
        max: u64,
    },
    /// A key or a tensor name occurs twice.
    #[error("{what} {name:?} occurs twice")]
    Duplicate {
        /// "key" or "tensor".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A value that the format does not allow.
    #[error("{what}: {why}")]
    Invalid {
        /// Where it is.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A part of a multi-part model is not there.
    #[error(
        "part {number} of {count} is missing: {path}\nhint: put all parts of the model into one folder"
    )]
    MissingPart {
        /// Number of the missing part, from 1.
        number: u32,
        /// Number of parts.
        count: u32,
        /// Where it was looked for.
        path: String,
    },
    /// Parts that do not belong together.
    #[error("{name}: {why}\nhint: the parts are not of one model, or a file was renamed")]
    PartMismatch {
        /// File or source.
        name: String,
        /// What does not agree.
        why: String,
    },
    /// An error with the file it came from.
    #[error("{name}: {source}")]
    InFile {
        /// File or source.
        name: String,
        /// The error itself.
        source: Box<ReadError>,
    },
}

impl ReadError {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(crate) fn in_file(self, name: &str) -> Self {
        match self {
            Self::Source(source) => Self::Io {
                name: name.to_owned(),
                source,
            },
            source => Self::InFile {
                name: name.to_owned(),
                source: Box::new(source),
            },
        }
    }
}

/// Why a metadata value could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is not there.
    #[error("the model's metadata has no key {key:?}")]
    Missing {
        /// The key.
        key: String,
    },
    /// The value is of another type.
    #[error("the model's metadata key {key:?} is of type {found}, expected {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// What was asked for.
        wanted: &'static str,
        /// What the file has.
        found: ValueType,
    },
    /// The value is of the right type but makes no sense.
    #[error("the model's metadata key {key:?} {why}")]
    BadValue {
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A tensor is of a type whose size is not known.
    #[error(
        "tensor {tensor:?} is of unknown ggml type {id}, so its size is not known\nhint: this model needs a newer version of this program"
    )]
    UnknownTensorType {
        /// The tensor.
        tensor: String,
        /// Number of the type in the file.
        id: u32,
    },
}

/// Why a GGUF file could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The sink failed.
    #[error("cannot write the model file: {0}")]
    Io(#[from] io::Error),
    /// The source of a tensor's data failed or ended early.
    #[error("cannot read the data of tensor {tensor:?}: {source}")]
    Source {
        /// The tensor.
        tensor: String,
        /// What the source said.
        source: io::Error,
    },
    /// Something that GGUF or llama.cpp cannot hold.
    #[error("cannot write {what}: {why}")]
    Invalid {
        /// Key or tensor.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// Tensor data arrived out of order.
    #[error("tensor {found:?} was written where {wanted:?} comes next")]
    Order {
        /// The tensor that was given.
        found: String,
        /// The tensor that is due, or "the end".
        wanted: String,
    },
    /// The file was finished before all tensors were written.
    #[error("the file is not complete: the data of tensor {due:?} comes next")]
    Unfinished {
        /// The tensor that is due.
        due: String,
    },
    /// Tensor data of the wrong length.
    #[error("tensor {tensor:?} takes {wanted} bytes and {found} were given")]
    Size {
        /// The tensor.
        tensor: String,
        /// Bytes that the table promises.
        wanted: u64,
        /// Bytes that came (at least).
        found: u64,
    },
}

impl WriteError {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }
}
