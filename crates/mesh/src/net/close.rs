//! Owns the codes with which connections and streams end, and what each means to the other side.

use iroh::endpoint::{Connection, ConnectionError, VarInt};

/// Why a connection was closed on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// All is said: the end of a join, or of a connection that was not let in.
    Done,
    /// The node leaves the mesh or stops.
    Leaving,
    /// Nobody needs the connection any more.
    Released,
    /// Another connection between the same nodes took its place.
    Replaced,
    /// The peer is no member any more.
    Expelled,
    /// The peer broke a rule.
    Misbehaved,
}

impl CloseCode {
    const ALL: [Self; 6] = [
        Self::Done,
        Self::Leaving,
        Self::Released,
        Self::Replaced,
        Self::Expelled,
        Self::Misbehaved,
    ];

    const fn number(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Leaving => 1,
            Self::Released => 2,
            Self::Replaced => 3,
            Self::Expelled => 4,
            Self::Misbehaved => 5,
        }
    }

    /// Closes with this code and a text for the other side's log.
    pub(crate) fn close(self, connection: &Connection, reason: &str) {
        connection.close(VarInt::from_u32(self.number()), reason.as_bytes());
    }

    /// The code with which the other side closed, if it did so on purpose.
    pub(crate) fn of(error: &ConnectionError) -> Option<Self> {
        let ConnectionError::ApplicationClosed(closed) = error else {
            return None;
        };
        Self::ALL
            .into_iter()
            .find(|code| VarInt::from_u32(code.number()) == closed.error_code)
    }

    /// Whether the node at the other end is alive and well, as far as such an end tells. A program
    /// that ends without a word closes with the number of `Done`.
    pub(crate) const fn is_clean(self) -> bool {
        matches!(self, Self::Leaving | Self::Released | Self::Replaced)
    }
}

/// Too many streams wait here.
pub(crate) const STREAM_BUSY: u32 = 2;
