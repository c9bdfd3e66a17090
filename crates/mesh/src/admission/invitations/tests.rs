//! Which tickets the book keeps, and what revoking does that are not in it any more.

use super::super::samples::{HOUR, NOW, Person, node};
use super::super::{Revocation, Target};
use super::*;

const DAY: u64 = 24 * HOUR;

/// Makes a ticket that admits for so long.
fn invite(
    by: &mut Person,
    expires_in_ms: Option<u64>,
    now_unix_ms: u64,
) -> Result<Ticket, Refusal> {
    let invite = Invite {
        expires_in_ms,
        ..Invite::default()
    };
    by.book.invite(
        &by.authority,
        None,
        invite,
        Vec::new(),
        now_unix_ms,
        &mut rand::rng(),
    )
}

fn listed(by: &Person, ticket: &Ticket) -> bool {
    let id = ticket.reference().id;
    by.book.list().iter().any(|state| state.id == id)
}

#[test]
fn old_tickets_that_somebody_came_by_stay_in_the_book() {
    let mut root = Person::root(1, 1);
    let used = invite(&mut root, Some(DAY), NOW).unwrap();
    let unused = invite(&mut root, Some(DAY), NOW).unwrap();
    root.admit(&used, 2, Role::Serve).unwrap();
    let later = NOW + KEEP_FINISHED_MS + 1;
    let fresh = invite(&mut root, Some(DAY), later).unwrap();
    assert!(listed(&root, &used) && listed(&root, &fresh));
    assert!(!listed(&root, &unused));
    assert!(root.book.has_admitted(node(2)));
    assert!(!root.book.has_admitted(node(3)));
    assert!(root.book.mark_revoked(used.reference().id));
    assert!(!root.book.mark_revoked(unused.reference().id));
}

#[test]
fn where_there_is_no_room_tickets_that_somebody_came_by_go_last() {
    let mut root = Person::root(1, 1);
    let holding = invite(&mut root, Some(HOUR), NOW).unwrap();
    let revoked = invite(&mut root, Some(HOUR), NOW).unwrap();
    for (number, ticket) in [(2, &holding), (3, &revoked)] {
        root.admit(ticket, number, Role::Serve).unwrap();
    }
    root.book.mark_revoked(revoked.reference().id);
    let unused = invite(&mut root, Some(HOUR), NOW + 1).unwrap();
    while root.book.list().len() < INVITATIONS_MAX {
        invite(&mut root, None, NOW).unwrap();
    }
    let later = NOW + HOUR + CLOCK_SKEW_MS + 2;
    let mut check = |kept: [bool; 3]| {
        let outcome = invite(&mut root, None, later);
        let found = [&revoked, &unused, &holding].map(|ticket| listed(&root, ticket));
        assert_eq!(found, kept);
        outcome.map(drop)
    };
    // What is revoked needs no book to be revoked.
    assert_eq!(check([false, true, true]), Ok(()));
    assert_eq!(check([false, false, true]), Ok(()));
    assert_eq!(check([false, false, false]), Ok(()));
    // The rest still admits.
    let full = Err(Refusal::Full("invitations"));
    assert_eq!(check([false, false, false]), full);
}

#[test]
fn a_ticket_that_the_book_forgot_is_revoked_all_the_same() {
    let mut root = Person::root(1, 1);
    let mut helper = root.bring(9);
    // Redeemed elsewhere, so that the book of its issuer knows of nobody.
    let ticket = invite(&mut root, Some(DAY), NOW).unwrap();
    let joined = helper.admit(&ticket, 2, Role::Serve).unwrap();
    invite(&mut root, Some(DAY), NOW + KEEP_FINISHED_MS + 1).unwrap();
    assert!(!root.book.mark_revoked(ticket.reference().id));
    let revocation = Revocation::sign(
        root.membership().mesh,
        Target::Ticket(ticket.reference()),
        root.membership().chain.clone(),
        NOW,
        &root.authority.key,
    );
    let mut trust = root.trust();
    assert!(trust.check(node(2), joined.membership(), NOW).is_ok());
    trust.revoke(revocation).unwrap();
    let checked = trust.check(node(2), joined.membership(), NOW);
    assert_eq!(checked, Err(Refusal::TicketRevoked));
    assert!(trust.check(node(9), helper.membership(), NOW).is_ok());
}

#[test]
fn whether_a_ticket_may_be_used_is_looked_up_without_using_it() {
    let mut root = Person::root(1, 1);
    let helper = root.bring(9);
    let counted = root.invite(Invite {
        uses_max: Some(1),
        ..Invite::default()
    });
    let terms = counted.terms();
    for _ in 0..2 {
        let looked_up = root.book.check_use(&root.authority, terms, node(2));
        assert_eq!(looked_up, Ok(()));
    }
    root.admit(&counted, 2, Role::Serve).unwrap();
    let check = |at: &Person, who: u8| at.book.check_use(&at.authority, terms, node(who));
    assert_eq!(check(&root, 2), Ok(()));
    assert_eq!(check(&root, 3), Err(Refusal::UsedUp));
    assert_eq!(check(&helper, 3), Err(Refusal::OnlyAtIssuer));
}
