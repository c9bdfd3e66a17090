//! Who is refused, with which reason, and what revoking does to those inside.

use mesh::Mesh;
use mesh::admission::{Invitations, Invite, Refusal};
use mesh::identity::StateDir;
use mesh::net::{MemberStatus, MeshError};
use mesh::ticket::{Ticket, TicketError};

use crate::nodes::{Node, apart, expelled, refusal, sees, sees_gone, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_counted_ticket_is_refused_when_replayed_by_others() {
    let one = Node::create().await;
    let ticket = one
        .invite(Invite {
            uses_max: Some(1),
            ..Invite::default()
        })
        .await;
    let two = Node::join(&ticket).await.unwrap();
    assert_eq!(refusal(Node::join(&ticket).await), Refusal::UsedUp);
    // The same node may use it again.
    two.mesh.leave().await;
    let again = Node::join_at(two.home, &ticket).await.unwrap();
    sees(&one.mesh, again.id()).await;
    let listed = one.mesh.invites().await.unwrap();
    assert_eq!(listed[0].redeemed_by, vec![again.id()]);
    // And the count is on disk.
    one.mesh.leave().await;
    let (root, _streams) = Mesh::create(settings(&one.home), None).await.unwrap();
    let listed = root.invites().await.unwrap();
    assert_eq!(listed[0].redeemed_by, vec![again.id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_forged_and_foreign_tickets_are_refused() {
    let one = Node::create().await;
    let expired = one
        .invite(Invite {
            expires_in_ms: Some(0),
            ..Invite::default()
        })
        .await;
    // The clocks of two machines may differ a little, so that the end comes a little later.
    let late = expired.terms().expires_unix_ms.unwrap() + mesh::admission::CLOCK_SKEW_MS + 1;
    assert_eq!(expired.check(late), Err(Refusal::TicketExpired));

    let text = one.ticket().await.to_string();
    let swapped = if &text[200..201] == "a" { "b" } else { "a" };
    let forged = [&text[..200], swapped, &text[201..]].concat();
    assert_eq!(forged.parse::<Ticket>(), Err(TicketError::Mistyped));

    // A ticket of another mesh that names this node as the place to ask.
    let other = Node::create().await;
    let ticket = other.ticket().await;
    let mut terms = ticket.terms().clone();
    terms.bootstrap = one.ticket().await.terms().bootstrap.clone();
    let key = StateDir::new(other.home.path()).key().unwrap();
    let foreign = Ticket::sign(terms, &key);
    assert_eq!(refusal(Node::join(&foreign).await), Refusal::OtherMesh);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_whose_nodes_are_gone_says_which_were_tried() {
    let one = Node::create().await;
    let ticket = one.ticket().await;
    let first = one.id();
    one.mesh.leave().await;
    let outcome = Node::join(&ticket).await;
    match outcome.err() {
        Some(MeshError::Unreachable(tried)) => {
            assert_eq!(tried.len(), 1);
            assert_eq!(tried[0].node, first);
        }
        other => panic!("should be unreachable, but: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_ticket_admits_nobody_and_cuts_those_who_came_by_it() {
    let one = Node::create().await;
    let two = one.bring().await;
    let ticket = one.ticket().await;
    let three = Node::join(&ticket).await.unwrap();
    sees(&two.mesh, three.id()).await;
    assert!(one.mesh.revoke(ticket.terms().id).await.unwrap());
    apart(&one.mesh, three.id()).await;
    apart(&two.mesh, three.id()).await;
    assert_eq!(
        expelled(&three.mesh).await,
        MemberStatus::Expelled(Refusal::TicketRevoked)
    );
    assert_eq!(refusal(Node::join(&ticket).await), Refusal::TicketRevoked);
    assert!(one.mesh.invites().await.unwrap()[0].revoked);
    // The others stay, and new tickets work.
    sees(&one.mesh, two.id()).await;
    let four = one.bring().await;
    sees(&two.mesh, four.id()).await;
    // One that is not in the book may have been mistyped, which its user is told.
    let unknown = mesh::admission::TicketId::from_bytes([0; 8]);
    assert!(!one.mesh.revoke(unknown).await.unwrap());
}

/// Books forget tickets after a while, or are lost; memberships stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_is_not_in_the_book_any_more_is_revoked_all_the_same() {
    let one = Node::create().await;
    let ticket = one.ticket().await;
    let two = Node::join(&ticket).await.unwrap();
    let three = one.bring().await;
    let (first, mesh) = (one.id(), one.mesh.mesh_id());
    one.mesh.leave().await;
    let files = StateDir::new(one.home.path()).mesh(mesh);
    files.set_invitations(&Invitations::default()).unwrap();
    let (root, _streams) = Mesh::create(settings(&one.home), None).await.unwrap();
    assert!(root.invites().await.unwrap().is_empty());
    sees(&two.mesh, first).await;
    assert!(!root.revoke(ticket.terms().id).await.unwrap());
    assert_eq!(
        expelled(&two.mesh).await,
        MemberStatus::Expelled(Refusal::TicketRevoked)
    );
    apart(&root, two.id()).await;
    sees(&root, three.id()).await;
    // Said again, it is still not in the book.
    assert!(!root.revoke(ticket.terms().id).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expelled_member_falls_with_those_it_admitted_and_stays_out() {
    let one = Node::create().await;
    let two = one.bring().await;
    let three = two.bring().await;
    sees(&one.mesh, three.id()).await;
    let four = one.bring().await;
    for node in [two.id(), three.id()] {
        sees(&four.mesh, node).await;
    }
    assert!(one.mesh.expel(two.id()).await.unwrap());
    for node in [two.id(), three.id()] {
        for mesh in [&one.mesh, &four.mesh] {
            apart(mesh, node).await;
            sees_gone(mesh, node).await;
        }
    }
    sees(&one.mesh, four.id()).await;
    // Neither with the old membership nor with a new ticket, nor after the root restarts.
    let mesh = one.mesh.mesh_id();
    one.mesh.leave().await;
    let (root, _streams) = Mesh::create(settings(&one.home), None).await.unwrap();
    let ticket = root.invite(Invite::default()).await.unwrap();
    two.mesh.leave().await;
    let outcome = Mesh::join(settings(&two.home), &ticket).await;
    assert_eq!(refusal(outcome), Refusal::Expelled);
    three.mesh.leave().await;
    if let Ok((again, _streams)) = Mesh::rejoin(settings(&three.home), mesh).await {
        assert_eq!(
            expelled(&again).await,
            MemberStatus::Expelled(Refusal::Expelled)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_expels_those_it_admitted_and_nobody_else() {
    let one = Node::create().await;
    let two = one.bring().await;
    let three = one.bring().await;
    let four = two.bring().await;
    sees(&one.mesh, four.id()).await;
    sees(&two.mesh, three.id()).await;
    let outcome = two.mesh.expel(three.id()).await;
    assert_eq!(refusal(outcome), Refusal::NotAbove);
    two.mesh.expel(four.id()).await.unwrap();
    for mesh in [&one.mesh, &two.mesh, &three.mesh] {
        apart(mesh, four.id()).await;
        sees_gone(mesh, four.id()).await;
    }
}

/// Also one that has not been connected since: its book says whom it admitted.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_restarted_expels_those_it_admitted() {
    let one = Node::create().await;
    let two = one.bring().await;
    let three = two.bring().await;
    let mesh = one.mesh.mesh_id();
    three.mesh.leave().await;
    two.mesh.leave().await;
    let (again, _streams) = Mesh::rejoin(settings(&two.home), mesh).await.unwrap();
    assert!(again.expel(three.id()).await.unwrap());
    let ticket = again.invite(Invite::default()).await.unwrap();
    let outcome = Mesh::join(settings(&three.home), &ticket).await;
    assert_eq!(refusal(outcome), Refusal::Expelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_expels_itself_or_the_originator() {
    let one = Node::create().await;
    let two = one.bring().await;
    for mesh in [&one.mesh, &two.mesh] {
        let outcome = mesh.expel(mesh.node_id()).await;
        assert!(matches!(outcome, Err(MeshError::ExpelsItself)));
    }
    let outcome = two.mesh.expel(one.id()).await;
    assert!(matches!(outcome, Err(MeshError::ExpelsOriginator(node)) if node == one.id()));
    // The originator may expel whom it has never seen: one that only others know, or nobody at all.
    let stranger = mesh::NodeId::from_bytes([7; 32]);
    assert!(!one.mesh.expel(stranger).await.unwrap());
    assert_eq!(refusal(two.mesh.expel(stranger).await), Refusal::NotAbove);
    sees(&two.mesh, one.id()).await;
}
