//! Hidden states on a link that weights fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mesh::net::{IncomingStream, RecvStream, StreamKind};
use testkit::net::{Lab, Link};
use tokio::task::JoinSet;

use crate::hosts::{HIDDEN_STATE_BYTES, ROUND_TRIP_MS, create, echo_time, join, together};
use crate::nodes::within;

const WEIGHTS: StreamKind = StreamKind(3);

const LINK_MBIT: u64 = 100;

/// Streams of a fetch.
const FETCHES: usize = 4;

/// The first half of them sees the end of the beginning, in which bulk finds out what the link carries.
const ECHOES: usize = 100;

/// Sends without end.
async fn give(mut stream: IncomingStream) {
    let chunk = vec![7; 256 * 1_024];
    while stream.send.write_all(&chunk).await.is_ok() {}
}

/// Reads and counts what comes.
async fn take(mut stream: RecvStream, bytes: Arc<AtomicU64>) {
    let mut chunk = vec![0; 256 * 1_024];
    while let Ok(Some(read)) = stream.read(&mut chunk).await {
        bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// What fills the queue in front of the link would make each wait for a whole queue: 100 ms here.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn hidden_states_do_not_wait_behind_weights() {
    let lab = Lab::new(2).unwrap();
    lab.set_all(Link::round_trip_ms(ROUND_TRIP_MS).with_rate_mbit(LINK_MBIT));
    let mut one = create(lab.host(0)).await;
    let mut two = join(lab.host(1), &one.ticket().await).await;
    together(&one, &two).await;
    let alone = echo_time(&one, &mut two, HIDDEN_STATE_BYTES, ECHOES).await;

    let bytes = Arc::new(AtomicU64::new(0));
    let (mut tasks, mut asked) = (JoinSet::new(), Vec::new());
    for _ in 0..FETCHES {
        let opened = within(two.mesh.open_bulk(one.id(), WEIGHTS)).await;
        let (send, recv) = opened.unwrap();
        asked.push(send);
        let stream = within(one.streams.next()).await.unwrap();
        tasks.spawn_on(give(stream), lab.host(0).runtime().handle());
        let taking = take(recv, Arc::clone(&bytes));
        tasks.spawn_on(taking, lab.host(1).runtime().handle());
    }
    let began = Instant::now();
    let beside = echo_time(&one, &mut two, HIDDEN_STATE_BYTES, ECHOES).await;
    let took = began.elapsed();
    let bytes = bytes.load(Ordering::Relaxed);
    tasks.shutdown().await;
    assert!(
        beside < 2 * alone,
        "{beside:?} beside weights, and {alone:?} alone"
    );
    // Weights do not stand still for it: at least a quarter of what the link carries.
    let carried = took.as_secs_f64() * LINK_MBIT as f64 * 1e6 / 8.0;
    assert!(
        bytes as f64 > carried / 4.0,
        "{bytes} bytes of weights in {took:?}"
    );
}
