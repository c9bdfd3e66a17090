//! Owns the identity of model content as far as it shows without reading weights.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::encode;
use crate::metadata::Metadata;
use crate::tensor::TensorInfo;

/// SHA-256 over a model's metadata, its tensor table and the size of its tensors.
///
/// Keys and tensors are sorted first, and the `split.*` keys left out, so that a model has the same
/// fingerprint in one file and in parts. Two models that differ in weights alone have the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub(crate) fn of<'a>(
        metadata: &Metadata,
        tensors: impl Iterator<Item = &'a TensorInfo>,
    ) -> Self {
        let mut hash = Hasher(Sha256::new());
        // Writing to a hash cannot fail: there is no sink behind it.
        let _ = hash.model(metadata, tensors);
        Self(hash.0.finalize().into())
    }

    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

struct Hasher(Sha256);

impl Hasher {
    fn model<'a>(
        &mut self,
        metadata: &Metadata,
        tensors: impl Iterator<Item = &'a TensorInfo>,
    ) -> io::Result<()> {
        self.write_all(b"gguf fingerprint 1\n")?;
        let mut keys: Vec<_> = metadata
            .iter()
            .filter(|(k, _)| !k.starts_with("split."))
            .collect();
        keys.sort_by_key(|(k, _)| *k);
        self.write_all(&(keys.len() as u64).to_le_bytes())?;
        for (key, value) in keys {
            encode::bytes(self, key.as_bytes())?;
            encode::typed_value(self, value)?;
        }
        let mut tensors: Vec<_> = tensors.collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        self.write_all(&(tensors.len() as u64).to_le_bytes())?;
        for tensor in tensors {
            encode::tensor(self, tensor)?;
            // Unknown sizes count as 0: the type's number is in the hash already.
            self.write_all(&tensor.size_bytes().unwrap_or(0).to_le_bytes())?;
        }
        Ok(())
    }
}

impl Write for Hasher {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits")]
pub struct FingerprintParseError;

impl FromStr for Fingerprint {
    type Err = FingerprintParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(FingerprintParseError);
        }
        let digit = |d: u8| char::from(d).to_digit(16).ok_or(FingerprintParseError);
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(out))
    }
}
