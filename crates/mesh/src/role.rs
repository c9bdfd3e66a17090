//! Owns the part that a node may play in a mesh. What it does at the moment is in its announcement.

use std::fmt;
use std::str::FromStr;

/// What a membership allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May run models, takes part in membership, and may invite others.
    Serve,
    /// Sends requests and never runs a model; pulls the routing table and says nothing of itself.
    Client,
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no role is called `{0}`; hint: the roles are serve and client")]
pub struct RoleParseError(String);

impl Role {
    /// The word for it in commands, files and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "serve" => Ok(Self::Serve),
            "client" => Ok(Self::Client),
            other => Err(RoleParseError(other.chars().take(32).collect())),
        }
    }
}
