//! Creating, joining, leaving, dying and coming back.

use std::net::UdpSocket;
use std::time::Duration;

use mesh::Mesh;
use mesh::admission::Invite;
use mesh::net::{MeshError, Path};
use mesh::proto::Liveness;
use mesh::{MeshId, Role};
use tokio::time::sleep;

use crate::nodes::{
    Node, apart, ask, client_settings, echo, home, sees, sees_gone, settings, until, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_find_each_other_and_a_third_joins_through_the_second() {
    let one = Node::create().await;
    let two = one.bring().await;
    assert_eq!(one.mesh.mesh_id(), two.mesh.mesh_id());
    let ticket = two.ticket().await;
    let first = one.id();
    drop(one.kill());
    sees_gone(&two.mesh, first).await;
    let three = Node::join(&ticket).await.unwrap();
    sees(&two.mesh, three.id()).await;
    sees(&three.mesh, two.id()).await;
    // The first node's own ticket also names only what it knew; the third may invite as well.
    let four = Node::join(&three.ticket().await).await.unwrap();
    for mesh in [&two.mesh, &three.mesh] {
        sees(mesh, four.id()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_also_leads_to_members_beside_its_issuer() {
    let one = Node::create().await;
    let two = one.bring().await;
    let ticket = one.ticket().await;
    assert!(
        ticket
            .terms()
            .bootstrap
            .iter()
            .any(|(node, _)| *node == two.id())
    );
    one.mesh.leave().await;
    let three = Node::join(&ticket).await.unwrap();
    sees(&three.mesh, two.id()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_is_told_and_dying_is_noticed() {
    let one = Node::create().await;
    let two = one.bring().await;
    let three = one.bring().await;
    sees(&two.mesh, three.id()).await;
    let (second, third) = (two.id(), three.id());
    two.mesh.leave().await;
    for mesh in [&one.mesh, &three.mesh] {
        until(mesh, |view| {
            view.member(second)
                .is_some_and(|m| m.liveness == Liveness::Left)
        })
        .await;
    }
    assert!(matches!(two.mesh.links().await, Err(MeshError::Stopped)));
    drop(three.kill());
    until(&one.mesh, |view| {
        view.member(third)
            .is_some_and(|m| m.liveness == Liveness::Dead)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_comes_back_with_its_stored_membership() {
    let one = Node::create().await;
    let two = one.bring().await;
    let (mesh, second) = (two.mesh.mesh_id(), two.id());
    two.mesh.leave().await;
    let home = two.home;
    let state = mesh::identity::StateDir::new(home.path());
    assert_eq!(state.last_mesh().unwrap(), Some(mesh));
    let (again, streams) = Mesh::rejoin(settings(&home), mesh).await.unwrap();
    assert_eq!(again.node_id(), second);
    assert_eq!(again.role(), Role::Serve);
    sees(&again, one.id()).await;
    sees(&one.mesh, second).await;
    drop((again, streams));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originator_restarts_and_finds_its_mesh_again() {
    let one = Node::create().await;
    let two = one.bring().await;
    let (mesh, first) = (one.mesh.mesh_id(), one.id());
    one.mesh.leave().await;
    sees_gone(&two.mesh, first).await;
    let (again, mut streams) = Mesh::create(settings(&one.home), None).await.unwrap();
    assert_eq!(again.mesh_id(), mesh);
    sees(&again, two.id()).await;
    sees(&two.mesh, first).await;
    let answer = async { echo(within(streams.next()).await.unwrap()).await };
    let (said, ()) = tokio::join!(ask(&two.mesh, first, b"back"), answer);
    assert_eq!(said.unwrap(), b"back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_from_before_a_restart_leads_to_the_node_again() {
    let one = Node::create().await;
    let (first, ticket) = (one.id(), one.ticket().await);
    let mut direct = ticket.terms().bootstrap[0].1.direct().iter();
    let address = *direct.find(|address| address.ip().is_loopback()).unwrap();
    let Node {
        mesh,
        streams,
        home,
    } = one;
    mesh.leave().await;
    drop((mesh, streams));
    // Sockets are closed in the background.
    within(async {
        while UdpSocket::bind(address).is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (again, _streams) = Mesh::create(settings(&home), None).await.unwrap();
    assert_eq!(again.node_id(), first);
    let two = Node::join(&ticket).await.unwrap();
    sees(&two.mesh, first).await;
    sees(&again, two.id()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejoining_needs_a_membership_of_this_key() {
    let home = home();
    let mesh = MeshId::from_bytes([1; 32]);
    let outcome = Mesh::rejoin(settings(&home), mesh).await;
    assert!(matches!(outcome, Err(MeshError::NotAMember(id)) if id == mesh));
    let one = Node::create().await;
    let two = one.bring().await;
    two.mesh.leave().await;
    let state = mesh::identity::StateDir::new(two.home.path());
    state.rotate_key().unwrap();
    let outcome = Mesh::rejoin(settings(&two.home), one.mesh.mesh_id()).await;
    assert!(matches!(outcome, Err(MeshError::NotAMember(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_mesh_is_the_same_at_each_start() {
    let home = home();
    let (mesh, _streams) = Mesh::create(settings(&home), Some("home")).await.unwrap();
    let id = mesh.mesh_id();
    let ticket = mesh.invite(Invite::default()).await.unwrap();
    let joined = Node::join(&ticket).await.unwrap();
    assert_eq!(joined.mesh.name(), Some("home"));
    mesh.leave().await;
    let (mesh, _streams) = Mesh::create(settings(&home), Some("home")).await.unwrap();
    assert_eq!(mesh.mesh_id(), id);
    assert_eq!(mesh.name(), Some("home"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_pull_the_table_and_are_in_none() {
    let one = Node::create().await;
    let two = one.bring().await;
    let (client, _streams) = Node::client(&one.client_ticket().await).await.unwrap();
    assert_eq!(client.role(), Role::Client);
    for node in [one.id(), two.id()] {
        sees(&client, node).await;
    }
    // It pulls from one of the members, whichever it chose; none takes it for anything else.
    let mut links = one.mesh.links().await.unwrap();
    links.extend(two.mesh.links().await.unwrap());
    links.retain(|link| link.node == client.node_id());
    assert!(!links.is_empty());
    assert!(links.iter().all(|link| link.role == Role::Client));
    for mesh in [&one.mesh, &two.mesh, &client] {
        assert!(mesh.view().borrow().member(client.node_id()).is_none());
    }
    assert!(matches!(
        client.invite(Invite::default()).await,
        Err(MeshError::ClientsCannot)
    ));
    let second = two.id();
    two.mesh.leave().await;
    client.pull_now().await.unwrap();
    sees_gone(&client, second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_as_many_clients_as_it_may() {
    let one = Node::create_with(|settings| settings.clients_max = 2).await;
    let ticket = one.client_ticket().await;
    let mut inside = Vec::new();
    for _ in 0..2 {
        let (client, streams) = Node::client(&ticket).await.unwrap();
        sees(&client, one.id()).await;
        inside.push((client, streams));
    }
    let (third, _streams) = Node::client(&ticket).await.unwrap();
    let outcome = ask(&third, one.id(), b"may I").await;
    let Err(error) = outcome else {
        panic!("should be refused");
    };
    assert!(error.to_string().contains("as many clients"), "{error}");
    let (gone, _) = inside.remove(0);
    let (first, node) = (gone.node_id(), one.id());
    gone.leave().await;
    apart(&one.mesh, first).await;
    third.pull_now().await.unwrap();
    sees(&third, node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_at_once() {
    let mut one = Node::create().await;
    let node = one.id();
    let ticket = one.client_ticket().await;
    let server = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            tasks.spawn(echo(one.streams.next().await.unwrap()));
        }
        tasks.join_all().await;
        one
    });
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..50u8 {
        let ticket = ticket.clone();
        clients.spawn(async move {
            let (client, streams) = Node::client(&ticket).await.unwrap();
            let said = ask(&client, node, &[number; 100]).await.unwrap();
            assert_eq!(said, [number; 100]);
            sees(&client, node).await;
            (client, streams)
        });
    }
    let clients = within(clients.join_all()).await;
    let one = within(server).await.unwrap();
    let links = one.mesh.links().await.unwrap();
    assert_eq!(links.len(), clients.len());
    // None of them is a member that the others have to know.
    assert_eq!(one.mesh.view().borrow().members.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_tell_path_and_bytes() {
    let one = Node::create().await;
    let two = one.bring().await;
    let links = one.mesh.links().await.unwrap();
    let [link] = links.as_slice() else {
        panic!("should be one connection: {links:?}");
    };
    assert_eq!(link.node, two.id());
    assert!(matches!(link.path, Path::Direct(address) if address.ip().is_loopback()));
    assert!(link.sent_bytes > 0 && link.received_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_dial_each_other_at_once_keep_one_connection() {
    let one = Node::create().await;
    let ticket = one.client_ticket().await;
    let serving = one.ticket().await;
    drop(ticket);
    for _ in 0..4 {
        let mut two = Node::join(&serving).await.unwrap();
        let mut three = Node::join(&serving).await.unwrap();
        sees(&two.mesh, three.id()).await;
        sees(&three.mesh, two.id()).await;
        let (second, third) = (two.id(), three.id());
        let answers = async {
            tokio::join!(
                async { echo(within(two.streams.next()).await.unwrap()).await },
                async { echo(within(three.streams.next()).await.unwrap()).await },
            )
        };
        let (there, back, _) = tokio::join!(
            ask(&two.mesh, third, b"there"),
            ask(&three.mesh, second, b"back"),
            answers,
        );
        assert_eq!(
            (there.unwrap(), back.unwrap()),
            (b"there".to_vec(), b"back".to_vec())
        );
        for (mesh, other) in [(&two.mesh, three.id()), (&three.mesh, two.id())] {
            let links = mesh.links().await.unwrap();
            assert_eq!(links.iter().filter(|link| link.node == other).count(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_without_any_way_is_refused_before_it_starts() {
    let mut settings = client_settings();
    settings.network.direct = false;
    let outcome = Mesh::create(settings, None).await;
    assert!(matches!(outcome, Err(MeshError::NoPath)));
}
