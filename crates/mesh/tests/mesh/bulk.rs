//! Connections for bulk: who has one, what goes over it, and that it ends with the other one.

use iroh::Endpoint;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use iroh::{EndpointAddr, SecretKey};
use mesh::admission::{Membership, Refusal};
use mesh::net::{ALPN_BULK, ALPN_PEER, MemberStatus, StreamKind, Streams};
use mesh::{Mesh, NodeId, Role};

use crate::harm::{DONE, address, answer_hello, closed_with, enter_by, inside, stranger};
use crate::nodes::{Node, ask, echo, refusal, within};

const WEIGHTS: StreamKind = StreamKind(3);

const RELEASED: u64 = 2;
const REPLACED: u64 = 3;
const EXPELLED: u64 = 4;

/// A member with bare connections.
struct Bare {
    endpoint: Endpoint,
    membership: Membership,
    to: EndpointAddr,
}

/// A connection, and the stream on which memberships were shown.
type Entered = (Connection, SendStream, RecvStream);

impl Bare {
    async fn of(node: &Node) -> Self {
        let (endpoint, membership) = inside(node).await;
        Self {
            endpoint,
            membership,
            to: address(node).await,
        }
    }

    fn id(&self) -> NodeId {
        NodeId::from_bytes(*self.endpoint.id().as_bytes())
    }

    async fn enter(&self, alpn: &[u8]) -> Entered {
        enter_by(&self.endpoint, &self.membership, &self.to, alpn).await
    }
}

/// Has bytes sent there and back over a stream for bulk.
async fn ask_for_much(one: &Mesh, two: NodeId, streams: &mut Streams) {
    let question: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let asking = async {
        let (mut send, mut recv) = within(one.open_bulk(two, WEIGHTS)).await.unwrap();
        let asked = async {
            send.write_all(&question).await.unwrap();
            send.finish().unwrap();
        };
        let read = recv.read_to_end(question.len());
        let ((), said) = within(async { tokio::join!(asked, read) }).await;
        assert!(said.unwrap() == question);
    };
    let answering = async {
        let stream = within(streams.next()).await.unwrap();
        let said = (stream.peer, stream.role, stream.kind);
        assert_eq!(said, (one.node_id(), Role::Serve, WEIGHTS));
        assert!(stream.is_bulk);
        echo(stream).await;
    };
    tokio::join!(asking, answering);
}

#[tokio::test(flavor = "multi_thread")]
async fn much_goes_both_ways_and_counts_to_the_one_peer() {
    let mut one = Node::create().await;
    let mut two = one.bring().await;
    let (first, second) = (one.id(), two.id());
    for _ in 0..2 {
        ask_for_much(&one.mesh, second, &mut two.streams).await;
        ask_for_much(&two.mesh, first, &mut one.streams).await;
    }
    for (mesh, peer) in [(&one.mesh, second), (&two.mesh, first)] {
        let links = mesh.links().await.unwrap();
        assert_eq!(links.len(), 1, "{links:?}");
        assert_eq!(links[0].node, peer);
        // There and back, by either, twice.
        let bytes = links[0].sent_bytes.min(links[0].received_bytes);
        assert!(bytes >= 4 << 20, "{links:?}");
    }
    // Other streams are where they were.
    let answer = async {
        let stream = within(two.streams.next()).await.unwrap();
        assert!(!stream.is_bulk);
        echo(stream).await;
    };
    let (said, ()) = tokio::join!(ask(&one.mesh, second, b"beside"), answer);
    assert_eq!(said.unwrap(), b"beside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_has_one_beside_its_connection_and_loses_both_when_it_is_expelled() {
    let mut one = Node::create().await;
    let bare = Bare::of(&one).await;
    let peer = bare.enter(ALPN_PEER).await;
    let first = bare.enter(ALPN_BULK).await;
    let second = bare.enter(ALPN_BULK).await;
    assert_eq!(closed_with(&first.0).await, REPLACED);
    let (mut send, mut recv) = second.0.open_bi().await.unwrap();
    send.write_all(b"\x03weights").await.unwrap();
    send.finish().unwrap();
    let stream = within(one.streams.next()).await.unwrap();
    assert_eq!((stream.peer, stream.kind), (bare.id(), WEIGHTS));
    echo(stream).await;
    assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"weights");
    let links = one.mesh.links().await.unwrap();
    let to_it = links.iter().filter(|link| link.node == bare.id());
    assert_eq!(to_it.count(), 1, "{links:?}");

    one.mesh.expel(bare.id()).await.unwrap();
    assert_eq!(closed_with(&second.0).await, EXPELLED);
    assert_eq!(closed_with(&peer.0).await, EXPELLED);
    let again = bare.enter(ALPN_BULK).await;
    assert_eq!(closed_with(&again.0).await, DONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_none_without_the_other_connection() {
    let one = Node::create().await;
    let bare = Bare::of(&one).await;
    let alone = bare.enter(ALPN_BULK).await;
    assert_eq!(closed_with(&alone.0).await, DONE);
    let peer = bare.enter(ALPN_PEER).await;
    let beside = bare.enter(ALPN_BULK).await;
    peer.0.close(1_u32.into(), b"leaving");
    assert_eq!(closed_with(&beside.0).await, RELEASED);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_member_has_none() {
    let one = Node::create().await;
    let bare = Bare::of(&one).await;
    // Also where the member whose papers he shows is connected.
    let _peer = bare.enter(ALPN_PEER).await;
    let thief = stranger(SecretKey::generate()).await;
    let (membership, to) = (&bare.membership, &bare.to);
    let refused = enter_by(&thief, membership, to, ALPN_BULK).await;
    assert_eq!(closed_with(&refused.0).await, DONE);
}

/// Nothing would take back what was noted: the connection between them stands all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_bulk_says_nothing_of_the_membership() {
    let one = Node::create().await;
    let bare = Bare::of(&one).await;
    let _peer = bare.enter(ALPN_PEER).await;
    bare.endpoint.set_alpns(vec![ALPN_BULK.to_vec()]);
    let status = one.mesh.status();
    // {"x": {"c": "expelled"}}
    let answer = b"\xa1\x61x\xa1\x61c\x68expelled";
    let (opened, ()) = tokio::join!(
        within(one.mesh.open_bulk(bare.id(), WEIGHTS)),
        answer_hello(&bare.endpoint, answer)
    );
    assert_eq!(refusal(opened), Refusal::Expelled);
    assert_eq!(*status.borrow(), MemberStatus::Member);
    let links = one.mesh.links().await.unwrap();
    assert!(links.iter().any(|link| link.node == bare.id()), "{links:?}");
}
