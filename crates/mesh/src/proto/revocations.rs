//! Owns the set of revocations, which only grows. What one means is decided by the admission code.

use std::sync::Arc;

use super::REVOCATION_BYTES_MAX;
use super::event::{Effect, Offence};
use super::message::Fact;
use super::state::State;
use super::table::{Judgement, Subject};
use crate::NodeId;
use crate::announcement::RevocationVerdict;

impl State {
    /// Takes a revocation from a peer, or (`from` is `None`) one that this node has otherwise.
    pub(super) fn take_revocation(&mut self, blob: Arc<[u8]>, from: Option<NodeId>) {
        if blob.len() > REVOCATION_BYTES_MAX {
            return;
        }
        let hash = Fact::Revoked(blob.clone()).hash();
        self.missing.found(hash);
        let subject = Subject::Revocation(hash);
        if self.table.judge_revocation(hash) != Judgement::New {
            if let Some(link) = from.and_then(|node| self.links.get_mut(node)) {
                link.spare(subject, hash);
            }
            return;
        }
        match (self.authority.accept_revocation(&blob), from) {
            (RevocationVerdict::Added, _) => {}
            // From this node's own files: its admission code read them before.
            (RevocationVerdict::Known, None) => {}
            (RevocationVerdict::Known | RevocationVerdict::Full, _) => {
                self.table.pass_over(hash);
                return;
            }
            (RevocationVerdict::False, from) => {
                if let Some(node) = from {
                    self.disconnect(node, Offence::FalseRevocation);
                }
                return;
            }
        }
        self.table.revoke(blob.clone());
        self.effect(Effect::Revoked(blob));
        self.pass_on(subject, hash, true, from);
        self.expel_revoked();
    }

    /// Parts with everybody who is expelled now.
    fn expel_revoked(&mut self) {
        let members = self.table.members().map(|(node, _)| node);
        let known = members.chain(self.peers.keys().copied());
        let mut expelled: Vec<NodeId> = known
            .filter(|&node| node != self.config.me && self.authority.is_expelled(node))
            .collect();
        expelled.sort_unstable();
        expelled.dedup();
        for node in expelled {
            self.table.expel(node);
            self.departed(node);
            self.seeker.forget(node);
            if self.peers.contains_key(&node) {
                self.disconnect(node, Offence::Expelled);
            }
            self.mark_changed();
        }
    }
}
