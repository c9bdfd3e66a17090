//! Peers that send rubbish, too much, or nothing: cut off, while others notice nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};

use iroh::endpoint::{
    Connection, ConnectionError, QuicTransportConfig, RecvStream, SendStream, VarInt, presets,
};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey};
use mesh::Mesh;
use mesh::NodeId;
use mesh::admission::{Membership, Refusal};
use mesh::identity::StateDir;
use mesh::net::{ALPN_BULK, ALPN_JOIN, ALPN_PEER, MemberStatus};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use crate::nodes::{Node, apart, ask, echo, refusal, sees, within};

/// A stranger with a socket.
pub(crate) async fn stranger(key: SecretKey) -> Endpoint {
    stranger_with(key, QuicTransportConfig::default()).await
}

async fn stranger_with(key: SecretKey, transport: QuicTransportConfig) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .secret_key(key)
        .transport_config(transport)
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)))
        .unwrap()
        .bind()
        .await
        .unwrap()
}

pub(crate) async fn address(node: &Node) -> EndpointAddr {
    let ticket = node.ticket().await;
    let (id, addresses) = ticket.terms().bootstrap[0].clone();
    let id = EndpointId::from_bytes(id.as_bytes()).unwrap();
    addresses
        .direct()
        .iter()
        .fold(EndpointAddr::new(id), |address, ip| {
            address.with_ip_addr(*ip)
        })
}

async fn connect(endpoint: &Endpoint, to: &EndpointAddr, alpn: &[u8]) -> Connection {
    within(endpoint.connect(to.clone(), alpn)).await.unwrap()
}

/// Waits until the node closes the connection, and says with which code.
pub(crate) async fn closed_with(connection: &Connection) -> u64 {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
        other => panic!("should be closed by the node, but: {other}"),
    }
}

pub(crate) const DONE: u64 = 0;
const MISBEHAVED: u64 = 5;

/// What was logged in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Begins to log; one log for all tests of a process.
    fn start() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .init();
            log
        })
        .clone()
    }

    /// Waits for a warning with all of `words`.
    async fn warns(&self, words: &[&str]) {
        within(async {
            loop {
                let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
                let mut warnings = text.lines().filter(|line| line.contains(" WARN "));
                if warnings.any(|line| words.iter().all(|word| line.contains(word))) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Shows that two members still work with each other.
async fn undisturbed(one: &Mesh, two: &mut Node) {
    let second = two.id();
    let answer = async { echo(within(two.streams.next()).await.unwrap()).await };
    let (said, ()) = tokio::join!(ask(one, second, b"still here"), answer);
    assert_eq!(said.unwrap(), b"still here");
}

fn frame(length: u32, bytes: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), bytes].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_every_protocol_ends_that_connection_only() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let to = address(&one).await;
    let log = Log::start();
    for alpn in [ALPN_JOIN, ALPN_PEER, ALPN_BULK] {
        // A new stranger each time, so that each line is about this rubbish.
        for (rubbish, code) in [
            // A gigabyte announced.
            (frame(1 << 30, b"x"), MISBEHAVED),
            (frame(u32::MAX, b""), MISBEHAVED),
            // A message cut short, and no message at all.
            (frame(100, b"too short"), MISBEHAVED),
            (b"\x01".to_vec(), MISBEHAVED),
            // Whole messages without sense: answered, then ended.
            (frame(5, b"hello"), DONE),
            (frame(0, b""), DONE),
            (frame(40, &[0xff; 40]), DONE),
        ] {
            let endpoint = stranger(SecretKey::generate()).await;
            let connection = connect(&endpoint, &to, alpn).await;
            let (mut send, recv) = connection.open_bi().await.unwrap();
            send.write_all(&rubbish).await.unwrap();
            send.finish().unwrap();
            assert_eq!(closed_with(&connection).await, code, "{rubbish:?}");
            drop(recv);
            let who = NodeId::from_bytes(*endpoint.id().as_bytes()).short();
            log.warns(&["did not let", &who, "reason="]).await;
        }
    }
    undisturbed(&one.mesh, &mut two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_protocol_is_not_spoken() {
    let one = Node::create().await;
    let to = address(&one).await;
    let endpoint = stranger(SecretKey::generate()).await;
    let outcome = within(endpoint.connect(to, b"mesh-llm/other/1")).await;
    assert!(outcome.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_never_bring_a_node_down() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let to = address(&one).await;
    let endpoint = stranger(SecretKey::generate()).await;
    let mut runner = TestRunner::new(Config::default());
    let bytes = proptest::collection::vec(any::<u8>(), 1..2_000);
    for round in 0..20 {
        let alpn = if round % 2 == 0 { ALPN_JOIN } else { ALPN_PEER };
        let payload = bytes.new_tree(&mut runner).unwrap().current();
        let length = u32::try_from(payload.len()).unwrap();
        let connection = connect(&endpoint, &to, alpn).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame(length, &payload)).await.unwrap();
        assert_eq!(closed_with(&connection).await, DONE);
    }
    undisturbed(&one.mesh, &mut two).await;
}

/// A real membership, used by somebody who then does not keep to the protocol.
pub(crate) async fn inside(one: &Node) -> (Endpoint, Membership) {
    let member = one.bring().await;
    let state = StateDir::new(member.home.path());
    let key = state.key().unwrap();
    let stored = state
        .mesh(one.mesh.mesh_id())
        .membership()
        .unwrap()
        .unwrap();
    member.mesh.leave().await;
    (stranger(key).await, stored.membership)
}

/// Says hello as a member does.
async fn enter(
    endpoint: &Endpoint,
    membership: &Membership,
    to: &EndpointAddr,
) -> (Connection, SendStream, RecvStream) {
    enter_by(endpoint, membership, to, ALPN_PEER).await
}

/// The same on a protocol of which there are two.
pub(crate) async fn enter_by(
    endpoint: &Endpoint,
    membership: &Membership,
    to: &EndpointAddr,
    alpn: &[u8],
) -> (Connection, SendStream, RecvStream) {
    let connection = connect(endpoint, to, alpn).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let mut hello = vec![0xa3];
    // {"m": membership, "i": 1, "a": {"d": [127.0.0.1:port]}}
    hello.extend(b"\x61m");
    let bytes = membership.to_bytes();
    hello.push(0x59);
    hello.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    hello.extend(bytes);
    hello.extend(b"\x61i\x01\x61a\xa1\x61d\x81\x46\x7f\x00\x00\x01");
    let port = endpoint.bound_sockets()[0].port();
    hello.extend(port.to_be_bytes());
    let length = u32::try_from(hello.len()).unwrap();
    send.write_all(&frame(length, &hello)).await.unwrap();
    let mut length = [0; 4];
    within(recv.read_exact(&mut length)).await.unwrap();
    let mut answer = vec![0; u32::from_le_bytes(length) as usize];
    within(recv.read_exact(&mut answer)).await.unwrap();
    (connection, send, recv)
}

/// Does `harm` as a member, and expects to be cut off for it.
async fn cut_off_for<F: Future<Output = ()>>(
    harm: impl FnOnce(Connection, SendStream, RecvStream) -> F,
) {
    let log = Log::start();
    let one = Node::create().await;
    let mut two = one.bring().await;
    let (endpoint, membership) = inside(&one).await;
    let to = address(&one).await;
    let (connection, send, recv) = enter(&endpoint, &membership, &to).await;
    harm(connection.clone(), send, recv).await;
    assert_eq!(closed_with(&connection).await, MISBEHAVED);
    let who = NodeId::from_bytes(*endpoint.id().as_bytes()).short();
    log.warns(&["cut a peer off", &who, "reason="]).await;
    undisturbed(&one.mesh, &mut two).await;
    sees(&two.mesh, one.id()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_sends_rubbish_is_cut_off() {
    cut_off_for(async |_, mut send, _recv| {
        send.write_all(&frame(5, b"hello")).await.unwrap();
        // Held open until the node reacts.
        let _ = within(send.stopped()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_announces_a_gigabyte_is_cut_off() {
    cut_off_for(async |_, mut send, _recv| {
        send.write_all(&frame(1 << 30, &[0; 1_000])).await.unwrap();
        let _ = within(send.stopped()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_sends_a_gigabyte_is_cut_off() {
    cut_off_for(async |_, mut send, _recv| {
        // A message of a kind that nobody knows, which alone is no offence: {"k": 200, "x": zeros}.
        let mut message = b"\xa2\x61k\x18\xc8\x61x\x59\x80\x00".to_vec();
        message.extend([0; 0x8000]);
        let length = u32::try_from(message.len()).unwrap();
        let message = frame(length, &message);
        for _ in 0..(1 << 30) / message.len() {
            if send.write_all(&message).await.is_err() {
                break;
            }
        }
    })
    .await;
}

/// Takes as long as a message may: ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_reads_nothing_is_cut_off() {
    let log = Log::start();
    let one = Node::create().await;
    let mut two = one.bring().await;
    let (endpoint, membership) = inside(&one).await;
    let key = endpoint.secret_key().clone();
    within(endpoint.close()).await;
    // Room for a fraction of the first table, so that it need not be flooded.
    let small = QuicTransportConfig::builder()
        .stream_receive_window(VarInt::from_u32(64))
        .build();
    let endpoint = stranger_with(key, small).await;
    let to = address(&one).await;
    let (connection, _send, _recv) = enter(&endpoint, &membership, &to).await;
    assert_eq!(closed_with(&connection).await, MISBEHAVED);
    let who = NodeId::from_bytes(*endpoint.id().as_bytes()).short();
    log.warns(&["cut a peer off", &who, "it does not read"])
        .await;
    undisturbed(&one.mesh, &mut two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_opens_streams_without_end_is_cut_off() {
    cut_off_for(async |connection, send, recv| {
        loop {
            let Ok((mut stream, _)) = connection.open_bi().await else {
                break;
            };
            if stream.write_all(&[1]).await.is_err() || stream.finish().is_err() {
                break;
            }
        }
        drop((send, recv));
    })
    .await;
}

/// Accepts one connection and answers its hello with `answer`.
pub(crate) async fn answer_hello(endpoint: &Endpoint, answer: &[u8]) {
    let incoming = within(endpoint.accept()).await.unwrap();
    let connection = within(incoming.into_future()).await.unwrap();
    let (mut send, _recv) = within(connection.accept_bi()).await.unwrap();
    let length = u32::try_from(answer.len()).unwrap();
    send.write_all(&frame(length, answer)).await.unwrap();
    send.finish().unwrap();
    let _ = within(send.stopped()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_expelled_by_a_liar() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let (endpoint, membership) = inside(&one).await;
    endpoint.set_alpns(vec![ALPN_PEER.to_vec()]);
    let liar = NodeId::from_bytes(*endpoint.id().as_bytes());
    let to = address(&two).await;
    let status = two.mesh.status();
    // A connection that is closed with the code of the expelled.
    let (connection, _send, _recv) = enter(&endpoint, &membership, &to).await;
    within(async {
        while two
            .mesh
            .links()
            .await
            .unwrap()
            .iter()
            .all(|link| link.node != liar)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    connection.close(4u32.into(), b"expelled");
    apart(&two.mesh, liar).await;
    assert_eq!(*status.borrow(), MemberStatus::Member);
    // Refusals: {"x": {"c": "expelled"}}, bare, and with a revocation that is none.
    for proof in [&b""[..], b"\x61p\x43abc"] {
        let map = if proof.is_empty() { b"\xa1" } else { b"\xa2" };
        let answer = [&map[..], b"\x61x\xa1\x61c\x68expelled", proof].concat();
        let (asked, ()) = tokio::join!(
            ask(&two.mesh, liar, b"hello?"),
            answer_hello(&endpoint, &answer)
        );
        assert_eq!(refusal(asked), Refusal::Expelled);
        let refused = MemberStatus::Refused {
            by: liar,
            reason: Refusal::Expelled,
        };
        assert_eq!(*status.borrow(), refused);
    }
    undisturbed(&one.mesh, &mut two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_membership_is_worth_nothing() {
    let one = Node::create().await;
    let mut two = one.bring().await;
    let (_, membership) = inside(&one).await;
    let thief = stranger(SecretKey::generate()).await;
    let to = address(&one).await;
    let (connection, _send, _recv) = enter(&thief, &membership, &to).await;
    assert_eq!(closed_with(&connection).await, DONE);
    let links = one.mesh.links().await.unwrap();
    let stranger = NodeId::from_bytes(*thief.id().as_bytes());
    assert!(links.iter().all(|link| link.node != stranger));
    undisturbed(&one.mesh, &mut two).await;
}

/// More than a node lets in at once (128), all from the address of those who then want to join.
#[tokio::test(flavor = "multi_thread")]
async fn many_strangers_who_say_nothing_keep_nobody_out() {
    const STRANGERS: usize = 8;
    const CONNECTIONS: usize = 20;
    let one = Node::create().await;
    let to = address(&one).await;
    let mut connecting = tokio::task::JoinSet::new();
    for _ in 0..STRANGERS {
        let to = to.clone();
        connecting.spawn(async move {
            let endpoint = stranger(SecretKey::generate()).await;
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                connections.push(connect(&endpoint, &to, ALPN_PEER).await);
            }
            (endpoint, connections)
        });
    }
    let silent = within(connecting.join_all()).await;
    let mut two = one.bring().await;
    undisturbed(&one.mesh, &mut two).await;
    let mut made_way = 0;
    for connection in silent.iter().flat_map(|(_, connections)| connections) {
        match closed_with(connection).await {
            // In favour of one that came later.
            DONE => made_way += 1,
            // It took too long.
            MISBEHAVED => {}
            other => panic!("closed with {other}"),
        }
    }
    assert!(made_way > 0, "there was room for all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_cut_off_is_not_let_in_again_at_once() {
    let log = Log::start();
    let one = Node::create().await;
    let (endpoint, membership) = inside(&one).await;
    let to = address(&one).await;
    let (connection, mut send, _recv) = enter(&endpoint, &membership, &to).await;
    send.write_all(&frame(5, b"hello")).await.unwrap();
    assert_eq!(closed_with(&connection).await, MISBEHAVED);
    let who = NodeId::from_bytes(*endpoint.id().as_bytes()).short();
    log.warns(&["cut a peer off", &who]).await;
    let (connection, _send, _recv) = enter(&endpoint, &membership, &to).await;
    assert_eq!(closed_with(&connection).await, DONE);
    log.warns(&["did not let a peer in", &who, "asked too often"])
        .await;
}
