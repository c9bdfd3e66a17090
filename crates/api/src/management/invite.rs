//! Invitations on the wire, and what comes of taking them back.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh::Role;
use mesh::admission::{InvitationState, Invite, REDEEMERS_MAX, TICKET_HOURS_DEFAULT};
use mesh::ticket::Ticket;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// Longest life of a ticket with an end, s: ten years.
const EXPIRES_SECONDS_MAX: u64 = 10 * 366 * 24 * 3600;

/// Make a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationRequest {
    /// What the ticket admits as: `serve` or `client`.
    #[serde(default = "serve")]
    #[schema(default = "serve")]
    pub role: String,
    /// How long it admits, seconds; `null`: for ever.
    #[serde(default = "a_day")]
    #[schema(default = 86400, minimum = 1)]
    pub expires_in_seconds: Option<u64>,
    /// How many nodes it admits; `null`: any number.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    pub uses: Option<u32>,
}

impl Default for InvitationRequest {
    fn default() -> Self {
        Self {
            role: serve(),
            expires_in_seconds: a_day(),
            uses: None,
        }
    }
}

fn serve() -> String {
    Role::Serve.as_str().to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field")]
fn a_day() -> Option<u64> {
    Some(TICKET_HOURS_DEFAULT * 3600)
}

impl InvitationRequest {
    /// What is asked of the node.
    pub(super) fn invite(&self) -> Result<Invite, ApiError> {
        let role = self.role.parse().map_err(|error: mesh::RoleParseError| {
            ApiError::invalid("role", format!("role: {error}"))
        })?;
        if let Some(seconds) = self.expires_in_seconds
            && !(1..=EXPIRES_SECONDS_MAX).contains(&seconds)
        {
            return Err(ApiError::invalid(
                "expires_in_seconds",
                format!(
                    "expires_in_seconds: {seconds} is not in 1..={EXPIRES_SECONDS_MAX}; hint: \
                     null makes a ticket that never expires"
                ),
            ));
        }
        let uses_max = u32::try_from(REDEEMERS_MAX).unwrap_or(u32::MAX);
        if let Some(uses) = self.uses
            && !(1..=uses_max).contains(&uses)
        {
            return Err(ApiError::invalid(
                "uses",
                format!(
                    "uses: {uses} is not in 1..={uses_max}; hint: null makes a ticket for any \
                     number of nodes"
                ),
            ));
        }
        Ok(Invite {
            role,
            expires_in_ms: self.expires_in_seconds.map(|seconds| seconds * 1000),
            uses_max: self.uses,
        })
    }
}

/// A new ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invited {
    /// Its id, for revoking.
    pub id: String,
    /// The ticket: one word.
    pub ticket: String,
    /// The mesh that it leads to, 64 hexadecimal digits.
    pub mesh_id: String,
    /// What it admits as: `serve` or `client`.
    pub role: String,
    /// Until when it admits, in Unix milliseconds; `null`: for ever.
    #[schema(required)]
    pub expires_unix_ms: Option<u64>,
    /// How many nodes it admits; `null`: any number.
    #[schema(required)]
    pub uses_max: Option<u32>,
    /// What to type on the other machine.
    pub command: String,
}

impl From<&Ticket> for Invited {
    fn from(ticket: &Ticket) -> Self {
        let terms = ticket.terms();
        let client = match terms.role {
            Role::Client => " --client",
            Role::Serve => "",
        };
        Self {
            id: terms.id.to_string(),
            ticket: ticket.to_string(),
            mesh_id: terms.mesh.to_string(),
            role: terms.role.as_str().to_owned(),
            expires_unix_ms: terms.expires_unix_ms,
            uses_max: terms.uses_max,
            command: format!("mesh-llm{client} --join {ticket}"),
        }
    }
}

/// The tickets that this node made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitations {
    /// The newest first.
    pub invites: Vec<Invitation>,
}

/// A ticket that this node made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// Its id, for revoking.
    pub id: String,
    /// What it admits as: `serve` or `client`.
    pub role: String,
    /// Whether it still admits.
    pub state: InvitationPhase,
    /// When it was made, in Unix milliseconds.
    pub created_unix_ms: u64,
    /// Until when it admits, in Unix milliseconds; `null`: for ever.
    #[schema(required)]
    pub expires_unix_ms: Option<u64>,
    /// How many nodes it admits; `null`: any number.
    #[schema(required)]
    pub uses_max: Option<u32>,
    /// Who was admitted by it at this node; at most 1000 are remembered.
    pub redeemed_by: Vec<String>,
}

/// Whether a ticket still admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvitationPhase {
    /// It admits.
    Open,
    /// As many nodes came as it admits.
    UsedUp,
    /// Its time is over.
    Expired,
    /// It was taken back, and with it the memberships that came by it.
    Revoked,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

impl Invitation {
    pub(super) fn of(state: &InvitationState, now_unix_ms: u64) -> Self {
        let uses = u32::try_from(state.redeemed_by.len()).unwrap_or(u32::MAX);
        let phase = if state.revoked {
            InvitationPhase::Revoked
        } else if state.expires_unix_ms.is_some_and(|end| end < now_unix_ms) {
            InvitationPhase::Expired
        } else if state.uses_max.is_some_and(|most| uses >= most) {
            InvitationPhase::UsedUp
        } else {
            InvitationPhase::Open
        };
        Self {
            id: state.id.to_string(),
            role: state.role.as_str().to_owned(),
            state: phase,
            created_unix_ms: state.created_unix_ms,
            expires_unix_ms: state.expires_unix_ms,
            uses_max: state.uses_max,
            redeemed_by: state.redeemed_by.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A ticket or a node was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// Which: a ticket by 16 hexadecimal digits, a node by 64.
    pub id: String,
    /// Whether this node knew it: the ticket is in its list, or it has heard of the node. What it did
    /// not know was taken back all the same; perhaps it was mistyped.
    pub known: bool,
}

/// The clock of expiries.
pub(super) fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use mesh::NodeId;
    use mesh::admission::TicketId;

    use super::*;

    #[test]
    fn an_invitation_says_whether_it_still_admits() {
        let check = |revoked, expires_unix_ms, uses_max, expected| {
            let state = InvitationState {
                id: TicketId::from_bytes([7; 8]),
                role: Role::Client,
                created_unix_ms: 1,
                expires_unix_ms,
                uses_max,
                redeemed_by: vec![NodeId::from_bytes([1; 32])],
                revoked,
            };
            let invitation = Invitation::of(&state, 1_000);
            assert_eq!(invitation.state, expected);
            assert_eq!(invitation.id, "0707070707070707");
            assert_eq!(invitation.role, "client");
            assert_eq!(invitation.redeemed_by, ["01".repeat(32)]);
        };
        check(false, None, None, InvitationPhase::Open);
        check(false, Some(1_000), Some(2), InvitationPhase::Open);
        check(false, Some(999), None, InvitationPhase::Expired);
        check(false, None, Some(1), InvitationPhase::UsedUp);
        check(true, Some(999), Some(1), InvitationPhase::Revoked);
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let request: InvitationRequest = serde_json::from_str("{}").unwrap();
        assert_eq!(request, InvitationRequest::default());
        assert_eq!(request.invite().unwrap(), Invite::default());
        let ever: InvitationRequest =
            serde_json::from_str(r#"{"expires_in_seconds":null,"uses":3,"role":"client"}"#)
                .unwrap();
        let expected = Invite {
            role: Role::Client,
            expires_in_ms: None,
            uses_max: Some(3),
        };
        assert_eq!(ever.invite().unwrap(), expected);
    }
}
