//! Owns the name of a node: its ed25519 public key. Checks no signatures; `admission` does.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;

/// A node's ed25519 public key, 32 bytes. Any bytes are accepted: whether they are a point of the
/// curve shows when a signature is checked, so that simulations can make nodes from integers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

/// The text is not the hex form of a node's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a node id: expected 64 hexadecimal digits; hint: `mesh-llm status --json` shows those of all members"
)]
pub struct NodeIdParseError;

impl NodeId {
    /// Characters of [`short`](Self::short).
    const SHORT_CHARS: usize = 10;

    /// The node with this public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its first eight bytes, which tell the members of one mesh apart.
    pub(crate) fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// The first ten hex digits, for logs and tables.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(Self::SHORT_CHARS);
        text
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = NodeIdParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| NodeIdParseError)?;
        bytes.try_into().map(Self).map_err(|_| NodeIdParseError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_reads_back_and_has_a_short_form() {
        let node = NodeId::from_bytes([0xab; 32]);
        assert_eq!(node.to_string().parse(), Ok(node));
        assert_eq!(node.to_string().to_uppercase().parse(), Ok(node));
        assert_eq!(node.short(), "ababababab");
    }

    #[test]
    fn refuses_other_text() {
        for text in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            assert_eq!(text.parse::<NodeId>(), Err(NodeIdParseError), "{text}");
        }
    }
}
