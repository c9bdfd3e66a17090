use proptest::prelude::*;

use super::*;
use crate::admission::samples::{HOUR, NOW, Person, key, node};
use crate::admission::{Invite, Refusal};

fn terms(person: &Person) -> Terms {
    let membership = person.membership();
    Terms {
        mesh: membership.mesh,
        name: Some("home".into()),
        root: membership.root,
        issuer: person.id(),
        chain: membership.chain.clone(),
        id: TicketId::from_bytes([7; 8]),
        role: Role::Serve,
        expires_unix_ms: Some(NOW + HOUR),
        uses_max: Some(3),
        bootstrap: vec![(
            person.id(),
            Addresses::new(
                ["192.168.1.10:40123", "[2001:db8::10]:40123"].map(|t| t.parse().unwrap()),
                Some("https://relay.example.com./".into()),
            ),
        )],
    }
}

fn ticket() -> Ticket {
    let root = Person::root(1, 1);
    Ticket::sign(terms(&root), &key(1))
}

#[test]
fn the_text_form_reads_back_in_either_case_and_over_lines() {
    let ticket = ticket();
    let text = ticket.to_string();
    assert!(text.starts_with(PREFIX));
    assert!(text.len() < 450, "{} characters", text.len());
    assert!(
        text.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    );
    assert_eq!(text.parse(), Ok(ticket.clone()));
    assert_eq!(text.to_uppercase().parse(), Ok(ticket.clone()));
    let broken = format!("  {}\r\n   {}\n", &text[..80], &text[80..]);
    assert_eq!(broken.parse(), Ok(ticket.clone()));
    assert_eq!(ticket.check(NOW), Ok(()));
}

#[test]
fn a_ticket_from_the_end_of_the_longest_chain_fits() {
    let mut person = Person::root(1, 1);
    for number in 2..=8 {
        person = person.bring(number);
    }
    let ticket = Ticket::sign(terms(&person), &key(8));
    let text = ticket.to_string();
    assert!(text.len() <= TEXT_BYTES_MAX, "{}", text.len());
    assert_eq!(text.parse(), Ok(ticket.clone()));
    assert_eq!(ticket.check(NOW), Ok(()));
}

#[test]
fn each_way_of_being_broken_has_its_own_error() {
    let text = ticket().to_string();
    let mut swapped = text.clone();
    let other = if text.as_bytes()[100] == b'a' {
        "b"
    } else {
        "a"
    };
    swapped.replace_range(100..101, other);
    let check = |text: &str, expected: TicketError| {
        assert_eq!(text.parse::<Ticket>(), Err(expected), "{text}");
    };
    check("", TicketError::NotATicket);
    check("hello", TicketError::NotATicket);
    check("mesh", TicketError::NotATicket);
    check("meshed-together", TicketError::NotATicket);
    check("mesh1", TicketError::CutOff);
    check(&text[..text.len() / 2], TicketError::CutOff);
    check(&text[..text.len() - 1], TicketError::CutOff);
    check(&format!("{text}aaaaaaaa"), TicketError::Extra);
    check(&swapped, TicketError::Mistyped);
    check(&text.replacen("mesh1", "mesh2", 1), TicketError::Newer);
    check(
        &text.replacen("mesh1", "mesh10", 1),
        TicketError::Character { character: '0' },
    );
    check(&"mesh1".repeat(TEXT_BYTES_MAX), TicketError::TooLong);
    let odd = format!("{}!{}", &text[..50], &text[51..]);
    check(&odd, TicketError::Character { character: '!' });
}

#[test]
fn every_cut_is_called_a_cut() {
    let text = ticket().to_string();
    for length in PREFIX.len()..text.len() {
        assert_eq!(
            text[..length].parse::<Ticket>(),
            Err(TicketError::CutOff),
            "{length}"
        );
    }
}

#[test]
fn unreadable_contents_under_a_right_checksum_are_malformed() {
    let signed = [[0xff; 20].as_slice(), &[0; SIGNATURE_BYTES]].concat();
    let mut bytes = u16::try_from(signed.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(signed);
    let sum = checksum(&bytes);
    bytes.extend(sum);
    let error = Ticket::from_bytes(&bytes).unwrap_err();
    assert!(matches!(error, TicketError::Malformed(_)), "{error}");
}

#[test]
fn forged_and_late_tickets_are_refused() {
    let root = Person::root(1, 1);
    let late = NOW + HOUR + CLOCK_SKEW_MS + 1;
    assert_eq!(ticket().check(late), Err(Refusal::TicketExpired));
    // Signed by somebody else.
    let mut forged = ticket();
    forged.signature = signature::sign(&key(2), DOMAIN, &forged.body);
    assert_eq!(forged.check(NOW), Err(Refusal::BadSignature));
    // Terms changed under the old signature.
    let mut more = terms(&root);
    more.uses_max = None;
    let mut changed = Ticket::sign(more, &key(1));
    changed.signature = ticket().signature;
    assert_eq!(changed.check(NOW), Err(Refusal::BadSignature));
    // A stranger invites into a mesh that is not his.
    let mut foreign = terms(&root);
    foreign.issuer = node(2);
    assert_eq!(
        Ticket::sign(foreign, &key(2)).check(NOW),
        Err(Refusal::BrokenChain)
    );
}

#[test]
fn a_clients_ticket_is_refused() {
    let mut root = Person::root(1, 1);
    let invitation = root.invite(Invite {
        role: Role::Client,
        ..Invite::default()
    });
    let client = root.admit(&invitation, 2, Role::Client).unwrap();
    let ticket = Ticket::sign(terms(&client), &key(2));
    assert_eq!(ticket.check(NOW), Err(Refusal::MayNotInvite));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = text.parse::<Ticket>();
    }

    #[test]
    fn any_payload_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let text = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes));
        let _ = text.parse::<Ticket>();
    }

    #[test]
    fn terms_survive_the_text_form(
        id in any::<[u8; 8]>(),
        name in proptest::option::of("[a-z ]{0,64}"),
        expires_unix_ms in proptest::option::of(any::<u64>()),
        uses_max in proptest::option::of(any::<u32>()),
        ports in proptest::collection::btree_set(1u16.., 0..12),
        client in any::<bool>(),
    ) {
        let root = Person::root(1, 1);
        let direct = ports.iter().map(|port| ([10, 0, 0, 1], *port).into());
        let terms = Terms {
            id: TicketId::from_bytes(id),
            name,
            expires_unix_ms,
            uses_max,
            role: if client { Role::Client } else { Role::Serve },
            bootstrap: vec![(node(3), Addresses::new(direct, None))],
            ..terms(&root)
        };
        let ticket = Ticket::sign(terms.clone(), &key(1));
        let read: Ticket = ticket.to_string().parse().unwrap();
        prop_assert_eq!(read.terms(), &terms);
        prop_assert_eq!(read, ticket);
    }
}
