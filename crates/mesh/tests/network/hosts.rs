//! Members on hosts of their own, 20 ms apart, with one packet in a hundred lost.

use std::time::{Duration, Instant};

use mesh::Mesh;
use mesh::net::{Path, Settings};
use mesh::proto::Liveness;
use mesh::ticket::Ticket;
use testkit::net::{Host, Lab, Link};

use crate::multicast::{bare_ticket, local};
use crate::nodes::{ECHO, Node, apart, ask, echo, home, sees, sees_gone, settings, until, within};

pub(crate) const ROUND_TRIP_MS: u64 = 20;

/// Hosts with bad links between all of them.
fn bad_network(hosts: usize) -> Lab {
    let lab = Lab::new(hosts).unwrap();
    lab.set_all(Link::round_trip_ms(ROUND_TRIP_MS).with_loss(0.01));
    lab
}

/// All addresses of the host, but nothing that finds others without being told where they are.
fn told(mut settings: Settings) -> Settings {
    settings.network.ip = None;
    settings
}

pub(crate) async fn create(host: &Host) -> Node {
    create_with(host, told).await
}

async fn create_with(host: &Host, change: fn(Settings) -> Settings) -> Node {
    let home = home();
    let settings = change(settings(&home));
    let created = host.run(async { Mesh::create(settings, None).await });
    let (mesh, streams) = within(created).await.unwrap();
    Node {
        mesh,
        streams,
        home,
    }
}

pub(crate) async fn join(host: &Host, ticket: &Ticket) -> Node {
    join_with(host, ticket, told).await
}

async fn join_with(host: &Host, ticket: &Ticket, change: fn(Settings) -> Settings) -> Node {
    let home = home();
    let settings = change(settings(&home));
    let ticket = ticket.clone();
    let joined = host.run(async move { Mesh::join(settings, &ticket).await });
    let (mesh, streams) = within(joined).await.unwrap();
    Node {
        mesh,
        streams,
        home,
    }
}

/// Waits until both know of each other that they live, and are connected.
pub(crate) async fn together(one: &Node, other: &Node) {
    for (node, peer) in [(one, other.id()), (other, one.id())] {
        until(&node.mesh, |view| {
            view.member(peer)
                .is_some_and(|member| member.liveness == Liveness::Alive && member.connected)
        })
        .await;
    }
}

/// A mebibyte there and back.
async fn talk(one: &Node, other: &mut Node) {
    let question: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let to = other.id();
    let answer = async { echo(within(other.streams.next()).await.unwrap()).await };
    let (said, ()) = tokio::join!(ask(&one.mesh, to, &question), answer);
    assert!(said.unwrap() == question);
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn two_members_join_and_talk_over_a_bad_link() {
    let lab = bad_network(2);
    let mut one = create(lab.host(0)).await;
    let mut two = join(lab.host(1), &one.ticket().await).await;
    together(&one, &two).await;
    talk(&one, &mut two).await;
    talk(&two, &mut one).await;
    for (node, peer, host) in [(&one, two.id(), 1), (&two, one.id(), 0)] {
        let links = node.mesh.links().await.unwrap();
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].node, peer);
        match &links[0].path {
            Path::Direct(address) => assert_eq!(address.ip(), lab.host(host).ip()),
            other => panic!("should be direct, but: {other:?}"),
        }
        assert!(links[0].round_trip >= Duration::from_millis(ROUND_TRIP_MS));
    }
    // So they did speak through the lab, and it did lose packets.
    for (from, to) in [(0, 1), (1, 0)] {
        let counters = lab.counters(from, to);
        assert!(counters.passed > 1_000 && counters.lost > 0, "{counters:?}");
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn three_members_see_each_other_over_bad_links() {
    let lab = bad_network(3);
    let mut one = create(lab.host(0)).await;
    let mut two = join(lab.host(1), &one.ticket().await).await;
    // By a ticket of the second, so that it hears of the first from others.
    let mut three = join(lab.host(2), &two.ticket().await).await;
    for node in [&one, &two, &three] {
        for peer in [one.id(), two.id(), three.id()] {
            sees(&node.mesh, peer).await;
        }
    }
    talk(&one, &mut two).await;
    talk(&two, &mut three).await;
    talk(&three, &mut one).await;
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn a_cut_link_is_noticed_and_heals() {
    let lab = bad_network(2);
    let one = create(lab.host(0)).await;
    let mut two = join(lab.host(1), &one.ticket().await).await;
    together(&one, &two).await;
    lab.cut(0, 1);
    for (node, peer) in [(&one, two.id()), (&two, one.id())] {
        apart(&node.mesh, peer).await;
        until(&node.mesh, |view| {
            view.member(peer)
                .is_some_and(|member| member.liveness != Liveness::Alive)
        })
        .await;
    }
    lab.restore(0, 1);
    together(&one, &two).await;
    talk(&one, &mut two).await;
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn a_member_that_was_cut_off_comes_back() {
    let lab = bad_network(3);
    let mut one = create(lab.host(0)).await;
    let mut two = join(lab.host(1), &one.ticket().await).await;
    let three = join(lab.host(2), &one.ticket().await).await;
    sees(&two.mesh, three.id()).await;
    sees(&three.mesh, two.id()).await;
    lab.isolate(2);
    for node in [&one, &two] {
        sees_gone(&node.mesh, three.id()).await;
        sees_gone(&three.mesh, node.id()).await;
    }
    talk(&one, &mut two).await;
    lab.rejoin(2);
    for node in [&one, &two, &three] {
        for peer in [one.id(), two.id(), three.id()] {
            sees(&node.mesh, peer).await;
        }
    }
    talk(&three, &mut one).await;
    talk(&three, &mut two).await;
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn a_ticket_without_addresses_works_between_hosts() {
    let lab = bad_network(2);
    let one = create_with(lab.host(0), local).await;
    let bare = bare_ticket(&one.mesh, &one.home).await;
    let two = join_with(lab.host(1), &bare, local).await;
    together(&one, &two).await;
}

/// 4,096 values of 32 bits, as between the stages of a large model.
pub(crate) const HIDDEN_STATE_BYTES: usize = 16 * 1_024;

/// Enough for a window that shrinks with each loss to be too small for a hidden state by then: 24 packets an
/// echo, one of a hundred lost.
const ECHOES: usize = 240;

/// Sends so many bytes there and back, so many times; the middle time of the second half.
pub(crate) async fn echo_time(
    one: &Node,
    other: &mut Node,
    bytes: usize,
    count: usize,
) -> Duration {
    let (mut send, mut receive) = within(one.mesh.open(other.id(), ECHO)).await.unwrap();
    let echoes = async {
        let (message, mut answer) = (vec![1; bytes], vec![0; bytes]);
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            send.write_all(&message).await.unwrap();
            receive.read_exact(&mut answer).await.unwrap();
            times.push(began.elapsed());
        }
        send.finish().unwrap();
        let late = &mut times[count / 2..];
        late.sort();
        late[late.len() / 2]
    };
    let answers = async { echo(within(other.streams.next()).await.unwrap()).await };
    within(async { tokio::join!(echoes, answers) }).await.0
}

/// A second flight would cost a whole round trip more than a few bytes do; how long it takes exactly is measured
/// by the bench.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn a_hidden_state_takes_one_flight_each_way() {
    for loss in [0.0, 0.01] {
        let lab = Lab::new(2).unwrap();
        lab.set_all(Link::round_trip_ms(ROUND_TRIP_MS).with_loss(loss));
        let one = create(lab.host(0)).await;
        let mut two = join(lab.host(1), &one.ticket().await).await;
        together(&one, &two).await;
        let few = echo_time(&one, &mut two, 64, ECHOES).await;
        let state = echo_time(&one, &mut two, HIDDEN_STATE_BYTES, ECHOES).await;
        let most = few + Duration::from_millis(ROUND_TRIP_MS / 4);
        assert!(
            state < most,
            "at a loss of {loss}: {state:?}, and {few:?} for a few bytes"
        );
    }
}
