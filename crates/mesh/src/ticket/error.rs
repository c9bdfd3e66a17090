//! Owns the ways in which a pasted string can fail to be a ticket.

/// Why a text is no ticket. Whether a ticket admits is said by `admission::Refusal`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Something else was pasted.
    #[error(
        "not a ticket: tickets begin with `mesh1`; hint: paste the whole word that `mesh-llm invite` printed"
    )]
    NotATicket,
    /// A later format.
    #[error("the ticket is of a newer version of mesh-llm; hint: update mesh-llm on this machine")]
    Newer,
    /// Beyond any ticket.
    #[error("too long for a ticket; hint: paste the ticket alone")]
    TooLong,
    /// The end is missing.
    #[error("the ticket is cut off at the end; hint: copy it again, it is one long word")]
    CutOff,
    /// Something follows.
    #[error("something follows the ticket; hint: paste the ticket alone")]
    Extra,
    /// A character that tickets never contain.
    #[error(
        "the ticket contains `{character}`, which no ticket does; hint: copy it again instead of typing it"
    )]
    Character {
        /// The first one.
        character: char,
    },
    /// The checksum does not fit.
    #[error("the ticket was changed on its way, its checksum does not fit; hint: copy it again")]
    Mistyped,
    /// Right checksum, wrong contents.
    #[error(
        "the ticket cannot be read ({0}); hint: update mesh-llm on the older machine, or ask for a new ticket"
    )]
    Malformed(String),
}
