//! Owns what `proto` asks about keys and memberships.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use iroh::SecretKey;
use tokio::sync::watch;

use crate::NodeId;
use crate::admission::{Certificate, Insertion, Refusal, Revocation, Target, Trust};
use crate::announcement::{Authority, RevocationVerdict, Signature};
use crate::proto::MEMBERS_MAX;
use crate::signature;

/// Goes before what announcements sign, which carry their own domain besides.
const DOMAIN: signature::Domain = signature::Domain("mesh-llm announcement 1");

/// Chains of members that were connected, to tell which of them a revocation cuts. Held for the
/// length of a look-up only.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownChains(Arc<Mutex<BTreeMap<NodeId, Arc<[Certificate]>>>>);

impl KnownChains {
    /// Remembers the chain that a member showed last; at most as many as there may be members.
    pub(super) fn insert(&self, node: NodeId, chain: Arc<[Certificate]>) {
        let mut chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chains.len() >= MEMBERS_MAX && !chains.contains_key(&node) {
            chains.pop_first();
        }
        chains.insert(node, chain);
    }

    pub(super) fn get(&self, node: NodeId) -> Option<Arc<[Certificate]>> {
        let chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chains.get(&node).cloned()
    }
}

/// Answers for a real node.
pub(super) struct NodeAuthority {
    key: SecretKey,
    trust: Arc<watch::Sender<Trust>>,
    chains: KnownChains,
}

impl NodeAuthority {
    pub(super) fn new(
        key: SecretKey,
        trust: Arc<watch::Sender<Trust>>,
        chains: KnownChains,
    ) -> Self {
        Self { key, trust, chains }
    }
}

impl Authority for NodeAuthority {
    fn sign(&self, bytes: &[u8]) -> Signature {
        signature::sign(&self.key, DOMAIN, bytes)
    }

    fn verify(&self, node: NodeId, bytes: &[u8], signature: &Signature) -> bool {
        signature::verify(node, DOMAIN, bytes, signature)
    }

    /// Expelled by the root, or by somebody above it in the chain that it showed here. Others are
    /// found out when they connect.
    fn is_expelled(&self, node: NodeId) -> bool {
        let trust = self.trust.borrow();
        if trust.revocations().is_empty() {
            return false;
        }
        trust
            .revocations()
            .contains(Target::Node(node), trust.root())
            || self
                .chains
                .get(node)
                .is_some_and(|chain| trust.check_unrevoked(&chain).is_err())
    }

    fn accept_revocation(&mut self, blob: &[u8]) -> RevocationVerdict {
        let revocation = match Revocation::from_bytes(blob) {
            Ok(revocation) => revocation,
            Err(error) => {
                tracing::warn!(%error, "unreadable revocation");
                return RevocationVerdict::False;
            }
        };
        let mut accepted = Ok(Insertion::Known);
        self.trust.send_if_modified(|trust| {
            accepted = trust.revoke(revocation);
            accepted == Ok(Insertion::Added)
        });
        match accepted {
            Ok(Insertion::Added) => RevocationVerdict::Added,
            Ok(Insertion::Known) => RevocationVerdict::Known,
            // No fault of whoever passed it on.
            Err(Refusal::Full(what)) => {
                tracing::error!(what, "no room for a revocation");
                RevocationVerdict::Full
            }
            Err(refusal) => {
                tracing::warn!(reason = %refusal, "refused a revocation");
                RevocationVerdict::False
            }
        }
    }
}
