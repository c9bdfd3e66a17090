//! Owns what can be due on the agenda.

use crate::proto::Message;

/// Something that happens at a moment.
#[derive(Debug)]
pub(super) enum Happening {
    /// A node wanted to be woken.
    Wake { node: usize, at_ms: u64 },
    /// A message arrives.
    Arrival {
        from: usize,
        to: usize,
        connection: u64,
        bytes: usize,
        message: Message,
    },
    /// The first packets of a dial are sent, for the time after `attempt` others.
    Attempt { dial: DialRef, attempt: u32 },
    /// The dialler has a connection and says hello.
    Shaking(DialRef),
    /// The acceptor reads the hello.
    Hello(DialRef),
    /// The dialler is let in.
    Welcome(DialRef),
    /// The dialler is refused; or its dial lost against that of the other side.
    Refused { dial: DialRef, duplicate: bool },
    /// A dial has taken too long.
    GiveUp(DialRef),
    /// The other end closed a connection.
    Closed {
        node: usize,
        peer: usize,
        connection: u64,
        clean: bool,
    },
    /// A connection may have been silent for too long.
    IdleCheck {
        node: usize,
        peer: usize,
        connection: u64,
    },
    /// A connection may have been unused for too long.
    UnusedCheck {
        node: usize,
        peer: usize,
        connection: u64,
    },
    /// The round trip of a young connection is measured.
    RoundTrip {
        node: usize,
        peer: usize,
        connection: u64,
    },
    /// A busy node's load changes.
    Load { node: usize },
}

/// A dial of one life of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct DialRef {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) serial: u64,
}

impl Happening {
    /// At which node it happens.
    pub(super) fn node(&self) -> usize {
        match self {
            Self::Wake { node, .. }
            | Self::Closed { node, .. }
            | Self::IdleCheck { node, .. }
            | Self::UnusedCheck { node, .. }
            | Self::RoundTrip { node, .. }
            | Self::Load { node } => *node,
            Self::Arrival { to, .. } => *to,
            Self::Hello(dial) => dial.to,
            Self::Attempt { dial, .. }
            | Self::Shaking(dial)
            | Self::Welcome(dial)
            | Self::Refused { dial, .. }
            | Self::GiveUp(dial) => dial.from,
        }
    }
}
