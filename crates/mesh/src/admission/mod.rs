//! Owns who may be in a mesh: certificates and their chains, revocations, invitations. Pure: bytes,
//! keys and the wall clock come in; nothing is read, stored or sent.
//!
//! The root of a mesh is its originator's key. Everybody else holds a [`Certificate`] from a serving
//! member, who holds one too, and so on up to the root. A [`Revocation`] cuts a branch: a node or
//! all that came by a ticket, and whoever they admitted.

mod certificate;
mod invitations;
mod refusal;
mod revocation;
mod trust;

pub use certificate::{CERTIFICATE_BYTES_MAX, Certificate, Grant};
pub(crate) use certificate::{role_number, role_of};
pub(crate) use invitations::BOOK_BYTES_MAX;
pub use invitations::{
    INVITATIONS_MAX, InvitationState, Invitations, Invite, REDEEMERS_MAX, Redemption,
    TICKET_HOURS_DEFAULT,
};
pub use refusal::{Refusal, RefusalWire};
pub use revocation::{
    Insertion, REVOCATION_BYTES_MAX, REVOCATIONS_MAX, REVOCATIONS_PER_SIGNER_MAX, Revocation,
    Revocations, Target,
};
pub use trust::{Authority, CHAIN_LINKS_MAX, MEMBERSHIP_BYTES_MAX, Membership, Standing, Trust};
pub(crate) use trust::{chain_from_wire, chain_to_wire};

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use rand::RngExt as _;

use crate::NodeId;

/// How far two nodes' wall clocks may differ, in milliseconds, before one calls a signature expired
/// or from the future.
pub const CLOCK_SKEW_MS: u64 = 2 * 60 * 1_000;

/// Names a ticket among those of its issuer: 8 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId([u8; Self::BYTES]);

/// The text is not the hex form of a ticket id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a ticket id: expected 16 hexadecimal digits; hint: `mesh-llm invites` lists them")]
pub struct TicketIdParseError;

impl TicketId {
    pub(crate) const BYTES: usize = 8;

    /// A new id.
    pub fn random(rng: &mut impl rand::Rng) -> Self {
        Self(rng.random())
    }

    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketId({self})")
    }
}

impl FromStr for TicketId {
    type Err = TicketIdParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| TicketIdParseError)?;
        bytes.try_into().map(Self).map_err(|_| TicketIdParseError)
    }
}

/// A ticket among all: ids alone could be claimed by another issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketRef {
    /// Who signed the ticket.
    pub issuer: NodeId,
    /// Which of the issuer's tickets.
    pub id: TicketId,
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
