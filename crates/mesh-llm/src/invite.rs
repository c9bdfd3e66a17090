//! `mesh-llm invite`, `invites` and `revoke`: tickets of the running node.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::management::{Invitation, InvitationPhase, InvitationRequest, Invitations, Invited};
use mesh::admission::TicketId;
use reqwest::Method;
use serde::Serialize;

use crate::cli::{Expiry, InviteArguments, print};
use crate::console::Console;
use crate::control::Control;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::{qr, table};

const COLUMNS: [&str; 6] = ["ID", "ROLE", "STATE", "EXPIRES", "USES", "MADE"];

/// Makes a ticket: the ticket on stdout, what to do with it on stderr.
pub(crate) async fn make(settings: &Settings, arguments: &InviteArguments) -> Result<(), Failure> {
    let request = InvitationRequest {
        role: arguments.role.as_str().to_owned(),
        expires_in_seconds: match arguments.expires {
            Expiry::After(span) => Some(span.as_secs()),
            Expiry::Never => None,
        },
        uses: arguments.uses,
    };
    let control = Control::new(settings)?;
    let invited: Invited = control.post("/api/invites", &request).await?;
    if arguments.json {
        return print_json(&invited);
    }
    let console = Console::new(settings.log_format);
    let until = match arguments.expires {
        Expiry::After(span) => format!("for {}", humantime::format_duration(span)),
        Expiry::Never => "until it is revoked".to_owned(),
    };
    console.say(&format!(
        "This ticket admits {} {until}. Take it back with: mesh-llm revoke {}",
        match arguments.uses {
            None => format!("any number of machines ({})", invited.role),
            Some(1) => format!("one machine ({})", invited.role),
            Some(uses) => format!("{uses} machines ({})", invited.role),
        },
        invited.id
    ));
    if console.is_watched()
        && let Some(code) = qr::of_ticket(&invited.ticket, terminal_size::terminal_size())
    {
        console.say(&code);
    }
    console.say(&format!("On the other machine:\n  {}\n", invited.command));
    print(format!("{}\n", invited.ticket).as_bytes())
}

/// Lists the tickets.
pub(crate) async fn list(settings: &Settings, json: bool) -> Result<(), Failure> {
    let invitations: Invitations = Control::new(settings)?.get("/api/invites").await?;
    if json {
        return print_json(&invitations.invites);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_unix_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    print(render(&invitations.invites, now_unix_ms).as_bytes())
}

/// Takes a ticket back.
pub(crate) async fn revoke(settings: &Settings, id: TicketId) -> Result<(), Failure> {
    let path = format!("/api/invites/{id}");
    let control = Control::new(settings)?;
    control.order(Method::DELETE, &path).await?;
    let console = Console::new(settings.log_format);
    console.say(&format!(
        "revoked {id}: the ticket admits nobody any more, and those that came by it are out"
    ));
    console.event("revoked", serde_json::json!({ "id": id.to_string() }));
    Ok(())
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::other(error.to_string()))?;
    print(format!("{text}\n").as_bytes())
}

fn render(invitations: &[Invitation], now_unix_ms: u64) -> String {
    if invitations.is_empty() {
        return "no tickets; `mesh-llm invite` makes one\n".to_owned();
    }
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(invitations.iter().map(|one| row(one, now_unix_ms)));
    table::table(&rows)
}

fn row(invitation: &Invitation, now_unix_ms: u64) -> [String; 6] {
    let state = match invitation.state {
        InvitationPhase::Open => "open",
        InvitationPhase::UsedUp => "used up",
        InvitationPhase::Expired => "expired",
        InvitationPhase::Revoked => "revoked",
        InvitationPhase::Other => "?",
    };
    let expires = match invitation.expires_unix_ms {
        None => "never".to_owned(),
        Some(end) if end > now_unix_ms => format!("in {}", span(end - now_unix_ms)),
        Some(end) => format!("{} ago", span(now_unix_ms - end)),
    };
    let uses = invitation.redeemed_by.len();
    [
        invitation.id.clone(),
        invitation.role.clone(),
        state.to_owned(),
        expires,
        match invitation.uses_max {
            Some(most) => format!("{uses} of {most}"),
            None => uses.to_string(),
        },
        format!(
            "{} ago",
            span(now_unix_ms.saturating_sub(invitation.created_unix_ms))
        ),
    ]
}

/// A span in its two largest units.
fn span(ms: u64) -> String {
    let whole = humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    let units: Vec<&str> = whole.split(' ').take(2).collect();
    units.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_listed() {
        assert_eq!(render(&[], 0), "no tickets; `mesh-llm invite` makes one\n");
        let one = |id: u8, state, expires_unix_ms, uses_max| Invitation {
            id: format!("{id:016x}"),
            role: "serve".into(),
            state,
            created_unix_ms: 1_000,
            expires_unix_ms,
            uses_max,
            redeemed_by: vec!["ab".repeat(32); usize::from(id)],
        };
        let list = [
            one(0, InvitationPhase::Open, None, None),
            one(2, InvitationPhase::UsedUp, Some(90_000_000), Some(2)),
            one(1, InvitationPhase::Expired, Some(1_800_000), Some(5)),
            one(0, InvitationPhase::Revoked, Some(4_000_000), None),
        ];
        insta::assert_snapshot!(render(&list, 3_661_000));
    }
}
