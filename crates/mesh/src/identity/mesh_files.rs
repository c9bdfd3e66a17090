//! Owns the files of one mesh and their formats.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{IdentityError, file};
use crate::admission::{
    BOOK_BYTES_MAX, Invitations, MEMBERSHIP_BYTES_MAX, Membership, REVOCATION_BYTES_MAX,
    REVOCATIONS_MAX, Refusal, Revocation, Trust,
};
use crate::codec::{self, Blob, Fixed};
use crate::{Addresses, AddressesWire, NodeId};

/// Most members whose addresses are kept for the next start.
pub const BOOTSTRAP_KEPT_MAX: usize = 32;

/// Most bytes of that file: a node has under 600 bytes of addresses.
const BOOTSTRAP_BYTES_MAX: usize = BOOTSTRAP_KEPT_MAX * 1_024;

/// Most bytes of the revocations' file.
const REVOCATIONS_BYTES_MAX: usize = REVOCATIONS_MAX * (REVOCATION_BYTES_MAX + 16);

/// The files of one mesh.
#[derive(Debug, Clone)]
pub struct MeshFiles {
    dir: PathBuf,
}

/// A membership with what people call the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMembership {
    /// The certificates.
    pub membership: Membership,
    /// The mesh's name.
    pub name: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct MembershipFile {
    #[serde(rename = "m")]
    membership: Blob,
    #[serde(rename = "l", default)]
    name: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct BootstrapFile {
    #[serde(rename = "n", default)]
    nodes: Vec<BootstrapEntry>,
}

#[derive(Serialize, Deserialize)]
struct BootstrapEntry {
    #[serde(rename = "n")]
    node: Fixed<32>,
    #[serde(rename = "a")]
    addresses: AddressesWire,
}

#[derive(Serialize, Deserialize)]
struct RevocationsFile {
    #[serde(rename = "r", default)]
    revocations: Vec<Blob>,
}

impl MeshFiles {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// This node's membership, if it has one.
    ///
    /// # Errors
    /// As all functions here: if the file is damaged (it is kept aside) or cannot be read.
    pub fn membership(&self) -> Result<Option<StoredMembership>, IdentityError> {
        // The membership is wrapped once more; names have at most 64 characters.
        self.load("membership", MEMBERSHIP_BYTES_MAX + 512, |bytes| {
            let stored: MembershipFile = codec::decode(bytes, usize::MAX)?;
            Ok(StoredMembership {
                membership: Membership::from_bytes(&stored.membership.0)?,
                name: stored.name,
            })
        })
    }

    /// Replaces the membership.
    ///
    /// # Errors
    /// As all functions that store: if the file cannot be written.
    pub fn set_membership(&self, stored: &StoredMembership) -> Result<(), IdentityError> {
        self.store(
            "membership",
            &codec::encode(&MembershipFile {
                membership: Blob(stored.membership.to_bytes()),
                name: stored.name.clone(),
            }),
        )
    }

    /// Members and their addresses as last seen.
    pub fn bootstrap(&self) -> Result<Vec<(NodeId, Addresses)>, IdentityError> {
        let nodes = self.load("bootstrap", BOOTSTRAP_BYTES_MAX, |bytes| {
            let stored: BootstrapFile = codec::decode(bytes, usize::MAX)?;
            let nodes = stored.nodes.into_iter().take(BOOTSTRAP_KEPT_MAX);
            Ok(nodes
                .map(|entry| (entry.node.into(), Addresses::from_wire(entry.addresses)))
                .collect())
        });
        Ok(nodes?.unwrap_or_default())
    }

    /// Keeps the first [`BOOTSTRAP_KEPT_MAX`] of `nodes`.
    pub fn set_bootstrap(&self, nodes: &[(NodeId, Addresses)]) -> Result<(), IdentityError> {
        let nodes = nodes.iter().take(BOOTSTRAP_KEPT_MAX);
        let nodes = nodes.map(|(node, addresses)| BootstrapEntry {
            node: (*node).into(),
            addresses: addresses.to_wire(),
        });
        self.store(
            "bootstrap",
            &codec::encode(&BootstrapFile {
                nodes: nodes.collect(),
            }),
        )
    }

    /// The book of invitations; empty if there is none.
    pub fn invitations(&self) -> Result<Invitations, IdentityError> {
        let book = self.load("invitations", BOOK_BYTES_MAX, |bytes| {
            Invitations::from_bytes(bytes)
        });
        Ok(book?.unwrap_or_default())
    }

    /// Replaces the book.
    pub fn set_invitations(&self, book: &Invitations) -> Result<(), IdentityError> {
        self.store("invitations", &book.to_bytes())
    }

    /// Adds the stored revocations to `trust`, checking each again.
    pub fn load_revocations(&self, trust: &mut Trust) -> Result<(), IdentityError> {
        let stored = self.load("revocations", REVOCATIONS_BYTES_MAX, |bytes| {
            let stored: RevocationsFile = codec::decode(bytes, usize::MAX)?;
            let mut revocations = Vec::new();
            for Blob(bytes) in stored.revocations.into_iter().take(REVOCATIONS_MAX) {
                revocations.push(Revocation::from_bytes(&bytes)?);
            }
            Ok(revocations)
        });
        for revocation in stored?.unwrap_or_default() {
            trust
                .revoke(revocation)
                .map_err(|refusal| self.refused(&refusal))?;
        }
        Ok(())
    }

    /// Replaces the stored revocations by those of `trust`.
    pub fn set_revocations(&self, trust: &Trust) -> Result<(), IdentityError> {
        let revocations = trust.revocations().iter();
        self.store(
            "revocations",
            &codec::encode(&RevocationsFile {
                revocations: revocations.map(|r| Blob(r.to_bytes())).collect(),
            }),
        )
    }

    fn refused(&self, refusal: &Refusal) -> IdentityError {
        file::set_aside(&self.dir.join("revocations"), &refusal.to_string())
    }

    fn load<T>(
        &self,
        name: &str,
        bytes_max: usize,
        read: impl FnOnce(&[u8]) -> Result<T, codec::DecodeError>,
    ) -> Result<Option<T>, IdentityError> {
        let path = self.dir.join(name);
        let Some(bytes) = file::read(&path, bytes_max)? else {
            return Ok(None);
        };
        read(&bytes)
            .map(Some)
            .map_err(|error| file::set_aside(&path, &error.to_string()))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
        file::make_private_dir(&self.dir)?;
        file::write(&self.dir.join(name), bytes)
    }
}
