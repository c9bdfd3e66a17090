//! Owns the signed envelope of an announcement.
//!
//! The signature covers the body's bytes as they travel, not the decoded fields: a node that does
//! not know a newer field still verifies it and passes it on untouched.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::wire::Body;
use super::{ANNOUNCEMENT_BYTES_MAX, Announcement};
use crate::codec::{self, Blob, DecodeError, Fixed};
use crate::{MeshId, NodeId};

/// Goes before what is signed, so that no other signed message of ours can pass for this one.
const SIGNATURE_DOMAIN: &[u8] = b"mesh-llm announcement 1\n";

/// The major version of the envelope. A reader that meets another one skips the announcement.
const ENVELOPE_VERSION: u64 = 1;

/// An ed25519 signature.
pub type Signature = [u8; 64];

/// What the protocol asks the identity and admission code. Simulations answer in their own way.
pub trait Authority: Send {
    /// This node's signature over `bytes`.
    fn sign(&self, bytes: &[u8]) -> Signature;

    /// Whether `node` signed `bytes`.
    fn verify(&self, node: NodeId, bytes: &[u8], signature: &Signature) -> bool;

    /// Whether `node` was expelled: its announcements are refused and its record goes.
    fn is_expelled(&self, node: NodeId) -> bool;

    /// What the signed blob is worth as a revocation of this mesh. Called once for each new blob;
    /// if it is [`Added`](RevocationVerdict::Added) the protocol keeps and spreads it, and asks
    /// [`is_expelled`](Self::is_expelled) again about everybody.
    fn accept_revocation(&mut self, blob: &[u8]) -> RevocationVerdict;
}

/// What a revocation that somebody passed on is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationVerdict {
    /// It is true and new.
    Added,
    /// It is true and says nothing new: the same signer may say the same in many ways.
    Known,
    /// There is no room for it.
    Full,
    /// It is no revocation, or forged: whoever passed it on did not look.
    False,
}

/// Why bytes are not an announcement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// The envelope or the body could not be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Written by a program of another major version.
    #[error("announcement of format {0}, and this program reads format {ENVELOPE_VERSION}")]
    Version(u64),
    /// A field is beyond its limit.
    #[error("announcement with a bad {0}")]
    Field(&'static str),
    /// Our own announcement became too long.
    #[error("announcement of {bytes} bytes, and at most {ANNOUNCEMENT_BYTES_MAX} are allowed")]
    TooLong {
        /// How long it would be.
        bytes: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    #[serde(rename = "v")]
    version: u64,
    #[serde(rename = "b")]
    body: Blob,
    #[serde(rename = "s")]
    signature: Fixed<64>,
}

/// An announcement with the bytes that carry it. The signature is checked by
/// [`is_genuine`](Self::is_genuine), not by reading: most copies that arrive are known already,
/// and checking costs more than all else.
#[derive(Clone)]
pub struct Signed {
    announcement: Announcement,
    bytes: Arc<[u8]>,
    body: Vec<u8>,
    signature: Signature,
    hash: u64,
    route_hash: u64,
}

impl Signed {
    /// Signs `announcement` as this node's.
    pub fn new(
        announcement: Announcement,
        authority: &dyn Authority,
    ) -> Result<Arc<Self>, AnnouncementError> {
        let body = codec::encode(&Body::from(&announcement));
        let signature = authority.sign(&signed_bytes(&body));
        let envelope = Envelope {
            version: ENVELOPE_VERSION,
            body: Blob(body),
            signature: Fixed(signature),
        };
        let bytes: Arc<[u8]> = codec::encode(&envelope).into();
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(AnnouncementError::TooLong { bytes: bytes.len() });
        }
        let hash = hash_of(&announcement);
        let Blob(body) = envelope.body;
        Ok(Arc::new(Self {
            route_hash: route_hash_of(&announcement),
            announcement,
            bytes,
            body,
            signature,
            hash,
        }))
    }

    /// Reads an announcement. The signature is not checked yet.
    pub fn decode(bytes: &[u8]) -> Result<Arc<Self>, AnnouncementError> {
        let envelope: Envelope = codec::decode(bytes, ANNOUNCEMENT_BYTES_MAX)?;
        if envelope.version != ENVELOPE_VERSION {
            return Err(AnnouncementError::Version(envelope.version));
        }
        let Blob(body) = envelope.body;
        let announcement = codec::decode::<Body>(&body, ANNOUNCEMENT_BYTES_MAX)?
            .into_announcement()
            .map_err(AnnouncementError::Field)?;
        Ok(Arc::new(Self {
            hash: hash_of(&announcement),
            route_hash: route_hash_of(&announcement),
            announcement,
            bytes: bytes.into(),
            body,
            signature: envelope.signature.0,
        }))
    }

    /// Whether it was said in `mesh` and the node that it names signed it.
    #[must_use]
    pub fn is_genuine(&self, mesh: MeshId, authority: &dyn Authority) -> bool {
        let said = &self.announcement;
        said.mesh == mesh && authority.verify(said.node, &signed_bytes(&self.body), &self.signature)
    }

    /// What it says.
    #[must_use]
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// The bytes to pass on, exactly as the node signed them.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Stands for this version of this node's announcement in digests.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Stands for what those need who only route requests: everything but load, memory, rates and
    /// round trips. Nodes that pull the table are told of a change when this changes.
    #[must_use]
    pub fn route_hash(&self) -> u64 {
        self.route_hash
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = &self.announcement;
        write!(
            f,
            "Signed({} life {} number {})",
            said.node.short(),
            said.incarnation,
            said.sequence
        )
    }
}

impl PartialEq for Signed {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

fn signed_bytes(body: &[u8]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, body].concat()
}

/// Covers the version only, not the content: two contents under one version are a fault of their
/// author, and must not keep two tables exchanging them for ever.
fn hash_of(said: &Announcement) -> u64 {
    if said.leaving {
        return departure_hash(said.node, said.incarnation);
    }
    item_hash(b'A', said.node.as_bytes(), said.incarnation, said.sequence)
}

/// Stands for the end of this life of `node`, whether it said goodbye or others declared it dead:
/// whoever knows of one needs not hear of the other.
pub(crate) fn departure_hash(node: NodeId, incarnation: u64) -> u64 {
    item_hash(b'D', node.as_bytes(), incarnation, 0)
}

fn route_hash_of(said: &Announcement) -> u64 {
    let mut route = said.clone();
    route.sequence = 0;
    route.ttl_ms = 0;
    route.round_trips.clear();
    route.info.memory_free_bytes = 0;
    route.info.rates.clear();
    for served in &mut route.info.serving {
        (served.busy, served.queued) = (0, 0);
    }
    item_hash(b'T', &codec::encode(&Body::from(&route)), 0, 0)
}

/// Eight bytes that stand for a piece of news in digests and lists. SHA-256, so that nobody can
/// make two pieces look alike in order to hide one.
pub(crate) fn item_hash(kind: u8, subject: &[u8], incarnation: u64, sequence: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update([kind]);
    hash.update(incarnation.to_le_bytes());
    hash.update(sequence.to_le_bytes());
    hash.update(subject);
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}
