//! Owns why a node, ticket or revocation is not accepted: one case per reason, on the wire and as text.

use serde::{Deserialize, Serialize};

use super::trust::CHAIN_LINKS_MAX;

/// Why somebody is not let in, or something signed is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Bytes that cannot be read.
    #[error(
        "the other side sent something unreadable; hint: both nodes should run versions that fit"
    )]
    Malformed,
    /// A signature that its issuer did not make.
    #[error("a signature is forged or damaged; hint: ask for a new ticket")]
    BadSignature,
    /// For another mesh, or another root.
    #[error("the ticket or membership is of another mesh; hint: ask for a ticket of this one")]
    OtherMesh,
    /// The certificate is of another node.
    #[error("the membership belongs to another node's key; hint: join again with a ticket")]
    OtherNode,
    /// A certificate without the one above it, up to the root.
    #[error(
        "the chain of certificates does not lead to the originator of the mesh; hint: join again with a ticket"
    )]
    BrokenChain,
    /// More links than allowed.
    #[error(
        "the chain of certificates has more than {CHAIN_LINKS_MAX} links; hint: use a ticket of an earlier member"
    )]
    TooDeep,
    /// A client's signature under a ticket or certificate.
    #[error("the ticket or certificate is signed by a client, and only serving members may invite")]
    MayNotInvite,
    /// The ticket is over.
    #[error(
        "the ticket has expired; hint: ask for a new one, `mesh-llm invite` on a member makes it"
    )]
    TicketExpired,
    /// The membership is over.
    #[error("the membership has expired; hint: join again with a new ticket")]
    MembershipExpired,
    /// Signed later than now, by more than clocks may differ.
    #[error("a signature is dated in the future; hint: set the clocks of both machines")]
    FromTheFuture,
    /// The ticket was revoked, and with it those that it admitted.
    #[error("the ticket was revoked; hint: ask for a new one")]
    TicketRevoked,
    /// The node was expelled, or somebody above it.
    #[error("the node was expelled from the mesh, or the member who admitted it")]
    Expelled,
    /// All uses are taken by other nodes.
    #[error("the ticket was used as often as it allows; hint: ask for a new one")]
    UsedUp,
    /// A ticket with counted uses, shown to somebody who cannot count them.
    #[error(
        "this ticket counts its uses and can only be redeemed at the node that made it; hint: start that node, or ask for a ticket without --uses"
    )]
    OnlyAtIssuer,
    /// A ticket with counted uses that its issuer has no record of.
    #[error(
        "the node has no record of this ticket, so it cannot count its uses; hint: ask for a new one"
    )]
    UnknownTicket,
    /// A serving membership asked for with a client's ticket.
    #[error(
        "the ticket admits clients only; hint: start with --client, or ask for a ticket with --role serve"
    )]
    ClientsOnly,
    /// Asked of a client.
    #[error("the node asked is a client, which admits nobody")]
    NotServing,
    /// As many clients as the node takes.
    #[error("the node serves as many clients as it may; hint: another member may have room")]
    ClientsFull,
    /// Too many requests.
    #[error("the node is asked too often; hint: try again in a few seconds")]
    TooOften,
    /// No room in a bounded set.
    #[error("the list of {0} is full")]
    Full(&'static str),
    /// Signed by somebody who stands not above what is revoked.
    #[error(
        "only the originator of the mesh, the member that admitted a node and those above that member may expel it; hint: do it on one of their machines"
    )]
    NotAbove,
    /// The two nodes connected to each other at once and the other connection stays.
    #[error("the nodes connected to each other at the same moment, and the other connection stays")]
    Duplicate,
    /// The node is stopping.
    #[error("the node is leaving the mesh")]
    Leaving,
    /// A reason of a newer version.
    #[error("refused: {0}")]
    Other(String),
}

/// A refusal on the wire: a word, and a text for readers that do not know the word.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefusalWire {
    #[serde(rename = "c")]
    code: String,
    #[serde(rename = "t", default)]
    text: String,
}

/// Longest text taken over from another node, in characters. Ours have at most 170.
const TEXT_CHARS_MAX: usize = 300;

impl Refusal {
    /// The word for it on the wire.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadSignature => "bad-signature",
            Self::OtherMesh => "other-mesh",
            Self::OtherNode => "other-node",
            Self::BrokenChain => "broken-chain",
            Self::TooDeep => "too-deep",
            Self::MayNotInvite => "may-not-invite",
            Self::TicketExpired => "ticket-expired",
            Self::MembershipExpired => "membership-expired",
            Self::FromTheFuture => "from-the-future",
            Self::TicketRevoked => "ticket-revoked",
            Self::Expelled => "expelled",
            Self::UsedUp => "used-up",
            Self::OnlyAtIssuer => "only-at-issuer",
            Self::UnknownTicket => "unknown-ticket",
            Self::ClientsOnly => "clients-only",
            Self::NotServing => "not-serving",
            Self::ClientsFull => "clients-full",
            Self::TooOften => "too-often",
            Self::Full(_) => "full",
            Self::NotAbove => "not-above",
            Self::Duplicate => "duplicate",
            Self::Leaving => "leaving",
            Self::Other(_) => "other",
        }
    }

    /// The cases that carry nothing, for reading codes.
    const PLAIN: [Self; 22] = [
        Self::Malformed,
        Self::BadSignature,
        Self::OtherMesh,
        Self::OtherNode,
        Self::BrokenChain,
        Self::TooDeep,
        Self::MayNotInvite,
        Self::TicketExpired,
        Self::MembershipExpired,
        Self::FromTheFuture,
        Self::TicketRevoked,
        Self::Expelled,
        Self::UsedUp,
        Self::OnlyAtIssuer,
        Self::UnknownTicket,
        Self::ClientsOnly,
        Self::NotServing,
        Self::ClientsFull,
        Self::TooOften,
        Self::NotAbove,
        Self::Duplicate,
        Self::Leaving,
    ];

    /// Whether no other member would answer otherwise, so that asking on is of no use.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::BadSignature
                | Self::OtherNode
                | Self::BrokenChain
                | Self::MayNotInvite
                | Self::TicketExpired
                | Self::MembershipExpired
                | Self::TicketRevoked
                | Self::Expelled
                | Self::UsedUp
                | Self::UnknownTicket
                | Self::ClientsOnly
        )
    }

    /// The wire form.
    #[must_use]
    pub fn to_wire(&self) -> RefusalWire {
        RefusalWire {
            code: self.code().into(),
            // Only the reason itself: each machine that passes it on adds its own words.
            text: match self {
                Self::Other(text) => text.clone(),
                _ => self.to_string(),
            },
        }
    }

    /// Reads the wire form; an unknown word keeps its text, without control characters.
    #[must_use]
    pub fn from_wire(wire: RefusalWire) -> Self {
        Self::PLAIN
            .into_iter()
            .find(|refusal| refusal.code() == wire.code)
            .unwrap_or_else(|| Self::Other(printable(&wire.text)))
    }
}

/// The beginning of a foreign text, fit for logs and terminals.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_survives_the_wire_and_has_its_own_word() {
        for refusal in Refusal::PLAIN {
            assert_eq!(Refusal::from_wire(refusal.to_wire()), refusal);
        }
    }

    #[test]
    fn an_unknown_word_keeps_its_text_without_control_characters() {
        let wire = RefusalWire {
            code: "moon-phase".into(),
            text: format!("not\u{1b}[31m today{}", "!".repeat(1_000)),
        };
        let Refusal::Other(text) = Refusal::from_wire(wire) else {
            panic!("should be another reason");
        };
        assert!(text.starts_with("not[31m today"));
        assert_eq!(text.chars().count(), TEXT_CHARS_MAX);
    }
}
