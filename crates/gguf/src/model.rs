//! Owns a whole model: one GGUF file or all parts of one. Finds the parts, checks that they
//! belong together, and answers where each tensor lies. It reads no tensor data.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{KeyError, ReadError};
use crate::fingerprint::Fingerprint;
use crate::header::Header;
use crate::metadata::{Metadata, optional};
use crate::part_name::PartName;
use crate::source::{ByteSource, FileSource};
use crate::tensor::TensorInfo;

/// Key of a part's own number, from 0.
pub const KEY_SPLIT_NO: &str = "split.no";
/// Key of the number of parts.
pub const KEY_SPLIT_COUNT: &str = "split.count";
/// Key of the number of tensors in all parts together.
pub const KEY_SPLIT_TENSORS: &str = "split.tensors.count";

/// One file of a model.
#[derive(Debug, Clone)]
pub struct Part {
    /// Path, or the name that the source was given.
    pub name: PathBuf,
    /// Size of the file in bytes, where known.
    pub size: Option<u64>,
    /// Its header.
    pub header: Header,
}

/// A model in one or several files.
#[derive(Debug, Clone)]
pub struct Model {
    parts: Vec<Part>,
}

/// A tensor and where its data lies.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'m> {
    /// Index of the part that holds it, from 0.
    pub part: usize,
    /// Its table row.
    pub info: &'m TensorInfo,
    header: &'m Header,
}

impl Tensor<'_> {
    /// Where the data lies in the part's file, in bytes from its start.
    ///
    /// # Errors
    /// [`KeyError::UnknownTensorType`] when its size is not known.
    pub fn file_range(&self) -> Result<Range<u64>, KeyError> {
        self.header.file_range(self.info)
    }
}

impl Model {
    /// Opens a model file. Any part of a multi-part model (`NAME-00001-of-00003.gguf`) opens all.
    ///
    /// # Errors
    /// [`ReadError`] when a file is missing, damaged, truncated, or not of this model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let Some(name) = PartName::of(path) else {
            let part = open_part(path)?;
            let count = part_number(&part, KEY_SPLIT_COUNT)?.unwrap_or(1);
            if count > 1 {
                return Err(mismatch(
                    &part,
                    format!(
                        "is one of {count} parts, but its name does not end in -00001-of-{count:05}.gguf"
                    ),
                ));
            }
            return Self::from_parts(vec![part]);
        };
        name.check_count()?;
        let mut parts = Vec::new();
        for number in 1..=name.count {
            let path = name.path_of(number);
            if !path.exists() {
                let path = path.display().to_string();
                return Err(ReadError::MissingPart {
                    number,
                    count: name.count,
                    path,
                });
            }
            parts.push(open_part(&path)?);
        }
        Self::from_parts(parts)
    }

    /// Reads a model from sources, one for each part in order. Names are for messages.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn read<S: ByteSource>(
        sources: impl IntoIterator<Item = (PathBuf, S)>,
    ) -> Result<Self, ReadError> {
        let parts = sources
            .into_iter()
            .map(|(name, source)| read_part(name, &source));
        Self::from_parts(parts.collect::<Result<_, _>>()?)
    }

    fn from_parts(parts: Vec<Part>) -> Result<Self, ReadError> {
        let Some(first) = parts.first() else {
            return Err(ReadError::invalid("the model", "has no parts"));
        };
        check_parts(first, &parts)?;
        let mut names = HashSet::new();
        for tensor in parts.iter().flat_map(|p| &p.header.tensors) {
            if !names.insert(tensor.name.as_str()) {
                return Err(ReadError::Duplicate {
                    what: "tensor",
                    name: tensor.name.clone(),
                });
            }
        }
        Ok(Self { parts })
    }

    /// The files, in order. There is at least one.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The model's metadata: that of the first part.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.parts[0].header.metadata
    }

    /// All tensors, part by part, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.parts.iter().enumerate().flat_map(|(part, p)| {
            p.header.tensors.iter().map(move |info| Tensor {
                part,
                info,
                header: &p.header,
            })
        })
    }

    /// The tensor of this name. Looks through all tables.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.tensors().find(|t| t.info.name == name)
    }

    /// Number of weights in all tensors.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        self.tensors()
            .filter_map(|t| t.info.elements())
            .fold(0, u64::saturating_add)
    }

    /// Bytes of all tensors' data, without padding.
    ///
    /// # Errors
    /// [`KeyError::UnknownTensorType`] when a tensor's size is not known.
    pub fn tensor_bytes(&self) -> Result<u64, KeyError> {
        self.tensors()
            .try_fold(0u64, |sum, t| Ok(sum.saturating_add(t.info.size_bytes()?)))
    }

    /// Bytes of all files, or `None` when a source does not know its size.
    #[must_use]
    pub fn file_bytes(&self) -> Option<u64> {
        self.parts
            .iter()
            .try_fold(0u64, |sum, p| sum.checked_add(p.size?))
    }

    /// Name of the quantisation: what the file says, else the tensor type that holds most bytes.
    #[must_use]
    pub fn quantization(&self) -> String {
        if let Some(name) = self.metadata().quantization() {
            return name.to_owned();
        }
        let mut sums = std::collections::BTreeMap::new();
        for t in self.tensors() {
            let sum: &mut u64 = sums.entry(t.info.ggml_type).or_default();
            *sum = sum.saturating_add(t.info.size_bytes().unwrap_or(0));
        }
        let most = sums.into_iter().max_by_key(|&(_, bytes)| bytes);
        most.map_or_else(
            || "unknown".to_owned(),
            |(ggml_type, _)| ggml_type.to_string(),
        )
    }

    /// Opens all files of a model that was opened by path, in order, for copying weights.
    ///
    /// # Errors
    /// [`ReadError`] when a file is gone or cannot be opened.
    pub fn open_sources(&self) -> Result<Vec<FileSource>, ReadError> {
        self.parts
            .iter()
            .map(|p| {
                FileSource::open(&p.name)
                    .map_err(|e| ReadError::from(e).in_file(&p.name.display().to_string()))
            })
            .collect()
    }

    /// Identity of the model's content.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.metadata(), self.tensors().map(|t| t.info))
    }
}

fn open_part(path: &Path) -> Result<Part, ReadError> {
    let name = path.display().to_string();
    let source = FileSource::open(path).map_err(|e| ReadError::from(e).in_file(&name))?;
    read_part(path.to_owned(), &source)
}

fn read_part<S: ByteSource>(name: PathBuf, source: &S) -> Result<Part, ReadError> {
    let in_file = |e: ReadError| e.in_file(&name.display().to_string());
    let size = source.len().map_err(|e| in_file(e.into()))?;
    let header = Header::read(source).map_err(in_file)?;
    Ok(Part { name, size, header })
}

fn mismatch(part: &Part, why: String) -> ReadError {
    ReadError::PartMismatch {
        name: part.name.display().to_string(),
        why,
    }
}

fn part_number(part: &Part, key: &str) -> Result<Option<u64>, ReadError> {
    optional(part.header.metadata.u64(key)).map_err(|e| mismatch(part, e.to_string()))
}

/// Checks number, count and total of tensors in every part.
fn check_parts(first: &Part, parts: &[Part]) -> Result<(), ReadError> {
    for (i, part) in parts.iter().enumerate() {
        let count = part_number(part, KEY_SPLIT_COUNT)?;
        // A single file may leave all of these out; so may a file that merely has such a name.
        let none_needed = parts.len() == 1 && count.unwrap_or(1) <= 1;
        if !none_needed && count != Some(parts.len() as u64) {
            let says = count.map_or("does not say of how many parts it is one".to_owned(), |c| {
                format!("says it is one of {c} parts")
            });
            return Err(mismatch(
                part,
                format!("{says}, but there are {}", parts.len()),
            ));
        }
        let no = part_number(part, KEY_SPLIT_NO)?;
        if !none_needed && no != Some(i as u64) {
            let says = no.map_or("does not say which part it is".to_owned(), |n| {
                format!("says it is part {}", n.saturating_add(1))
            });
            return Err(mismatch(
                part,
                format!("{says}, but its place is {}", i + 1),
            ));
        }
    }
    let found: usize = parts.iter().map(|p| p.header.tensors.len()).sum();
    match part_number(first, KEY_SPLIT_TENSORS)? {
        Some(wanted) if wanted != found as u64 => Err(mismatch(
            first,
            format!("says the parts hold {wanted} tensors, but they hold {found}"),
        )),
        _ => Ok(()),
    }
}
