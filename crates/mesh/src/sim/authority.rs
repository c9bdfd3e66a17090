//! Owns signatures and revocations of simulated nodes. A signature is a keyed hash: it costs a
//! ten-thousandth of a real one, and a forged announcement is found out all the same.

use std::collections::BTreeSet;

use super::mixing::mix_bytes;
use crate::NodeId;
use crate::announcement::{Authority, RevocationVerdict, Signature};

/// What every revocation of the simulation begins with.
const REVOCATION: &[u8] = b"simulated revocation of ";

/// Answers for simulated node `me`.
pub(super) struct SimulatedAuthority {
    me: NodeId,
    expelled: BTreeSet<NodeId>,
}

impl SimulatedAuthority {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            expelled: BTreeSet::new(),
        }
    }
}

/// The blob that expels `node`.
pub(super) fn revocation_of(node: NodeId) -> Vec<u8> {
    [REVOCATION, node.as_bytes()].concat()
}

fn signature_of(node: NodeId, bytes: &[u8]) -> Signature {
    let mut signature = [0; 64];
    signature[..8].copy_from_slice(&mix_bytes(mix_bytes(1, node.as_bytes()), bytes).to_le_bytes());
    signature
}

impl Authority for SimulatedAuthority {
    fn sign(&self, bytes: &[u8]) -> Signature {
        signature_of(self.me, bytes)
    }

    fn verify(&self, node: NodeId, bytes: &[u8], signature: &Signature) -> bool {
        signature_of(node, bytes) == *signature
    }

    fn is_expelled(&self, node: NodeId) -> bool {
        self.expelled.contains(&node)
    }

    fn accept_revocation(&mut self, blob: &[u8]) -> RevocationVerdict {
        let node = blob
            .strip_prefix(REVOCATION)
            .and_then(|node| <[u8; 32]>::try_from(node).ok());
        match node {
            Some(node) => {
                self.expelled.insert(NodeId::from_bytes(node));
                RevocationVerdict::Added
            }
            None => RevocationVerdict::False,
        }
    }
}
