//! Owns one link of a membership: a serving member's signed word that a node belongs to the mesh.

use iroh_base::SecretKey;
use serde::{Deserialize, Serialize};

use super::trust::CHAIN_LINKS_MAX;
use super::{TicketId, TicketRef};
use crate::codec::{self, Blob, DecodeError, Fixed};
use crate::signature::{self, Domain, SIGNATURE_BYTES};
use crate::{MeshId, NodeId, Role};

/// Most bytes of one certificate: about 250, and 34 for each sponsor; room for later fields.
pub const CERTIFICATE_BYTES_MAX: usize = 1_024;

const DOMAIN: Domain = Domain("mesh-llm certificate 1");

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The mesh.
    pub mesh: MeshId,
    /// Who is admitted.
    pub node: NodeId,
    /// As what.
    pub role: Role,
    /// Who admits, and signs.
    pub issuer: NodeId,
    /// By which ticket, possibly another member's.
    pub ticket: TicketRef,
    /// Whoever stands above the ticket where that is not already the issuer's own chain: the
    /// ticket's issuer and those above it but the root. When one of them is expelled, so is `node`.
    pub sponsors: Vec<NodeId>,
    /// When, in milliseconds since 1970.
    pub issued_unix_ms: u64,
    /// Until when, if not for ever, in milliseconds since 1970.
    pub expires_unix_ms: Option<u64>,
}

/// A signed [`Grant`]. The signed bytes are kept, so that fields this version does not know stay
/// under the signature when it is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    grant: Grant,
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

#[derive(Serialize, Deserialize)]
struct GrantWire {
    #[serde(rename = "m")]
    mesh: Fixed<32>,
    #[serde(rename = "n")]
    node: Fixed<32>,
    #[serde(rename = "r")]
    role: u8,
    #[serde(rename = "i")]
    issuer: Fixed<32>,
    #[serde(rename = "t")]
    ticket: Fixed<{ TicketId::BYTES }>,
    #[serde(rename = "ti", default, skip_serializing_if = "Option::is_none")]
    ticket_issuer: Option<Fixed<32>>,
    #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
    sponsors: Vec<Fixed<32>>,
    #[serde(rename = "a")]
    issued_unix_ms: u64,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    expires_unix_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct CertificateWire {
    #[serde(rename = "b")]
    body: Blob,
    #[serde(rename = "s")]
    signature: Fixed<SIGNATURE_BYTES>,
}

impl Certificate {
    /// Signs `grant` with the key of its issuer.
    #[must_use]
    pub fn sign(grant: Grant, key: &SecretKey) -> Self {
        debug_assert_eq!(signature::node_of(key), grant.issuer);
        let body = codec::encode(&GrantWire::from(&grant));
        let signature = signature::sign(key, DOMAIN, &body);
        Self {
            grant,
            body,
            signature,
        }
    }

    /// What it says. True only if [`signature_fits`](Self::signature_fits).
    #[must_use]
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether the issuer signed it.
    #[must_use]
    pub fn signature_fits(&self) -> bool {
        signature::verify(self.grant.issuer, DOMAIN, &self.body, &self.signature)
    }

    /// Its bytes, at most [`CERTIFICATE_BYTES_MAX`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&CertificateWire {
            body: Blob(self.body.clone()),
            signature: Fixed(self.signature),
        })
    }

    /// Reads one; checks no signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: CertificateWire = codec::decode(bytes, CERTIFICATE_BYTES_MAX)?;
        let grant: GrantWire = codec::decode(&wire.body.0, CERTIFICATE_BYTES_MAX)?;
        Ok(Self {
            grant: grant.read()?,
            body: wire.body.0,
            signature: wire.signature.0,
        })
    }
}

/// The number that stands for a role in signed bytes.
pub(crate) const fn role_number(role: Role) -> u8 {
    match role {
        Role::Serve => 0,
        Role::Client => 1,
    }
}

/// Reads [`role_number`].
pub(crate) fn role_of(number: u8) -> Result<Role, DecodeError> {
    match number {
        0 => Ok(Role::Serve),
        1 => Ok(Role::Client),
        other => Err(DecodeError::Malformed(format!("unknown role {other}"))),
    }
}

impl From<&Grant> for GrantWire {
    fn from(grant: &Grant) -> Self {
        let own = grant.ticket.issuer == grant.issuer;
        Self {
            mesh: grant.mesh.into(),
            node: grant.node.into(),
            role: role_number(grant.role),
            issuer: grant.issuer.into(),
            ticket: Fixed(*grant.ticket.id.as_bytes()),
            ticket_issuer: (!own).then(|| grant.ticket.issuer.into()),
            sponsors: grant.sponsors.iter().map(|node| (*node).into()).collect(),
            issued_unix_ms: grant.issued_unix_ms,
            expires_unix_ms: grant.expires_unix_ms,
        }
    }
}

impl GrantWire {
    fn read(self) -> Result<Grant, DecodeError> {
        if self.sponsors.len() > CHAIN_LINKS_MAX {
            return Err(DecodeError::Malformed("too many sponsors".into()));
        }
        let issuer = self.issuer.into();
        Ok(Grant {
            mesh: self.mesh.into(),
            node: self.node.into(),
            role: role_of(self.role)?,
            issuer,
            ticket: TicketRef {
                issuer: self.ticket_issuer.map_or(issuer, NodeId::from),
                id: TicketId::from_bytes(self.ticket.0),
            },
            sponsors: self.sponsors.into_iter().map(NodeId::from).collect(),
            issued_unix_ms: self.issued_unix_ms,
            expires_unix_ms: self.expires_unix_ms,
        })
    }
}
