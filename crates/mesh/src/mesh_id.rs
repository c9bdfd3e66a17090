//! Owns the name of a mesh: 32 bytes, random or derived from a given name and the originator's key.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use crate::NodeId;

/// Says what the hash is for, so that it equals no other hash of the same bytes.
const NAMED_DOMAIN: &[u8] = b"mesh-llm named mesh 1";

/// Which mesh: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshId([u8; 32]);

/// The text is not the hex form of a mesh id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a mesh id: expected 64 hexadecimal digits")]
pub struct MeshIdParseError;

impl MeshId {
    /// The mesh that `originator` calls `name`: the same at each start.
    #[must_use]
    pub fn named(name: &str, originator: NodeId) -> Self {
        let mut hash = Sha256::new();
        hash.update(NAMED_DOMAIN);
        hash.update(originator.as_bytes());
        hash.update(name.as_bytes());
        Self(hash.finalize().into())
    }

    /// A mesh without a name.
    pub fn random(rng: &mut impl rand::Rng) -> Self {
        Self(rng.random())
    }

    /// The mesh with these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten hex digits, for logs and tables.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshId({})", self.short())
    }
}

impl FromStr for MeshId {
    type Err = MeshIdParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| MeshIdParseError)?;
        bytes.try_into().map(Self).map_err(|_| MeshIdParseError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_meshes_depend_on_name_and_originator() {
        let (one, two) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        assert_eq!(MeshId::named("home", one), MeshId::named("home", one));
        assert_ne!(MeshId::named("home", one), MeshId::named("home", two));
        assert_ne!(MeshId::named("home", one), MeshId::named("work", one));
    }

    #[test]
    fn text_form_reads_back() {
        let id = MeshId::from_bytes([7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("07".parse::<MeshId>(), Err(MeshIdParseError));
    }
}
