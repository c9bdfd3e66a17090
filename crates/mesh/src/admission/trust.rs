//! Owns whether a node belongs to a mesh: its chain of certificates up to the root, held against
//! the clock and what was revoked.

use std::sync::Arc;

use iroh_base::SecretKey;
use serde::{Deserialize, Serialize};

use super::{CLOCK_SKEW_MS, Certificate, Refusal, Revocation, Revocations, Target, TicketRef};
use crate::codec::{self, Blob, DecodeError, Fixed};
use crate::signature;
use crate::ticket::Ticket;
use crate::{MeshId, NodeId, Role};

/// Most certificates between a node and the root. Each joiner hangs below the member who let it in;
/// eight lets invitations be passed on often and keeps a membership under 16 KiB.
pub const CHAIN_LINKS_MAX: usize = 8;

/// Most bytes of a membership: eight certificates and its own fields.
pub const MEMBERSHIP_BYTES_MAX: usize = 16 * 1_024;

/// A node's claim to belong to a mesh: its certificate first, then its issuer's, up to the root's.
/// The root itself has no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The mesh.
    pub mesh: MeshId,
    /// Its originator.
    pub root: NodeId,
    /// Who claims.
    pub node: NodeId,
    /// Certificates, the node's own first; at most [`CHAIN_LINKS_MAX`].
    pub chain: Vec<Certificate>,
}

#[derive(Serialize, Deserialize)]
struct MembershipWire {
    #[serde(rename = "m")]
    mesh: Fixed<32>,
    #[serde(rename = "o")]
    root: Fixed<32>,
    #[serde(rename = "n")]
    node: Fixed<32>,
    #[serde(rename = "c", default)]
    chain: Vec<Blob>,
}

impl Membership {
    /// That of the originator.
    #[must_use]
    pub const fn of_root(mesh: MeshId, root: NodeId) -> Self {
        Self {
            mesh,
            root,
            node: root,
            chain: Vec::new(),
        }
    }

    /// What the node may be: the root serves.
    #[must_use]
    pub fn role(&self) -> Role {
        self.chain
            .first()
            .map_or(Role::Serve, |certificate| certificate.grant().role)
    }

    /// Its bytes, at most [`MEMBERSHIP_BYTES_MAX`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&MembershipWire {
            mesh: self.mesh.into(),
            root: self.root.into(),
            node: self.node.into(),
            chain: chain_to_wire(&self.chain),
        })
    }

    /// Reads one; checks no signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: MembershipWire = codec::decode(bytes, MEMBERSHIP_BYTES_MAX)?;
        Ok(Self {
            mesh: wire.mesh.into(),
            root: wire.root.into(),
            node: wire.node.into(),
            chain: chain_from_wire(&wire.chain)?,
        })
    }

    /// Everybody above the node but the root: the chain's other nodes.
    pub fn above(&self) -> impl Iterator<Item = NodeId> {
        self.chain.iter().skip(1).map(|link| link.grant().node)
    }
}

pub(crate) fn chain_to_wire(chain: &[Certificate]) -> Vec<Blob> {
    chain.iter().map(|link| Blob(link.to_bytes())).collect()
}

pub(crate) fn chain_from_wire(chain: &[Blob]) -> Result<Vec<Certificate>, DecodeError> {
    if chain.len() > CHAIN_LINKS_MAX {
        return Err(DecodeError::Malformed("too many certificates".into()));
    }
    chain
        .iter()
        .map(|Blob(bytes)| Certificate::from_bytes(bytes))
        .collect()
}

/// What a valid chain proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What the node may do.
    pub role: Role,
    /// How many links below the root; 0 is the root.
    pub depth: usize,
}

/// What a node believes about its mesh: whose it is, and who is out. A snapshot: cheap to clone,
/// shared by all connections.
#[derive(Debug, Clone)]
pub struct Trust {
    mesh: MeshId,
    root: NodeId,
    revocations: Arc<Revocations>,
}

impl Trust {
    /// Belief in a mesh and its originator, with what was revoked so far.
    #[must_use]
    pub fn new(mesh: MeshId, root: NodeId, revocations: Revocations) -> Self {
        Self {
            mesh,
            root,
            revocations: Arc::new(revocations),
        }
    }

    /// The mesh.
    #[must_use]
    pub const fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// The originator.
    #[must_use]
    pub const fn root(&self) -> NodeId {
        self.root
    }

    /// What was revoked.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// For adding one. Copies the set while a snapshot of it is in use.
    pub fn revocations_mut(&mut self) -> &mut Revocations {
        Arc::make_mut(&mut self.revocations)
    }

    /// Checks everything about a membership that `node`, known by its connection, presents.
    pub fn check(
        &self,
        node: NodeId,
        membership: &Membership,
        now_unix_ms: u64,
    ) -> Result<Standing, Refusal> {
        if membership.mesh != self.mesh || membership.root != self.root {
            return Err(Refusal::OtherMesh);
        }
        if membership.node != node {
            return Err(Refusal::OtherNode);
        }
        let standing = self.check_links(node, &membership.chain)?;
        let latest_unix_ms = now_unix_ms.saturating_add(CLOCK_SKEW_MS);
        let issued = membership
            .chain
            .iter()
            .map(|link| link.grant().issued_unix_ms);
        if issued.max().is_some_and(|issued| issued > latest_unix_ms) {
            return Err(Refusal::FromTheFuture);
        }
        self.check_still(&membership.chain, now_unix_ms)?;
        Ok(standing)
    }

    /// Checks signatures, roles and that each link leads to the next, up to the root. True for ever.
    pub fn check_links(&self, node: NodeId, chain: &[Certificate]) -> Result<Standing, Refusal> {
        if chain.len() > CHAIN_LINKS_MAX {
            return Err(Refusal::TooDeep);
        }
        let mut expected = node;
        for (index, link) in chain.iter().enumerate() {
            let grant = link.grant();
            if grant.mesh != self.mesh {
                return Err(Refusal::OtherMesh);
            }
            if grant.node != expected {
                return Err(Refusal::BrokenChain);
            }
            if index > 0 && grant.role != Role::Serve {
                return Err(Refusal::MayNotInvite);
            }
            if !link.signature_fits() {
                return Err(Refusal::BadSignature);
            }
            expected = grant.issuer;
        }
        if expected != self.root {
            return Err(Refusal::BrokenChain);
        }
        let role = chain.first().map_or(Role::Serve, |own| own.grant().role);
        Ok(Standing {
            role,
            depth: chain.len(),
        })
    }

    /// Checks what may end a chain that was checked: its expiry, and revocations. A clock that was put
    /// back ends none. Costs a few look-ups, for every stream.
    pub fn check_still(&self, chain: &[Certificate], now_unix_ms: u64) -> Result<(), Refusal> {
        for link in chain {
            let grant = link.grant();
            if grant
                .expires_unix_ms
                .is_some_and(|end| end.saturating_add(CLOCK_SKEW_MS) < now_unix_ms)
            {
                return Err(Refusal::MembershipExpired);
            }
        }
        self.check_unrevoked(chain)
    }

    /// Checks that nobody who stands above cut the branch. Only a signer above counts: otherwise any
    /// member could expel any other by signing a certificate for it and then revoking it.
    pub fn check_unrevoked(&self, chain: &[Certificate]) -> Result<(), Refusal> {
        match self.cut_by(chain).map(Revocation::target) {
            None => Ok(()),
            Some(Target::Node(_)) => Err(Refusal::Expelled),
            Some(Target::Ticket(_)) => Err(Refusal::TicketRevoked),
        }
    }

    /// The revocation that cuts a chain, for showing to whom it cuts: nobody need believe on a
    /// stranger's word that he is out.
    #[must_use]
    pub fn cut_by(&self, chain: &[Certificate]) -> Option<&Revocation> {
        if self.revocations.is_empty() {
            return None;
        }
        for (index, link) in chain.iter().enumerate() {
            let grant = link.grant();
            let above = || {
                let issuers = chain.iter().skip(index).map(|link| link.grant().issuer);
                issuers.chain(grant.sponsors.iter().copied())
            };
            if let Some(found) = self.revocations.expels(grant.node, above()) {
                return Some(found);
            }
            // A sponsor is below the root and whichever sponsors follow it.
            let sponsors = &grant.sponsors;
            for (rank, sponsor) in sponsors.iter().enumerate() {
                let over = sponsors.iter().skip(rank + 1).copied();
                let over = over.chain(above_all(self.root, chain));
                if let Some(found) = self.revocations.expels(*sponsor, over) {
                    return Some(found);
                }
            }
            if let Some(found) = self.revocations.revokes(grant.ticket, above()) {
                return Some(found);
            }
        }
        None
    }

    /// Checks everything about a ticket that needs no book: that it is of this mesh, made by a member
    /// who may invite, not over and not revoked.
    pub fn check_ticket(&self, ticket: &Ticket, now_unix_ms: u64) -> Result<(), Refusal> {
        let terms = ticket.terms();
        if terms.mesh != self.mesh || terms.root != self.root {
            return Err(Refusal::OtherMesh);
        }
        ticket.check(now_unix_ms)?;
        self.check_ticket_unrevoked(ticket.reference(), &terms.chain)
    }

    /// Checks that a ticket's issuer may still invite and that nobody above revoked it.
    pub fn check_ticket_unrevoked(
        &self,
        ticket: TicketRef,
        issuer_chain: &[Certificate],
    ) -> Result<(), Refusal> {
        self.check_unrevoked(issuer_chain)?;
        let above = issuer_chain.iter().map(|link| link.grant().issuer);
        if self
            .revocations
            .revokes(ticket, above.chain([ticket.issuer, self.root]))
            .is_some()
        {
            return Err(Refusal::TicketRevoked);
        }
        Ok(())
    }
}

/// The root and all issuers of a chain: whoever may cut anything that the chain rests on.
fn above_all(root: NodeId, chain: &[Certificate]) -> impl Iterator<Item = NodeId> {
    chain.iter().map(|link| link.grant().issuer).chain([root])
}

/// A node's own standing, and the key to sign with.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The node's key.
    pub key: SecretKey,
    /// Its membership.
    pub membership: Membership,
}

impl Authority {
    /// Who signs.
    #[must_use]
    pub fn node(&self) -> NodeId {
        signature::node_of(&self.key)
    }
}
