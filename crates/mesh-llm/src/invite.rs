//! `mesh-llm invite`, `invites` and `revoke`: tickets of the running node, and members put out of its
//! mesh.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::management::{
    Invitation, InvitationPhase, InvitationRequest, Invitations, Invited, Status,
};
use mesh::NodeId;
use mesh::admission::TicketId;
use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use crate::cli::{Expiry, InviteArguments, Revocable, print};
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

/// Takes back a ticket, or a member's place in the mesh.
pub(crate) async fn revoke(settings: &Settings, id: &Revocable) -> Result<(), Failure> {
    let control = Control::new(settings)?;
    let console = Console::new(settings.log_format);
    match id {
        Revocable::Ticket(id) => revoke_ticket(&control, console, *id).await,
        Revocable::Node(digits) => expel(&control, console, digits).await,
    }
}

async fn revoke_ticket(control: &Control, console: Console, id: TicketId) -> Result<(), Failure> {
    let id = id.to_string();
    let listed: Invitations = control.get("/api/invites").await?;
    let is_listed = listed.invites.iter().any(|one| one.id == id);
    let path = format!("/api/invites/{id}");
    control.order(Method::DELETE, &path).await?;
    if is_listed {
        console.say(&format!(
            "revoked {id}: the ticket admits nobody any more, and those that came by it are out"
        ));
    } else {
        console.warn("unknown_ticket", &unlisted(&id));
    }
    console.event("revoked", json!({ "id": id, "known": is_listed }));
    Ok(())
}

/// What to say of a ticket that the node does not list. It may be old, of another node, or mistyped.
fn unlisted(id: &str) -> String {
    format!(
        "ticket {id} is not in the book of this node; it is revoked all the same: if this node made \
         it, those that came by it are out; hint: if another node made it, revoke it there; if you \
         meant another ticket, `mesh-llm invites` lists those in the book"
    )
}

async fn expel(control: &Control, console: Console, digits: &str) -> Result<(), Failure> {
    let status: Status = control.get("/api/status").await?;
    let invitations: Invitations = control.get("/api/invites").await?;
    let known = known_nodes(&status, &invitations.invites);
    let id = node_of(digits, &known)?;
    let path = format!("/api/peers/{id}");
    control.order(Method::DELETE, &path).await?;
    let is_known = known.contains(&id);
    if is_known {
        console.say(&format!(
            "expelled {id}: it is no member any more, and neither are those that it admitted"
        ));
    } else {
        console.warn(
            "unknown_node",
            &format!(
                "this node has never heard of {id}; it is expelled all the same; hint: if it is \
                 mistyped, `mesh-llm status` lists the members"
            ),
        );
    }
    console.event("expelled", json!({ "id": id, "known": is_known }));
    Ok(())
}

/// Ids of all nodes that the running one can tell of: itself, members, clients that are connected,
/// and whoever came by its tickets.
fn known_nodes(status: &Status, invitations: &[Invitation]) -> BTreeSet<String> {
    let own = status.node.id.iter();
    let peers = status.peers.iter().map(|peer| &peer.id);
    let links = status.links.iter().map(|link| &link.node);
    let redeemers = invitations.iter().flat_map(|one| &one.redeemed_by);
    own.chain(peers)
        .chain(links)
        .chain(redeemers)
        .cloned()
        .collect()
}

/// The whole id that `digits` are or begin.
fn node_of(digits: &str, known: &BTreeSet<String>) -> Result<String, Failure> {
    // Nobody need be known to be named in full.
    if digits.parse::<NodeId>().is_ok() {
        return Ok(digits.to_owned());
    }
    let fitting: Vec<&String> = known.iter().filter(|id| id.starts_with(digits)).collect();
    match fitting[..] {
        [id] => Ok(id.clone()),
        [] => Err(Failure::other(format!(
            "no node that is known here has an id that begins with {digits}; hint: `mesh-llm \
             status` lists the members; any other is named by all 64 digits"
        ))),
        _ => Err(Failure::other(format!(
            "the ids of {} nodes begin with {digits}; hint: type more digits, `mesh-llm status \
             --json` shows all of them",
            fitting.len()
        ))),
    }
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

    #[test]
    fn a_node_is_named_by_the_beginning_of_its_id() {
        let (one, two) = (
            "ab".repeat(32),
            format!("{}{}", "ab".repeat(6), "cd".repeat(26)),
        );
        let known = BTreeSet::from([one.clone(), two.clone(), "12".repeat(32)]);
        let check = |digits: &str, expected: Result<&str, &str>| {
            let found = node_of(digits, &known);
            match expected {
                Ok(id) => assert_eq!(found.as_deref(), Ok(id)),
                Err(reason) => {
                    let failure = found.unwrap_err();
                    let message = failure.message();
                    assert!(message.starts_with(reason), "{message}");
                    assert!(message.contains("; hint: "), "{message}");
                }
            }
        };
        check(&one[..13], Ok(&one));
        check(&two[..13], Ok(&two));
        check(&two, Ok(&two));
        check(&one[..10], Err("the ids of 2 nodes begin with ababababab"));
        check("ffffffffff", Err("no node that is known here"));
        let stranger = "ff".repeat(32);
        check(&stranger, Ok(&stranger));
    }

    #[test]
    fn a_ticket_that_is_not_listed_may_be_old_or_foreign_or_mistyped() {
        let text = unlisted("0102030405060708");
        let begin =
            "ticket 0102030405060708 is not in the book of this node; it is revoked all the same";
        assert!(text.starts_with(begin), "{text}");
        // The console cuts there.
        assert_eq!(text.matches("; hint: ").count(), 1, "{text}");
    }
}
