//! Owns the counts of what nodes send.

use crate::proto::Message;

/// Bytes in front of each message on a stream: its length.
const FRAME_BYTES: u64 = 4;

/// Names of the kinds of messages, in the order of [`Traffic::by_kind`].
pub const MESSAGE_KINDS: [&str; 16] = [
    "link",
    "refuse",
    "news",
    "have",
    "want",
    "prune",
    "compare",
    "parts",
    "entries",
    "ping",
    "pong",
    "probe",
    "reached",
    "pull",
    "unchanged",
    "table",
];

/// What a node sent since the counts began: bytes of messages with their lengths in front, without
/// what QUIC, UDP and IP add.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    /// Connections that it began to open.
    pub dials: u64,
    /// Bytes by kind of message, see [`MESSAGE_KINDS`].
    pub by_kind: [u64; MESSAGE_KINDS.len()],
}

impl Traffic {
    pub(super) fn count(&mut self, message: &Message, bytes: usize) {
        let bytes = bytes as u64 + FRAME_BYTES;
        self.bytes += bytes;
        self.messages += 1;
        self.by_kind[kind(message)] += bytes;
    }

    /// Adds another node's counts.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.messages += other.messages;
        self.dials += other.dials;
        for (sum, bytes) in self.by_kind.iter_mut().zip(other.by_kind) {
            *sum += bytes;
        }
    }
}

fn kind(message: &Message) -> usize {
    match message {
        Message::Link { .. } => 0,
        Message::Refuse => 1,
        Message::News { .. } => 2,
        Message::Have { .. } => 3,
        Message::Want { .. } => 4,
        Message::Prune => 5,
        Message::Compare { .. } => 6,
        Message::Parts { .. } => 7,
        Message::Entries { .. } => 8,
        Message::Ping { .. } => 9,
        Message::Pong { .. } => 10,
        Message::Probe { .. } => 11,
        Message::Reached { .. } => 12,
        Message::Pull { .. } => 13,
        Message::Unchanged { .. } => 14,
        Message::Table(_) => 15,
    }
}
