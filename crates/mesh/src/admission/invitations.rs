//! Owns a member's book of the invitations it issued, and the admission of whoever shows a ticket.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::trust::Authority;
use super::{
    CHAIN_LINKS_MAX, CLOCK_SKEW_MS, Certificate, Grant, Membership, Refusal, TicketId, TicketRef,
    Trust, role_number, role_of,
};
use crate::codec::{self, DecodeError, Fixed};
use crate::ticket::{Terms, Ticket};
use crate::{Addresses, NodeId, Role};

/// Most invitations that one node keeps. Finished ones make room for new ones, and those that nobody
/// came by go first.
pub const INVITATIONS_MAX: usize = 256;

/// Most nodes that are remembered for one ticket, and so the most uses that can be counted.
pub const REDEEMERS_MAX: usize = 1_000;

/// How long a ticket admits if nobody says otherwise: a day is enough to walk to the other machine.
pub const TICKET_HOURS_DEFAULT: u64 = 24;

/// Most bytes of a stored book: every invitation with every redeemer.
pub(crate) const BOOK_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// How long finished invitations that nobody came by stay listed, in milliseconds: a week.
const KEEP_FINISHED_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// What a user asks of a new ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invite {
    /// What it admits as.
    pub role: Role,
    /// How long it admits, in milliseconds; `None` for ever.
    pub expires_in_ms: Option<u64>,
    /// How many nodes it admits; `None` any number. At most [`REDEEMERS_MAX`].
    pub uses_max: Option<u32>,
}

impl Default for Invite {
    fn default() -> Self {
        Self {
            role: Role::Serve,
            expires_in_ms: Some(TICKET_HOURS_DEFAULT * 3_600 * 1_000),
            uses_max: None,
        }
    }
}

/// An invitation as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationState {
    /// Its id, for revoking.
    pub id: TicketId,
    /// What it admits as.
    pub role: Role,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Until when it admits, if not for ever, in milliseconds since 1970.
    pub expires_unix_ms: Option<u64>,
    /// How many nodes it admits, if that is counted.
    pub uses_max: Option<u32>,
    /// Who was admitted here, at most [`REDEEMERS_MAX`].
    pub redeemed_by: Vec<NodeId>,
    /// Whether it was taken back.
    pub revoked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Invitation {
    role: Role,
    created_unix_ms: u64,
    expires_unix_ms: Option<u64>,
    uses_max: Option<u32>,
    redeemed_by: BTreeSet<NodeId>,
    revoked: bool,
}

impl Invitation {
    fn finished(&self, now_unix_ms: u64) -> bool {
        let over = |end: u64| end.saturating_add(CLOCK_SKEW_MS) < now_unix_ms;
        self.revoked || self.expires_unix_ms.is_some_and(over)
    }

    /// Whether revoking it would put somebody out, as far as this node knows.
    fn holds_members(&self) -> bool {
        !self.revoked && !self.redeemed_by.is_empty()
    }
}

/// The invitations that this node issued and who came by them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invitations {
    by_id: BTreeMap<TicketId, Invitation>,
}

/// Somebody at the door.
#[derive(Debug, Clone, Copy)]
pub struct Redemption<'a> {
    /// What was shown.
    pub ticket: &'a Ticket,
    /// Who shows it, known by the connection.
    pub node: NodeId,
    /// What the node wants to be.
    pub role: Role,
}

impl Invitations {
    /// Makes and notes a ticket in the name of `authority`.
    pub fn invite(
        &mut self,
        authority: &Authority,
        name: Option<String>,
        invite: Invite,
        bootstrap: Vec<(NodeId, Addresses)>,
        now_unix_ms: u64,
        rng: &mut impl rand::Rng,
    ) -> Result<Ticket, Refusal> {
        let membership = &authority.membership;
        if membership.role() != Role::Serve {
            return Err(Refusal::MayNotInvite);
        }
        if membership.chain.len() >= CHAIN_LINKS_MAX {
            return Err(Refusal::TooDeep);
        }
        self.make_room(now_unix_ms)?;
        let id = TicketId::random(rng);
        let uses_max = invite
            .uses_max
            .map(|uses| uses.min(u32::try_from(REDEEMERS_MAX).unwrap_or(u32::MAX)));
        let expires_unix_ms = invite
            .expires_in_ms
            .map(|span| now_unix_ms.saturating_add(span));
        let invitation = Invitation {
            role: invite.role,
            created_unix_ms: now_unix_ms,
            expires_unix_ms,
            uses_max,
            redeemed_by: BTreeSet::new(),
            revoked: false,
        };
        self.by_id.insert(id, invitation);
        let terms = Terms {
            mesh: membership.mesh,
            name,
            root: membership.root,
            issuer: membership.node,
            chain: membership.chain.clone(),
            id,
            role: invite.role,
            expires_unix_ms,
            uses_max,
            bootstrap,
        };
        Ok(Ticket::sign(terms, &authority.key))
    }

    /// All invitations, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<InvitationState> {
        let mut list: Vec<_> = self
            .by_id
            .iter()
            .map(|(id, invitation)| InvitationState {
                id: *id,
                role: invitation.role,
                created_unix_ms: invitation.created_unix_ms,
                expires_unix_ms: invitation.expires_unix_ms,
                uses_max: invitation.uses_max,
                redeemed_by: invitation.redeemed_by.iter().copied().collect(),
                revoked: invitation.revoked,
            })
            .collect();
        list.sort_by_key(|state| (std::cmp::Reverse(state.created_unix_ms), state.id));
        list
    }

    /// Whether somebody was admitted here by a ticket of this node that is still in the book.
    #[must_use]
    pub fn has_admitted(&self, node: NodeId) -> bool {
        self.by_id
            .values()
            .any(|invitation| invitation.redeemed_by.contains(&node))
    }

    /// Notes that a ticket was taken back; false if it is not in the book, or not any more.
    pub fn mark_revoked(&mut self, id: TicketId) -> bool {
        self.by_id.get_mut(&id).is_some_and(|invitation| {
            invitation.revoked = true;
            true
        })
    }

    /// Admits a node by a ticket: checks everything, counts the use, signs the certificate. The
    /// caller stores the book before it hands the membership out, so that no use is forgotten.
    pub fn redeem(
        &mut self,
        authority: &Authority,
        trust: &Trust,
        redemption: Redemption<'_>,
        now_unix_ms: u64,
    ) -> Result<Membership, Refusal> {
        let terms = redemption.ticket.terms();
        if authority.membership.role() != Role::Serve {
            return Err(Refusal::NotServing);
        }
        trust.check_ticket(redemption.ticket, now_unix_ms)?;
        if terms.role == Role::Client && redemption.role == Role::Serve {
            return Err(Refusal::ClientsOnly);
        }
        let membership = grant(authority, redemption, now_unix_ms)?;
        trust.check_unrevoked(&membership.chain)?;
        self.count_use(authority, terms, redemption.node)?;
        Ok(membership)
    }

    /// Whether a ticket with these terms may be used once more, by `node`. Looks up, and checks no
    /// signature: true only of a ticket that was checked.
    ///
    /// # Errors
    /// If its uses are counted, and are at an end or can't be counted here.
    pub fn check_use(
        &self,
        authority: &Authority,
        terms: &Terms,
        node: NodeId,
    ) -> Result<(), Refusal> {
        let counted = terms.uses_max.is_some();
        if terms.issuer != authority.membership.node {
            return if counted {
                Err(Refusal::OnlyAtIssuer)
            } else {
                Ok(())
            };
        }
        let Some(invitation) = self.by_id.get(&terms.id) else {
            return if counted {
                Err(Refusal::UnknownTicket)
            } else {
                Ok(())
            };
        };
        let uses_max = terms
            .uses_max
            .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let redeemed_by = &invitation.redeemed_by;
        if redeemed_by.len() >= uses_max && !redeemed_by.contains(&node) {
            return Err(Refusal::UsedUp);
        }
        Ok(())
    }

    fn count_use(
        &mut self,
        authority: &Authority,
        terms: &Terms,
        node: NodeId,
    ) -> Result<(), Refusal> {
        self.check_use(authority, terms, node)?;
        // Uncounted tickets remember the first nodes only.
        if terms.issuer == authority.membership.node
            && let Some(invitation) = self.by_id.get_mut(&terms.id)
            && invitation.redeemed_by.len() < REDEEMERS_MAX
        {
            invitation.redeemed_by.insert(node);
        }
        Ok(())
    }

    /// Forgets old tickets that are finished and that nobody came by, and more where there is no room
    /// for another one. Those that somebody came by go last: they are listed for whoever wants to take
    /// those memberships back.
    fn make_room(&mut self, now_unix_ms: u64) -> Result<(), Refusal> {
        self.by_id.retain(|_, invitation| {
            let age = now_unix_ms.saturating_sub(invitation.created_unix_ms);
            let is_old = invitation.finished(now_unix_ms) && age > KEEP_FINISHED_MS;
            !is_old || !invitation.redeemed_by.is_empty()
        });
        while self.by_id.len() >= INVITATIONS_MAX {
            let first_to_go = self
                .by_id
                .iter()
                .filter(|(_, invitation)| invitation.finished(now_unix_ms))
                .min_by_key(|(_, invitation)| {
                    (invitation.holds_members(), invitation.created_unix_ms)
                })
                .map(|(id, _)| *id);
            match first_to_go {
                Some(id) => self.by_id.remove(&id),
                None => return Err(Refusal::Full("invitations")),
            };
        }
        Ok(())
    }
}

/// The membership that a ticket gives, under the admitting node.
fn grant(
    authority: &Authority,
    redemption: Redemption<'_>,
    now_unix_ms: u64,
) -> Result<Membership, Refusal> {
    let own = &authority.membership;
    if own.chain.len() >= CHAIN_LINKS_MAX {
        return Err(Refusal::TooDeep);
    }
    let terms = redemption.ticket.terms();
    let in_own_chain: BTreeSet<NodeId> = own.above().chain([own.node, own.root]).collect();
    let sponsors = std::iter::once(terms.issuer)
        .chain(terms.chain.iter().skip(1).map(|link| link.grant().node))
        .filter(|node| !in_own_chain.contains(node))
        .take(CHAIN_LINKS_MAX)
        .collect();
    let certificate = Certificate::sign(
        Grant {
            mesh: own.mesh,
            node: redemption.node,
            role: redemption.role,
            issuer: own.node,
            ticket: TicketRef {
                issuer: terms.issuer,
                id: terms.id,
            },
            sponsors,
            issued_unix_ms: now_unix_ms,
            expires_unix_ms: None,
        },
        &authority.key,
    );
    let mut chain = vec![certificate];
    chain.extend(own.chain.iter().cloned());
    Ok(Membership {
        mesh: own.mesh,
        root: own.root,
        node: redemption.node,
        chain,
    })
}

#[derive(Serialize, Deserialize)]
struct BookWire {
    #[serde(rename = "i", default)]
    invitations: Vec<InvitationWire>,
}

#[derive(Serialize, Deserialize)]
struct InvitationWire {
    #[serde(rename = "t")]
    id: Fixed<{ TicketId::BYTES }>,
    #[serde(rename = "r")]
    role: u8,
    #[serde(rename = "a")]
    created_unix_ms: u64,
    #[serde(rename = "e", default)]
    expires_unix_ms: Option<u64>,
    #[serde(rename = "u", default)]
    uses_max: Option<u32>,
    #[serde(rename = "n", default)]
    redeemed_by: Vec<Fixed<32>>,
    #[serde(rename = "x", default)]
    revoked: bool,
}

impl Invitations {
    /// The book's bytes, for its file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let invitations = self.by_id.iter().map(|(id, invitation)| InvitationWire {
            id: Fixed(*id.as_bytes()),
            role: role_number(invitation.role),
            created_unix_ms: invitation.created_unix_ms,
            expires_unix_ms: invitation.expires_unix_ms,
            uses_max: invitation.uses_max,
            redeemed_by: invitation
                .redeemed_by
                .iter()
                .map(|node| (*node).into())
                .collect(),
            revoked: invitation.revoked,
        });
        codec::encode(&BookWire {
            invitations: invitations.collect(),
        })
    }

    /// Reads [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: BookWire = codec::decode(bytes, BOOK_BYTES_MAX)?;
        let mut book = Self::default();
        for invitation in wire.invitations.into_iter().take(INVITATIONS_MAX) {
            let redeemed_by = invitation.redeemed_by.into_iter().take(REDEEMERS_MAX);
            book.by_id.insert(
                TicketId::from_bytes(invitation.id.0),
                Invitation {
                    role: role_of(invitation.role)?,
                    created_unix_ms: invitation.created_unix_ms,
                    expires_unix_ms: invitation.expires_unix_ms,
                    uses_max: invitation.uses_max,
                    redeemed_by: redeemed_by.map(NodeId::from).collect(),
                    revoked: invitation.revoked,
                },
            );
        }
        Ok(book)
    }
}

#[cfg(test)]
mod tests;
