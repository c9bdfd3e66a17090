//! Owns how wire types become bytes: CBOR, with a size limit before decoding and a depth limit in it.
//!
//! Unknown map keys are skipped by serde, so that versions can mix. Wire types are private to the
//! module that converts them; this one knows none of them.

use serde::Serialize;
use serde::de::{self, DeserializeOwned, Visitor};
use std::fmt;

use crate::{MeshId, NodeId};

/// How deep arrays and maps may nest. Our deepest type has five levels; unknown fields get some more.
const DEPTH_MAX: usize = 16;

/// Bytes that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too long to look at.
    #[error("{bytes} bytes where at most {bytes_max} are allowed")]
    TooLong {
        /// What came.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Not CBOR, or not of the expected type.
    #[error("not readable: {0}")]
    Malformed(String),
    /// Something follows the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// Longest reason that is kept from the decoder, in characters; it may quote foreign bytes.
const REASON_CHARS_MAX: usize = 160;

/// The bytes of `value`.
///
/// # Panics
/// Never for our types: writing to memory cannot fail, and they have no keys CBOR lacks.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "writing plain types to memory cannot fail"
)]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("plain types always encode");
    bytes
}

/// Reads one value that fills `bytes`, of which there may be `bytes_max`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLong {
            bytes: bytes.len(),
            bytes_max,
        });
    }
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX)
        .map_err(|error| malformed(&error))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Trailing(rest.len()))
    }
}

fn malformed(error: &ciborium::de::Error<std::io::Error>) -> DecodeError {
    DecodeError::Malformed(error.to_string().chars().take(REASON_CHARS_MAX).collect())
}

/// Fixed-size bytes on the wire, as one CBOR byte string instead of an array of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> serde::Deserialize<'de> for Fixed<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Blob(bytes) = Blob::deserialize(deserializer)?;
        let found = bytes.len();
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| de::Error::invalid_length(found, &"another number of bytes"))
    }
}

/// Bytes of any length on the wire, as one CBOR byte string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BlobVisitor)
    }
}

struct BlobVisitor;

impl Visitor<'_> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(Blob(bytes.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(Blob(bytes))
    }
}

impl From<NodeId> for Fixed<32> {
    fn from(node: NodeId) -> Self {
        Self(*node.as_bytes())
    }
}

impl From<Fixed<32>> for NodeId {
    fn from(bytes: Fixed<32>) -> Self {
        Self::from_bytes(bytes.0)
    }
}

impl From<MeshId> for Fixed<32> {
    fn from(mesh: MeshId) -> Self {
        Self(*mesh.as_bytes())
    }
}

impl From<Fixed<32>> for MeshId {
    fn from(bytes: Fixed<32>) -> Self {
        Self::from_bytes(bytes.0)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        a: u32,
        b: Vec<Vec<String>>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        a: u32,
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let bytes = encode(&New {
            a: 7,
            b: vec![vec!["later".into()]],
        });
        assert_eq!(decode::<Old>(&bytes, 100), Ok(Old { a: 7 }));
    }

    #[test]
    fn limits_hold_before_and_within_decoding() {
        let bytes = encode(&Old { a: 7 });
        let too_long = DecodeError::TooLong {
            bytes: bytes.len(),
            bytes_max: 1,
        };
        assert_eq!(decode::<Old>(&bytes, 1), Err(too_long));
        let mut more = bytes.clone();
        more.push(0);
        assert_eq!(decode::<Old>(&more, 100), Err(DecodeError::Trailing(1)));
        // {"x": [[[[...]]]]} in an unknown field: deep, but bounded by the depth limit.
        let mut deep = vec![0xa1, 0x61, b'x'];
        deep.extend(std::iter::repeat_n(0x81, 10_000));
        deep.push(0);
        assert!(matches!(
            decode::<Old>(&deep, 20_000),
            Err(DecodeError::Malformed(_))
        ));
        // A byte string that claims 4 GB.
        let claim = [0x5a, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        assert!(decode::<Blob>(&claim, 100).is_err());
        assert!(decode::<Fixed<32>>(&encode(&Blob(vec![1; 31])), 100).is_err());
    }
}
