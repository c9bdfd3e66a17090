//! The check of each stream alone, as if nobody had closed the connection of an expelled member.

use iroh::Endpoint;

use super::*;
use crate::admission::samples::{Person, key, node};
use crate::admission::{Revocation, Target};
use crate::net::{ALPN_PEER, Network, Streams, bind};

/// Ends a test that hangs.
const HANG: Duration = Duration::from_secs(60);

async fn endpoint(number: u8) -> Endpoint {
    bind(key(number), &Network::loopback(), None).await.unwrap()
}

/// A connection from the second node to the first: its two ends.
async fn connected(ours: &Endpoint, theirs: &Endpoint) -> (Connection, Connection) {
    let accept = async { ours.accept().await.unwrap().await.unwrap() };
    let dial = async { theirs.connect(ours.addr(), ALPN_PEER).await.unwrap() };
    timeout(HANG, async { tokio::join!(accept, dial) })
        .await
        .unwrap()
}

/// Opens a stream of kind 7 with a few more bytes.
async fn open(connection: &Connection) -> (SendStream, RecvStream) {
    let (mut send, recv) = connection.open_bi().await.unwrap();
    send.write_all(b"\x07and what belongs to it").await.unwrap();
    (send, recv)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_stream_of_an_expelled_member_is_refused_unread() {
    let (ours, theirs) = (endpoint(1).await, endpoint(2).await);
    let (accepted, dialled) = connected(&ours, &theirs).await;
    let mut root = Person::root(1, 9);
    let member = root.bring(2);
    let trust = watch::Sender::new(root.trust());
    let (streams, mut taken) = Streams::channel();
    let acceptor = Acceptor {
        node: node(2),
        role: Role::Serve,
        connection: accepted.clone(),
        chain: member.membership().chain.clone().into(),
        streams,
        trust: trust.subscribe(),
        in_use: InUse::default(),
        is_bulk: false,
    };
    let serving = tokio::spawn(acceptor.run());
    let before = open(&dialled).await;
    let stream = timeout(HANG, taken.next()).await.unwrap().unwrap();
    assert_eq!((stream.peer, stream.kind), (node(2), StreamKind(7)));

    let membership = root.membership();
    let revocation = Revocation::sign(
        membership.mesh,
        Target::Node(node(2)),
        membership.chain.clone(),
        unix_ms(),
        &key(1),
    );
    trust.send_modify(|trust| {
        trust.revoke(revocation).unwrap();
    });
    let after = open(&dialled).await;
    let ending = timeout(HANG, serving).await.unwrap().unwrap();
    assert!(matches!(ending, Ending::Expelled(_)), "{ending:?}");
    // Nothing of it was passed on, and the connection stood all the while.
    assert!(timeout(HANG, taken.next()).await.unwrap().is_none());
    assert!(accepted.close_reason().is_none());
    drop((before, after));
}
