//! Streams of the application: both ways, many at once, and with a reader that is slow.

use mesh::net::{MeshError, StreamKind, Streams};
use mesh::{NodeId, Role};
use tokio::time::{Duration, timeout};

use crate::nodes::{ECHO, Node, apart, ask, echo, within};

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_both_ways_and_say_what_they_are() {
    let mut one = Node::create().await;
    let mut two = one.bring().await;
    let answer = async |streams: &mut Streams, from: NodeId| {
        let stream = within(streams.next()).await.unwrap();
        assert_eq!(
            (stream.peer, stream.role, stream.kind),
            (from, Role::Serve, ECHO)
        );
        echo(stream).await;
    };
    let (first, second) = (one.id(), two.id());
    let (said, ()) = tokio::join!(
        ask(&one.mesh, second, b"to the second"),
        answer(&mut two.streams, first)
    );
    assert_eq!(said.unwrap(), b"to the second");
    let (said, ()) = tokio::join!(
        ask(&two.mesh, first, b"to the first"),
        answer(&mut one.streams, second)
    );
    assert_eq!(said.unwrap(), b"to the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_streams_at_once_over_one_connection() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let second = two.id();
    let server = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            tasks.spawn(echo(two.streams.next().await.unwrap()));
        }
        tasks.join_all().await;
        two
    });
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..50u8 {
        let mesh = one.mesh.clone();
        asking.spawn(async move {
            let question = vec![number; 10_000];
            assert_eq!(ask(&mesh, second, &question).await.unwrap(), question);
        });
    }
    within(asking.join_all()).await;
    let two = within(server).await.unwrap();
    assert_eq!(one.mesh.links().await.unwrap().len(), 1);
    drop(two);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_slow_stops_the_writer_and_nobody_else() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let second = two.id();
    let (mut send, _recv) = within(one.mesh.open(second, ECHO)).await.unwrap();
    let slow = within(two.streams.next()).await.unwrap();
    // More than all windows together: the writer has to wait until somebody reads.
    let total = 64 << 20;
    let writer = tokio::spawn(async move {
        let chunk = vec![7; 1 << 20];
        for _ in 0..total / chunk.len() {
            send.write_all(&chunk).await.unwrap();
        }
        send.finish().unwrap();
        send
    });
    let answer = async { echo(within(two.streams.next()).await.unwrap()).await };
    let (said, ()) = tokio::join!(ask(&one.mesh, second, b"beside"), answer);
    assert_eq!(said.unwrap(), b"beside");
    assert!(!writer.is_finished());
    let mut slow = slow;
    let mut read = 0;
    while let Some(chunk) = within(slow.recv.read_chunk(1 << 20)).await.unwrap() {
        read += chunk.len();
    }
    assert_eq!(read, total);
    within(writer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn aborting_reaches_the_other_side() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let second = two.id();
    let (send, mut recv) = within(one.mesh.open(second, StreamKind(9))).await.unwrap();
    let mut there = within(two.streams.next()).await.unwrap();
    assert_eq!(there.kind, StreamKind(9));
    there.send.abort(7);
    within(recv.read_to_end(10)).await.unwrap_err();
    // The reader goes: the writer learns of it.
    drop(there);
    let stopped = within(send.stopped()).await.unwrap();
    assert!(stopped.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_dies_ends_its_streams() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let (_send, mut recv) = within(one.mesh.open(two.id(), ECHO)).await.unwrap();
    let there = within(two.streams.next()).await.unwrap();
    drop(there.send);
    drop(two.kill());
    // An error or an end, but no hang.
    let _ = within(recv.read_to_end(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expelled_member_loses_its_streams_at_once() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let second = two.id();
    let (_send, mut recv) = within(one.mesh.open(second, ECHO)).await.unwrap();
    let _there = within(two.streams.next()).await.unwrap();
    one.mesh.expel(second).await.unwrap();
    within(recv.read_to_end(10)).await.unwrap_err();
    apart(&one.mesh, second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_nobody_knows_cannot_be_opened() {
    let one = Node::create().await;
    for node in [
        one.id(),
        NodeId::from_bytes([0xff; 32]),
        Node::create().await.id(),
    ] {
        let outcome = within(one.mesh.open(node, ECHO)).await;
        assert!(
            matches!(outcome, Err(MeshError::Peer { .. })),
            "{outcome:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_mesh_is_left() {
    let mut one = Node::create().await;
    one.mesh.leave().await;
    assert!(matches!(
        timeout(Duration::from_secs(60), one.streams.next()).await,
        Ok(None)
    ));
}
