//! Members that misuse the calls between nodes: their stream ends, and others notice nothing.

use mesh::admission::Invite;
use mesh::announcement::NodeInfo;
use mesh::net::{Network, RecvStream, SendStream, StreamKind};
use mesh::{Mesh, NodeId, Role};
use node::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::script::Script;
use crate::world::{World, connect, knows, node, node_with, piece, request, rest, whole, within};

/// Streams with calls, as `node` numbers them.
const CALLS: StreamKind = StreamKind(1);

/// A member that speaks for itself: no node around it keeps to the protocol.
async fn member(host: &Node) -> (Mesh, NodeId) {
    let ticket = within(host.invite(Invite::default())).await.unwrap();
    let settings = mesh::net::Settings {
        network: Network::loopback(),
        role: Role::Client,
        ..mesh::net::Settings::new(None, NodeInfo::default())
    };
    let (mesh, _streams) = within(Mesh::join(settings, &ticket)).await.unwrap();
    let to = host.snapshot().mesh.as_ref().unwrap().me;
    (mesh, to)
}

async fn open(mesh: &Mesh, to: NodeId) -> (SendStream, RecvStream) {
    within(mesh.open(to, CALLS)).await.unwrap()
}

/// Calls that a peer may have at once.
const CALLS_PER_PEER_MAX: usize = 64;

fn frame(length: u32, bytes: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), bytes].concat()
}

/// `{"Describe": {"model": "m"}}`, as a well-behaved caller sends it.
fn describe() -> Vec<u8> {
    let call = b"\xa1\x68Describe\xa1\x65model\x61m";
    frame(u32::try_from(call.len()).unwrap(), call)
}

/// Shows that the host still answers this very member, and another node.
async fn undisturbed(mesh: &Mesh, to: NodeId, other: &World) {
    let (mut send, mut recv) = open(mesh, to).await;
    send.write_all(&describe()).await.unwrap();
    let mut length = [0; 4];
    within(recv.read_exact(&mut length)).await.unwrap();
    let mut answer = within(other.generate(request("m"))).await.unwrap();
    assert_eq!(rest(&mut answer).await, (whole(20), Ok(())));
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_in_a_call_ends_that_call_only() {
    let script = Script::new("m", 1);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    let (mesh, to) = member(&a).await;
    for rubbish in [
        frame(5, b"hello"),
        frame(0, b""),
        frame(64, &[0xff; 64]),
        // Deeper than anything nests.
        frame(4_000, &[0x81; 4_000]),
        // A gigabyte, and four.
        frame(1 << 30, b"x"),
        frame(u32::MAX, &[0; 4_000]),
        // Less than was announced.
        frame(100, b"too short"),
        b"\x01".to_vec(),
    ] {
        let (mut send, mut recv) = open(&mesh, to).await;
        send.write_all(&rubbish).await.unwrap();
        let _ = send.finish();
        let mut byte = [0];
        let ended = within(recv.read(&mut byte)).await;
        assert!(ended.is_err(), "{ended:?} to {rubbish:?}");
    }
    undisturbed(&mesh, to, &b).await;
    assert_eq!(script.running(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_in_a_call_is_not_taken() {
    let script = Script::new("m", 1);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    let (mesh, to) = member(&a).await;
    let (mut send, mut recv) = open(&mesh, to).await;
    send.write_all(&(1_u32 << 30).to_le_bytes()).await.unwrap();
    let piece = vec![0; 1 << 20];
    let mut taken = 0;
    let sending = async {
        while taken < 1_024 && send.write_all(&piece).await.is_ok() {
            taken += 1;
        }
    };
    within(sending).await;
    // What was on its way when the host refused, no more.
    assert!(taken < 64, "{taken} MiB were taken");
    assert!(within(recv.read(&mut [0])).await.is_err());
    undisturbed(&mesh, to, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_never_arrive_keep_nobody_out_and_are_ended() {
    let script = Script::new("m", 1);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    let (mesh, to) = member(&a).await;
    let mut silent = Vec::new();
    for _ in 0..=CALLS_PER_PEER_MAX {
        let (mut send, recv) = open(&mesh, to).await;
        send.write_all(&[1]).await.unwrap();
        silent.push((send, recv));
    }
    // Others have places of their own.
    let mut other = within(b.generate(request("m"))).await.unwrap();
    assert_eq!(rest(&mut other).await, (whole(20), Ok(())));
    // Streams overtake each other: one of them, whichever, was too many and is told so.
    let (mut refused, mut ended) = (0, 0);
    for (_send, recv) in &mut silent {
        let mut answer = Vec::new();
        match within(recv.read_to_end(&mut answer)).await {
            Ok(_) => refused += usize::from(answer.len() > 4),
            Err(_) => ended += 1,
        }
    }
    assert_eq!((refused, ended), (1, CALLS_PER_PEER_MAX));
    undisturbed(&mesh, to, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_calls_of_one_peer_take_bounded_room() {
    let script = Script::new("m", 1);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    let (mesh, to) = member(&a).await;
    // Each announces the longest call there is; two have room.
    let mut long = Vec::new();
    for _ in 0..3 {
        let (mut send, recv) = open(&mesh, to).await;
        send.write_all(&(24_u32 << 20).to_le_bytes()).await.unwrap();
        long.push((send, recv));
    }
    let (mut refused, mut ended) = (0, 0);
    for (_send, recv) in &mut long {
        let mut answer = Vec::new();
        match within(recv.read_to_end(&mut answer)).await {
            Ok(_) => refused += usize::from(answer.len() > 4),
            Err(_) => ended += 1,
        }
    }
    assert_eq!((refused, ended), (1, 2));
    undisturbed(&mesh, to, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_for_too_long_is_cut_off() {
    let script = Script::new("m", 1);
    let a = node_with("a", &[&script], |settings| {
        settings.mesh.unread_max = std::time::Duration::from_secs(1);
    });
    let (b, c) = (node("b", &[]), node("c", &[]));
    connect(&[&a, &b, &c]).await;
    knows(&b, "m", 1).await;
    knows(&c, "m", 1).await;
    // More than all windows hold.
    let mut long = request("m");
    long.limits.max_tokens = Some(2_000_000);
    let mut unread = within(b.generate(long)).await.unwrap();
    piece(&mut unread).await;
    assert_eq!(script.running(), 1);
    within(async {
        while script.running() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    // It is the stream that ended, not the peer: that one asks again, and so do others.
    for peer in [&b, &c] {
        let mut other = within(peer.generate(request("m"))).await.unwrap();
        assert_eq!(rest(&mut other).await, (whole(20), Ok(())));
    }
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stops_reading_holds_its_own_answer_back_only() {
    const TOKENS: u32 = 2_000_000;
    let script = Script::new("m", 1);
    let (a, b, c) = (node("a", &[&script]), node("b", &[]), node("c", &[]));
    connect(&[&a, &b, &c]).await;
    knows(&b, "m", 1).await;
    knows(&c, "m", 1).await;
    let mut long = request("m");
    long.limits.max_tokens = Some(TOKENS);
    let free_before = script.permits.available_permits();
    let mut unread = within(b.generate(long)).await.unwrap();
    piece(&mut unread).await;
    // Until nothing moves any more: what fits into the windows has been computed.
    let made = || free_before - script.permits.available_permits();
    within(async {
        loop {
            let before = made();
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            if made() == before {
                break;
            }
        }
    })
    .await;
    assert!(made() < TOKENS as usize / 2, "{} tokens wait", made());
    let mut other = within(c.generate(request("m"))).await.unwrap();
    assert_eq!(rest(&mut other).await, (whole(20), Ok(())));
    // Gone: the host stops computing for it.
    drop(unread);
    within(async {
        while script.running() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}
