//! Owns a model's headers as bytes: from a file, to a peer and back, beside slices in the cache.
//! Whoever reads them checks the fingerprint, so they may come from anybody.

use std::path::PathBuf;

use gguf::limits::{HEADER_BYTES_MAX, PARTS_MAX};
use gguf::{ByteSource, Fingerprint, Model, Prefix, ReadError};

/// Most bytes of all headers together. The largest vocabularies take 20 MiB, in the first part;
/// hundreds of parts add a tensor table each.
pub(crate) const HEADERS_BYTES_MAX: u64 = HEADER_BYTES_MAX;

/// Bytes before a part's header: the file's size, and the header's.
const FRONT_BYTES: usize = 12;

/// The headers of all files of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    parts: Vec<PartHeader>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PartHeader {
    file_bytes: u64,
    bytes: Vec<u8>,
}

/// Why headers are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadersError {
    /// Not made by [`Headers::to_bytes`].
    #[error("the model's headers are garbled: {0}")]
    Garbled(&'static str),
    /// No model, or a damaged one.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Another model.
    #[error("these are the headers of another model: {} where {} was asked for", .found.short(), .wanted.short())]
    Other {
        /// What was asked for.
        wanted: Fingerprint,
        /// What came.
        found: Fingerprint,
    },
}

impl Headers {
    /// The headers of a model whose files are at hand.
    ///
    /// # Errors
    /// When a file cannot be read, or does not know its size.
    pub fn of<S: ByteSource>(model: &Model, sources: &[S]) -> Result<Self, HeadersError> {
        let mut parts = Vec::new();
        let mut sum = 0u64;
        for (part, source) in model.parts().iter().zip(sources) {
            let len = part.header.data_offset;
            sum = sum.saturating_add(len);
            if sum > HEADERS_BYTES_MAX {
                return Err(HeadersError::Garbled("they are too long"));
            }
            let file_bytes = source.len().map_err(ReadError::from)?;
            let file_bytes = file_bytes.or(part.size);
            let file_bytes = file_bytes.ok_or(HeadersError::Garbled("a file has no size"))?;
            let len = usize::try_from(len.min(file_bytes)).unwrap_or(usize::MAX);
            let mut bytes = vec![0; len];
            super::holding::read_exact_at(source, 0, &mut bytes).map_err(ReadError::from)?;
            parts.push(PartHeader { file_bytes, bytes });
        }
        Ok(Self { parts })
    }

    /// Headers that came in full, one of each file with the file's size.
    pub(crate) fn from_parts(parts: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
        let parts = parts.into_iter();
        Self {
            parts: parts
                .map(|(file_bytes, bytes)| PartHeader { file_bytes, bytes })
                .collect(),
        }
    }

    /// The model they describe, if it is the one that is wanted.
    ///
    /// # Errors
    /// When they cannot be read, or are of another model.
    pub fn model(&self, wanted: Fingerprint) -> Result<Model, HeadersError> {
        let sources = self.parts.iter().enumerate().map(|(i, part)| {
            let source = Prefix {
                bytes: &part.bytes,
                total: Some(part.file_bytes),
            };
            (PathBuf::from(format!("part {}", i + 1)), source)
        });
        let model = Model::read(sources)?;
        let found = model.fingerprint();
        if found != wanted {
            return Err(HeadersError::Other { wanted, found });
        }
        Ok(model)
    }

    /// For each part: size of its file as eight bytes, of its header as four, and the header.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.parts {
            out.extend_from_slice(&part.file_bytes.to_le_bytes());
            // A header stays under 256 MiB.
            out.extend_from_slice(&(part.bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(&part.bytes);
        }
        out
    }

    /// Reads what [`Headers::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`HeadersError::Garbled`]. Says nothing about the headers themselves.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, HeadersError> {
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let (front, rest) = bytes
                .split_at_checked(FRONT_BYTES)
                .ok_or(HeadersError::Garbled("they break off"))?;
            let (size, len) = front.split_at(8);
            let file_bytes = u64::from_le_bytes(size.try_into().unwrap_or_default());
            let len = u32::from_le_bytes(len.try_into().unwrap_or_default());
            let (header, rest) = rest
                .split_at_checked(len as usize)
                .ok_or(HeadersError::Garbled("a part breaks off"))?;
            if parts.len() >= PARTS_MAX as usize {
                return Err(HeadersError::Garbled("they have too many parts"));
            }
            parts.push(PartHeader {
                file_bytes,
                bytes: header.to_vec(),
            });
            bytes = rest;
        }
        if parts.is_empty() {
            return Err(HeadersError::Garbled("there are none"));
        }
        Ok(Self { parts })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use testkit::model::{Architecture, ModelSpec};

    use super::*;

    #[test]
    fn headers_travel_and_those_of_another_model_are_refused() {
        let file = ModelSpec::tiny(Architecture::Qwen3).to_bytes().unwrap();
        let model = Model::read([("m".into(), file.as_slice())]).unwrap();
        let headers = Headers::of(&model, &[file.as_slice()]).unwrap();
        let bytes = headers.to_bytes();
        assert!(bytes.len() < file.len());
        let back = Headers::from_bytes(&bytes).unwrap();
        assert_eq!(back, headers);
        let again = back.model(model.fingerprint()).unwrap();
        assert_eq!(again.fingerprint(), model.fingerprint());
        let other = Fingerprint([1; 32]);
        let error = back.model(other).unwrap_err();
        assert!(matches!(error, HeadersError::Other { wanted, .. } if wanted == other));
        for end in [0, 5, FRONT_BYTES, bytes.len() - 1] {
            assert!(Headers::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(headers) = Headers::from_bytes(&bytes) {
                prop_assert_eq!(headers.to_bytes(), bytes);
                prop_assert!(headers.model(Fingerprint([0; 32])).is_err());
            }
        }
    }
}
