use proptest::prelude::*;

use super::samples::{HOUR, NOW, Person, key, node};
use super::*;
use crate::Role;

fn revoke(by: &Person, target: Target) -> Revocation {
    let membership = by.membership();
    Revocation::sign(
        membership.mesh,
        target,
        membership.chain.clone(),
        NOW,
        &by.authority.key,
    )
}

#[test]
fn a_chain_of_members_is_believed_up_to_its_length_limit() {
    let mut last = Person::root(1, 1);
    let trust = last.trust();
    for number in 2..=9 {
        last = last.bring(number);
        let depth = usize::from(number) - 1;
        assert_eq!(
            trust.check(node(number), last.membership(), NOW),
            Ok(Standing {
                role: Role::Serve,
                depth
            })
        );
    }
    let bytes = last.membership().to_bytes();
    assert!(bytes.len() <= MEMBERSHIP_BYTES_MAX, "{}", bytes.len());
    assert_eq!(
        Membership::from_bytes(&bytes).as_ref(),
        Ok(last.membership())
    );
    let mut rng = rand::rng();
    let refused = last.book.invite(
        &last.authority,
        None,
        Invite::default(),
        Vec::new(),
        NOW,
        &mut rng,
    );
    assert_eq!(refused.unwrap_err(), Refusal::TooDeep);
}

#[test]
fn a_membership_holds_for_its_node_mesh_and_time_only() {
    let mut root = Person::root(1, 1);
    let member = root.bring(2);
    let trust = root.trust();
    let membership = member.membership();
    let check = |membership: &Membership, who: u8, now| trust.check(node(who), membership, now);
    assert!(check(membership, 2, NOW).is_ok());
    assert_eq!(check(membership, 3, NOW), Err(Refusal::OtherNode));
    assert_eq!(
        check(membership, 2, NOW - HOUR),
        Err(Refusal::FromTheFuture)
    );
    assert!(check(membership, 2, NOW - CLOCK_SKEW_MS).is_ok());

    let mut stolen = membership.clone();
    stolen.node = node(3);
    assert_eq!(check(&stolen, 3, NOW), Err(Refusal::BrokenChain));
    let mut bare = membership.clone();
    bare.chain.clear();
    assert_eq!(check(&bare, 2, NOW), Err(Refusal::BrokenChain));

    let other = Person::root(1, 2).trust();
    assert_eq!(
        other.check(node(2), membership, NOW),
        Err(Refusal::OtherMesh)
    );
    let usurped = Person::root(9, 1).trust();
    assert_eq!(
        usurped.check(node(2), membership, NOW),
        Err(Refusal::OtherMesh)
    );
}

#[test]
fn an_expired_certificate_takes_those_below_along() {
    let mut root = Person::root(1, 1);
    let mut member = root.bring(2);
    let mut grant = member.membership().chain[0].grant().clone();
    grant.expires_unix_ms = Some(NOW + HOUR);
    member.authority.membership.chain[0] = Certificate::sign(grant, &key(1));
    let below = member.bring(3);
    let trust = root.trust();
    for (who, person) in [(2, &member), (3, &below)] {
        let check = |now| trust.check(node(who), person.membership(), now);
        assert!(check(NOW + HOUR + CLOCK_SKEW_MS).is_ok());
        let late = check(NOW + HOUR + CLOCK_SKEW_MS + 1);
        assert_eq!(late, Err(Refusal::MembershipExpired));
    }
}

#[test]
fn a_forged_certificate_is_refused() {
    let mut root = Person::root(1, 1);
    let member = root.bring(2);
    let trust = root.trust();
    let mut grant = member.membership().chain[0].grant().clone();
    grant.node = node(3);
    // Signed by somebody else than it says.
    let mut forged = member.membership().clone();
    forged.node = node(3);
    let certificate = Certificate::sign(
        Grant {
            issuer: node(3),
            ..grant
        },
        &key(3),
    );
    let mut bytes = certificate.to_bytes();
    let at = bytes
        .windows(32)
        .rposition(|window| window == node(3).as_bytes())
        .unwrap();
    bytes[at..at + 32].copy_from_slice(node(1).as_bytes());
    forged.chain = vec![Certificate::from_bytes(&bytes).unwrap()];
    assert_eq!(
        trust.check(node(3), &forged, NOW),
        Err(Refusal::BadSignature)
    );
}

#[test]
fn a_client_admits_nobody() {
    let mut root = Person::root(1, 1);
    let ticket = root.invite(Invite {
        role: Role::Client,
        ..Invite::default()
    });
    assert_eq!(
        root.admit(&ticket, 2, Role::Serve).err(),
        Some(Refusal::ClientsOnly)
    );
    let mut client = root.admit(&ticket, 2, Role::Client).unwrap();
    let mut rng = rand::rng();
    let invited = client.book.invite(
        &client.authority,
        None,
        Invite::default(),
        Vec::new(),
        NOW,
        &mut rng,
    );
    assert_eq!(invited.unwrap_err(), Refusal::MayNotInvite);
    // Nor when it signs a certificate all the same.
    let mut grant = client.membership().chain[0].grant().clone();
    (grant.issuer, grant.node) = (node(2), node(3));
    grant.ticket.issuer = node(2);
    let mut chain = vec![Certificate::sign(grant, &key(2))];
    chain.extend(client.membership().chain.clone());
    let smuggled = Membership {
        node: node(3),
        chain,
        ..client.membership().clone()
    };
    let trust = root.trust();
    assert_eq!(
        trust.check(node(3), &smuggled, NOW),
        Err(Refusal::MayNotInvite)
    );
    let redeemed = client.admit(&ticket, 4, Role::Client).err();
    assert_eq!(redeemed, Some(Refusal::NotServing));
}

#[test]
fn a_counted_ticket_admits_as_many_nodes_and_only_at_its_issuer() {
    let mut root = Person::root(1, 1);
    let mut helper = root.bring(9);
    let ticket = root.invite(Invite {
        uses_max: Some(2),
        ..Invite::default()
    });
    let at_helper = helper.admit(&ticket, 2, Role::Serve).err();
    assert_eq!(at_helper, Some(Refusal::OnlyAtIssuer));
    root.admit(&ticket, 2, Role::Serve).unwrap();
    root.admit(&ticket, 2, Role::Client).unwrap();
    root.admit(&ticket, 3, Role::Serve).unwrap();
    assert_eq!(
        root.admit(&ticket, 4, Role::Serve).err(),
        Some(Refusal::UsedUp)
    );
    root.admit(&ticket, 3, Role::Serve).unwrap();

    // The count survives a restart; without the book nobody gets in.
    root.book = Invitations::from_bytes(&root.book.to_bytes()).unwrap();
    assert_eq!(
        root.admit(&ticket, 4, Role::Serve).err(),
        Some(Refusal::UsedUp)
    );
    root.book = Invitations::default();
    assert_eq!(
        root.admit(&ticket, 4, Role::Serve).err(),
        Some(Refusal::UnknownTicket)
    );
}

#[test]
fn an_uncounted_ticket_is_redeemed_at_any_serving_member() {
    let mut root = Person::root(1, 1);
    let mut helper = root.bring(2);
    let ticket = root.invite(Invite::default());
    let joined = helper.admit(&ticket, 3, Role::Serve).unwrap();
    let trust = root.trust();
    assert!(trust.check(node(3), joined.membership(), NOW).is_ok());
    // A ticket of a member below is honoured by the root, and remembers who stands behind it.
    let mut deep = helper.bring(4);
    let ticket = deep.invite(Invite::default());
    let joined = root.admit(&ticket, 5, Role::Serve).unwrap();
    let sponsors = &joined.membership().chain[0].grant().sponsors;
    assert_eq!(sponsors, &vec![node(4), node(2)]);
}

#[test]
fn tickets_of_other_meshes_and_times_are_refused() {
    let mut root = Person::root(1, 1);
    let mut other = Person::root(1, 2);
    let foreign = other.invite(Invite::default());
    assert_eq!(
        root.admit(&foreign, 2, Role::Serve).err(),
        Some(Refusal::OtherMesh)
    );
    let ticket = root.invite(Invite {
        expires_in_ms: Some(HOUR),
        ..Invite::default()
    });
    let redemption = Redemption {
        ticket: &ticket,
        node: node(2),
        role: Role::Serve,
    };
    let trust = root.trust();
    let late = NOW + HOUR + CLOCK_SKEW_MS + 1;
    let refused = root.book.redeem(&root.authority, &trust, redemption, late);
    assert_eq!(refused.err(), Some(Refusal::TicketExpired));
}

#[test]
fn a_forged_variant_of_a_known_revocation_is_no_revocation() {
    let mut root = Person::root(1, 1);
    let bad = root.bring(2);
    let mut trust = root.trust();
    let revocation = revoke(&root, Target::Node(bad.id()));
    trust.revoke(revocation.clone()).unwrap();
    let bytes = revocation.to_bytes();
    let (mut read, mut forged) = (0, 0);
    for index in 0..bytes.len() {
        let mut variant = bytes.clone();
        variant[index] ^= 1;
        let Ok(variant) = Revocation::from_bytes(&variant) else {
            continue;
        };
        read += 1;
        forged += usize::from(trust.revoke(variant).is_err());
    }
    assert!(read > 64, "most of the bytes are a signature's");
    assert_eq!(forged, read);
}

#[test]
fn a_clock_that_was_put_back_ends_no_connection() {
    let mut root = Person::root(1, 1);
    let member = root.bring(2);
    let (trust, chain) = (root.trust(), &member.membership().chain);
    assert_eq!(trust.check_still(chain, NOW - HOUR), Ok(()));
}

#[test]
fn an_expelled_member_falls_with_those_it_admitted() {
    let mut root = Person::root(1, 1);
    let mut bad = root.bring(2);
    let below = bad.bring(3);
    let beside = root.bring(4);
    // Came by the bad member's ticket, at another member.
    let ticket = bad.invite(Invite::default());
    let sponsored = root.admit(&ticket, 5, Role::Serve).unwrap();
    let mut trust = root.trust();
    let revocation = revoke(&root, Target::Node(bad.id()));
    assert_eq!(trust.revoke(revocation.clone()), Ok(Insertion::Added));
    assert_eq!(trust.revoke(revocation), Ok(Insertion::Known));
    for (number, person, falls) in [
        (2, &bad, true),
        (3, &below, true),
        (4, &beside, false),
        (5, &sponsored, true),
    ] {
        let checked = trust.check(node(number), person.membership(), NOW);
        assert_eq!(
            checked == Err(Refusal::Expelled),
            falls,
            "{number}: {checked:?}"
        );
    }
    let refused = root.admit_knowing(&trust, &ticket, 6, Role::Serve).err();
    assert_eq!(refused, Some(Refusal::Expelled));
    // Nor does the expelled one come back by a ticket of the same root.
    let fresh = root.invite(Invite::default());
    let refused = root.admit_knowing(&trust, &fresh, 2, Role::Serve).err();
    assert_eq!(refused, Some(Refusal::Expelled));
}

#[test]
fn a_revoked_ticket_admits_nobody_and_ends_the_memberships_it_gave() {
    let mut root = Person::root(1, 1);
    let mut helper = root.bring(9);
    let ticket = root.invite(Invite::default());
    let at_root = root.admit(&ticket, 2, Role::Serve).unwrap();
    let at_helper = helper.admit(&ticket, 3, Role::Serve).unwrap();
    let mut trust = root.trust();
    let revocation = revoke(&root, Target::Ticket(ticket.reference()));
    trust.revoke(revocation).unwrap();
    assert!(root.book.mark_revoked(ticket.reference().id));
    for (number, person) in [(2, &at_root), (3, &at_helper)] {
        let checked = trust.check(node(number), person.membership(), NOW);
        assert_eq!(checked, Err(Refusal::TicketRevoked));
    }
    let refused = helper.admit_knowing(&trust, &ticket, 4, Role::Serve).err();
    assert_eq!(refused, Some(Refusal::TicketRevoked));
    assert!(trust.check(node(9), helper.membership(), NOW).is_ok());
}

#[test]
fn only_those_above_can_expel() {
    let mut root = Person::root(1, 1);
    let mut one = root.bring(2);
    let two = root.bring(3);
    let below = one.bring(4);
    let mut trust = root.trust();
    // A word from the side is kept and changes nothing.
    trust
        .revoke(revoke(&two, Target::Node(below.id())))
        .unwrap();
    trust
        .revoke(revoke(&below, Target::Node(one.id())))
        .unwrap();
    // A made-up certificate does not put the signer above.
    for (number, person) in [(2, &one), (3, &two), (4, &below)] {
        assert!(trust.check(node(number), person.membership(), NOW).is_ok());
    }
    trust
        .revoke(revoke(&one, Target::Node(below.id())))
        .unwrap();
    assert_eq!(
        trust.check(node(4), below.membership(), NOW),
        Err(Refusal::Expelled)
    );
    let root_target = revoke(&one, Target::Node(root.id()));
    assert_eq!(trust.revoke(root_target), Err(Refusal::NotAbove));
}

#[test]
fn the_set_of_revocations_is_bounded_and_the_same_in_any_order() {
    let mut root = Person::root(1, 1);
    let flooder = root.bring(2);
    let mut trust = root.trust();
    let mut refused = None;
    for number in 0..=REVOCATIONS_PER_SIGNER_MAX {
        let mut id = [0; 8];
        id[..2].copy_from_slice(&u16::try_from(number).unwrap().to_le_bytes());
        let target = Target::Ticket(TicketRef {
            issuer: node(2),
            id: TicketId::from_bytes(id),
        });
        refused = trust.revoke(revoke(&flooder, target)).err();
    }
    assert_eq!(refused, Some(Refusal::Full("revocations")));
    assert_eq!(trust.revocations().len(), REVOCATIONS_PER_SIGNER_MAX);
    // His words go with him, and come in no more.
    trust.revoke(revoke(&root, Target::Node(node(2)))).unwrap();
    assert_eq!(trust.revocations().len(), 1);
    let word = revoke(&flooder, Target::Node(node(7)));
    assert_eq!(trust.revoke(word.clone()), Ok(Insertion::Known));
    assert_eq!(trust.revocations().len(), 1);

    let mut other = root.trust();
    other.revoke(word).unwrap();
    other.revoke(revoke(&root, Target::Node(node(2)))).unwrap();
    assert_eq!(other.revocations().digest(), trust.revocations().digest());
    assert_eq!(other.revocations().nodes(), [node(2)].into());
}

#[test]
fn revocations_read_back_and_forged_ones_are_refused() {
    let mut root = Person::root(1, 1);
    let member = root.bring(2);
    let mut trust = root.trust();
    let revocation = revoke(&member, Target::Node(node(3)));
    let bytes = revocation.to_bytes();
    assert!(bytes.len() <= REVOCATION_BYTES_MAX);
    assert_eq!(Revocation::from_bytes(&bytes), Ok(revocation));
    // In the root's name, but not by its key.
    let mut forged = bytes.clone();
    while let Some(at) = forged.windows(32).position(|w| w == node(2).as_bytes()) {
        forged[at..at + 32].copy_from_slice(node(1).as_bytes());
    }
    if let Ok(forged) = Revocation::from_bytes(&forged) {
        assert!(trust.revoke(forged).is_err());
    }
    let foreign = Person::root(1, 2);
    let word = revoke(&foreign, Target::Node(node(3)));
    assert_eq!(trust.revoke(word), Err(Refusal::OtherMesh));
    assert!(trust.revocations().is_empty());
}

#[test]
fn the_book_makes_room_among_the_finished_only() {
    let mut root = Person::root(1, 1);
    let mut rng = rand::rng();
    let mut invite = |root: &mut Person, span, now| {
        let invite = Invite {
            expires_in_ms: Some(span),
            ..Invite::default()
        };
        root.book
            .invite(&root.authority, None, invite, Vec::new(), now, &mut rng)
    };
    let short = invite(&mut root, 1, NOW).unwrap().reference().id;
    for _ in 1..INVITATIONS_MAX {
        invite(&mut root, 30 * 24 * HOUR, NOW).unwrap();
    }
    let refused = invite(&mut root, HOUR, NOW).unwrap_err();
    assert_eq!(refused, Refusal::Full("invitations"));
    invite(&mut root, HOUR, NOW + HOUR).unwrap();
    let list = root.book.list();
    assert_eq!(list.len(), INVITATIONS_MAX);
    assert!(list.iter().all(|state| state.id != short));
    assert_eq!(
        list[0].created_unix_ms,
        NOW + HOUR,
        "the newest comes first"
    );
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Certificate::from_bytes(&bytes);
        let _ = Membership::from_bytes(&bytes);
        let _ = Revocation::from_bytes(&bytes);
        let _ = Invitations::from_bytes(&bytes);
    }

    #[test]
    fn a_changed_membership_is_never_believed(at in 0usize..700, bit in 0u8..8) {
        let mut root = Person::root(1, 1);
        let member = root.bring(2).bring(3);
        let trust = root.trust();
        let mut bytes = member.membership().to_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(changed) = Membership::from_bytes(&bytes) {
            let believed = trust.check(node(3), &changed, NOW).is_ok();
            // A change outside of the signed parts may leave the membership as it was.
            prop_assert!(!believed || changed == *member.membership());
        }
    }
}
