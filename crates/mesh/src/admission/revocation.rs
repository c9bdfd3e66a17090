//! Owns what was taken back: signed revocations and the bounded set of them that every member keeps.
//!
//! The set only grows, except that the words of a signer who is cut off himself are dropped: whoever
//! stood below him is cut off with him, so they say nothing more.

use std::collections::{BTreeMap, BTreeSet};

use iroh_base::SecretKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::trust::{Trust, chain_from_wire, chain_to_wire};
use super::{Certificate, Refusal, TicketId, TicketRef};
use crate::codec::{self, Blob, DecodeError, Fixed};
use crate::signature::{self, Domain, SIGNATURE_BYTES};
use crate::{MeshId, NodeId};

/// Most bytes of one revocation: its own 250 and the signer's chain of eight certificates.
pub const REVOCATION_BYTES_MAX: usize = 8 * 1_024;

/// Most revocations in a mesh. A thousand members could each be expelled several times.
pub const REVOCATIONS_MAX: usize = 4_096;

/// Most revocations of one signer but the root, so that no single member can fill the set.
pub const REVOCATIONS_PER_SIGNER_MAX: usize = 256;

/// Places of the set that only the root may take, so that it can always expel a flooder.
const ROOT_RESERVE: usize = 1_024;

const DOMAIN: Domain = Domain("mesh-llm revocation 1");

/// What is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A ticket, and the membership of everybody who came by it.
    Ticket(TicketRef),
    /// A node's membership, and those that it admitted.
    Node(NodeId),
}

/// A signed revocation, with the signer's own chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    mesh: MeshId,
    target: Target,
    by: NodeId,
    at_unix_ms: u64,
    chain: Vec<Certificate>,
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

#[derive(Serialize, Deserialize)]
struct BodyWire {
    #[serde(rename = "m")]
    mesh: Fixed<32>,
    #[serde(rename = "n")]
    node: Fixed<32>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    ticket: Option<Fixed<{ TicketId::BYTES }>>,
    #[serde(rename = "b")]
    by: Fixed<32>,
    #[serde(rename = "a")]
    at_unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct RevocationWire {
    #[serde(rename = "b")]
    body: Blob,
    #[serde(rename = "s")]
    signature: Fixed<SIGNATURE_BYTES>,
    #[serde(rename = "c", default)]
    chain: Vec<Blob>,
}

impl Revocation {
    /// Takes `target` back in the name of `by`, whose chain is `chain` and key is `key`.
    #[must_use]
    pub fn sign(
        mesh: MeshId,
        target: Target,
        chain: Vec<Certificate>,
        at_unix_ms: u64,
        key: &SecretKey,
    ) -> Self {
        let by = signature::node_of(key);
        let (node, ticket) = match target {
            Target::Ticket(ticket) => (ticket.issuer, Some(Fixed(*ticket.id.as_bytes()))),
            Target::Node(node) => (node, None),
        };
        let body = codec::encode(&BodyWire {
            mesh: mesh.into(),
            node: node.into(),
            ticket,
            by: by.into(),
            at_unix_ms,
        });
        let signature = signature::sign(key, DOMAIN, &body);
        Self {
            mesh,
            target,
            by,
            at_unix_ms,
            chain,
            body,
            signature,
        }
    }

    /// What is taken back.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// Who says so.
    #[must_use]
    pub const fn by(&self) -> NodeId {
        self.by
    }

    /// When, in milliseconds since 1970.
    #[must_use]
    pub const fn at_unix_ms(&self) -> u64 {
        self.at_unix_ms
    }

    /// Its bytes, at most [`REVOCATION_BYTES_MAX`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&RevocationWire {
            body: Blob(self.body.clone()),
            signature: Fixed(self.signature),
            chain: chain_to_wire(&self.chain),
        })
    }

    /// Reads one; checks no signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: RevocationWire = codec::decode(bytes, REVOCATION_BYTES_MAX)?;
        let body: BodyWire = codec::decode(&wire.body.0, REVOCATION_BYTES_MAX)?;
        let node = NodeId::from(body.node);
        let target = match body.ticket {
            Some(id) => Target::Ticket(TicketRef {
                issuer: node,
                id: TicketId::from_bytes(id.0),
            }),
            None => Target::Node(node),
        };
        Ok(Self {
            mesh: body.mesh.into(),
            target,
            by: body.by.into(),
            at_unix_ms: body.at_unix_ms,
            chain: chain_from_wire(&wire.chain)?,
            body: wire.body.0,
            signature: wire.signature.0,
        })
    }
}

/// What came of adding a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// It is new: pass it on, and look which connections it cuts.
    Added,
    /// It was there, or says nothing that another does not say.
    Known,
}

/// All revocations that a member knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    by_target: BTreeMap<Target, BTreeMap<NodeId, Revocation>>,
    per_signer: BTreeMap<NodeId, usize>,
    len: usize,
}

impl Revocations {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in an order that is the same at every member.
    pub fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.by_target.values().flat_map(BTreeMap::values)
    }

    /// The hash over targets and signers: equal sets have equal digests.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for revocation in self.iter() {
            match revocation.target {
                Target::Node(node) => hash.update(node.as_bytes()),
                Target::Ticket(ticket) => {
                    hash.update(ticket.issuer.as_bytes());
                    hash.update(ticket.id.as_bytes());
                }
            }
            hash.update(revocation.by.as_bytes());
        }
        hash.finalize().into()
    }

    /// That by which one of `above` expelled `node`.
    pub(super) fn expels(
        &self,
        node: NodeId,
        above: impl Iterator<Item = NodeId>,
    ) -> Option<&Revocation> {
        self.signed_by(Target::Node(node), above)
    }

    /// That by which one of `above` revoked `ticket`.
    pub(super) fn revokes(
        &self,
        ticket: TicketRef,
        above: impl Iterator<Item = NodeId>,
    ) -> Option<&Revocation> {
        self.signed_by(Target::Ticket(ticket), above.chain([ticket.issuer]))
    }

    /// Whether `signer` took back `target`.
    #[must_use]
    pub fn contains(&self, target: Target, signer: NodeId) -> bool {
        self.signed_by(target, [signer].into_iter()).is_some()
    }

    fn signed_by(
        &self,
        target: Target,
        mut signers: impl Iterator<Item = NodeId>,
    ) -> Option<&Revocation> {
        let found = self.by_target.get(&target)?;
        signers.find_map(|signer| found.get(&signer))
    }

    fn insert(&mut self, revocation: Revocation) {
        let (target, by) = (revocation.target, revocation.by);
        let signed = self.by_target.entry(target).or_default();
        if signed.insert(by, revocation).is_none() {
            *self.per_signer.entry(by).or_default() += 1;
            self.len += 1;
        }
    }

    fn retain(&mut self, keep: impl Fn(&Revocation) -> bool) {
        let mut kept = Self::default();
        for revocation in self.iter().filter(|revocation| keep(revocation)) {
            kept.insert(revocation.clone());
        }
        *self = kept;
    }
}

impl Trust {
    /// Adds a revocation after checking its signature, the signer's chain, and the bounds.
    ///
    /// Its date is for showing only: clocks differ, and a revocation must reach everybody.
    pub fn revoke(&mut self, revocation: Revocation) -> Result<Insertion, Refusal> {
        if revocation.mesh != self.mesh() {
            return Err(Refusal::OtherMesh);
        }
        let (target, by) = (revocation.target, revocation.by);
        if target == Target::Node(self.root()) {
            return Err(Refusal::NotAbove);
        }
        self.check_links(by, &revocation.chain)?;
        if !signature::verify(by, DOMAIN, &revocation.body, &revocation.signature) {
            return Err(Refusal::BadSignature);
        }
        // Only now: what is known must not make a forged variant of it look true.
        let known = self.revocations().contains(target, by);
        if known || self.check_unrevoked(&revocation.chain).is_err() {
            return Ok(Insertion::Known);
        }
        self.check_room(by)?;
        self.revocations_mut().insert(revocation);
        self.drop_words_of_the_expelled();
        Ok(Insertion::Added)
    }

    fn check_room(&self, by: NodeId) -> Result<(), Refusal> {
        let set = self.revocations();
        let is_root = by == self.root();
        let signed = set.per_signer.get(&by).copied().unwrap_or(0);
        let room = if is_root {
            REVOCATIONS_MAX
        } else {
            REVOCATIONS_MAX - ROOT_RESERVE
        };
        if set.len >= room || (!is_root && signed >= REVOCATIONS_PER_SIGNER_MAX) {
            return Err(Refusal::Full("revocations"));
        }
        Ok(())
    }

    fn drop_words_of_the_expelled(&mut self) {
        let all_hold = self
            .revocations()
            .iter()
            .all(|revocation| self.check_unrevoked(&revocation.chain).is_ok());
        if !all_hold {
            let before = self.clone();
            self.revocations_mut()
                .retain(|revocation| before.check_unrevoked(&revocation.chain).is_ok());
        }
    }
}

/// Nodes that a set names, for showing.
impl Revocations {
    /// Every expelled node, whoever said so.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.by_target
            .keys()
            .filter_map(|target| match target {
                Target::Node(node) => Some(*node),
                Target::Ticket(_) => None,
            })
            .collect()
    }
}
