//! Hidden states on a link that weights fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mesh::net::{IncomingStream, RecvStream, StreamKind};
use testkit::net::{Lab, Link};
use tokio::task::JoinSet;

use crate::hosts::{HIDDEN_STATE_BYTES, ROUND_TRIP_MS, create, echo_time, join, together};
use crate::nodes::within;

const WEIGHTS: StreamKind = StreamKind(3);

const LINK_MBIT: u64 = 20;

/// How long the queue in front of the link takes at most. A sender that heeds nothing but losses keeps two thirds
/// of it full.
const QUEUE_MS: u64 = 600;

/// An echo takes 20 ms, and 13 more for its bytes on such a link. Far above what a busy machine adds in the middle, and
/// far below what it takes behind a full queue: how long it is exactly is measured by the bench.
const BESIDE_MAX: Duration = Duration::from_millis(150);

/// A small part of what the link carries meanwhile: weights do not stand still.
const MEANWHILE_BYTES_MIN: u64 = 256 * 1_024;

/// Streams of a fetch.
const FETCHES: usize = 4;

/// The first half of them sees the end of the beginning, in which bulk finds out what the link carries.
const ECHOES: usize = 100;

const CHUNK_BYTES: usize = 64 * 1_024;

/// Bytes after which what is sent repeats itself. A prime, so that pieces that change places do not fit.
const PERIOD_BYTES: usize = 251;

/// A chunk of what is sent, and enough to begin it anywhere in a period.
fn pattern() -> Vec<u8> {
    let numbers = (0..PERIOD_BYTES).map(|place| place as u8);
    numbers.cycle().take(PERIOD_BYTES + CHUNK_BYTES).collect()
}

/// Sends until it is enough; gives how many bytes it was.
async fn give(mut stream: IncomingStream, enough: Arc<AtomicBool>) -> u64 {
    let pattern = pattern();
    let mut sent_bytes = 0;
    while !enough.load(Ordering::Relaxed) {
        let from = sent_bytes % PERIOD_BYTES;
        let chunk = &pattern[from..from + CHUNK_BYTES];
        stream.send.write_all(chunk).await.unwrap();
        sent_bytes += CHUNK_BYTES;
    }
    stream.send.finish().unwrap();
    sent_bytes as u64
}

/// Reads to the end, and counts and checks what comes.
async fn take(mut stream: RecvStream, received_bytes: Arc<AtomicU64>) {
    let (pattern, mut chunk) = (pattern(), vec![0; CHUNK_BYTES]);
    let mut place = 0;
    while let Some(read) = stream.read(&mut chunk).await.unwrap() {
        let from = place % PERIOD_BYTES;
        assert!(chunk[..read] == pattern[from..from + read], "at {place}");
        place += read;
        received_bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// What fills the queue in front of the link would make each wait for all of it.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn hidden_states_do_not_wait_behind_weights() {
    let lab = Lab::new(2).unwrap();
    let link = Link::round_trip_ms(ROUND_TRIP_MS);
    lab.set_all(link.with_rate_mbit(LINK_MBIT).with_queue_ms(QUEUE_MS));
    let mut one = create(lab.host(0)).await;
    let mut two = join(lab.host(1), &one.ticket().await).await;
    together(&one, &two).await;

    let enough = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let (mut givers, mut takers, mut asked) = (JoinSet::new(), JoinSet::new(), Vec::new());
    for _ in 0..FETCHES {
        let opened = within(two.mesh.open_bulk(one.id(), WEIGHTS)).await;
        let (send, recv) = opened.unwrap();
        asked.push(send);
        let stream = within(one.streams.next()).await.unwrap();
        assert_eq!((stream.peer, stream.kind), (two.id(), WEIGHTS));
        let giving = give(stream, Arc::clone(&enough));
        givers.spawn_on(giving, lab.host(0).runtime().handle());
        let taking = take(recv, Arc::clone(&received));
        takers.spawn_on(taking, lab.host(1).runtime().handle());
    }
    let beside = echo_time(&one, &mut two, HIDDEN_STATE_BYTES, ECHOES).await;
    let meanwhile_bytes = received.load(Ordering::Relaxed);
    enough.store(true, Ordering::Relaxed);
    // What is written and not sent yet would take the narrow link seconds.
    lab.set_all(Link::default().with_rate_mbit(1_000));
    let sent_bytes: u64 = within(givers.join_all()).await.iter().sum();
    within(takers.join_all()).await;
    assert_eq!(received.load(Ordering::Relaxed), sent_bytes);
    assert!(beside < BESIDE_MAX, "{beside:?} beside weights");
    assert!(
        meanwhile_bytes > MEANWHILE_BYTES_MIN,
        "{meanwhile_bytes} bytes of weights meanwhile"
    );
}
