//! Hidden states on a link that weights fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mesh::net::{IncomingStream, RecvStream, SendStream, StreamKind};
use testkit::net::{Lab, Link};
use tokio::task::JoinSet;

use crate::hosts::{HIDDEN_STATE_BYTES, ROUND_TRIP_MS, create, echo_time, join, together};
use crate::nodes::{Node, within};

const WEIGHTS: StreamKind = StreamKind(3);

const LINK_MBIT: u64 = 20;

/// How long the queue in front of the link takes at most. A sender that heeds nothing but losses keeps two thirds
/// of it full.
const QUEUE_MS: u64 = 600;

/// A small part of what the link carries meanwhile: weights do not stand still.
const MEANWHILE_BYTES_MIN: u64 = 256 * 1_024;

/// Streams of a fetch.
const FETCHES: usize = 4;

/// Echoes of which the second half counts: the first one sees the end of the beginning, in which bulk finds out what the
/// link carries.
const ECHOES: usize = 100;

/// The same behind a full queue, where each takes much longer: the first ten do as long as the queue takes to fill.
const SLOW_ECHOES: usize = 30;

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

/// Weights under way from one member to another.
struct Flow {
    enough: Arc<AtomicBool>,
    received_bytes: Arc<AtomicU64>,
    givers: JoinSet<u64>,
    takers: JoinSet<()>,
    /// Nothing is sent on these; dropping them would end the streams.
    asked: Vec<SendStream>,
}

impl Flow {
    /// Begins to send from the member on the lab's first host to that on its second one.
    async fn start(lab: &Lab, one: &mut Node, two: &Node, is_bulk: bool) -> Self {
        let mut flow = Self {
            enough: Arc::default(),
            received_bytes: Arc::default(),
            givers: JoinSet::new(),
            takers: JoinSet::new(),
            asked: Vec::new(),
        };
        for _ in 0..FETCHES {
            let opened = match is_bulk {
                true => within(two.mesh.open_bulk(one.id(), WEIGHTS)).await,
                false => within(two.mesh.open(one.id(), WEIGHTS)).await,
            };
            let (send, recv) = opened.unwrap();
            flow.asked.push(send);
            let stream = within(one.streams.next()).await.unwrap();
            assert_eq!((stream.peer, stream.kind), (two.id(), WEIGHTS));
            assert_eq!(stream.is_bulk, is_bulk);
            let giving = give(stream, Arc::clone(&flow.enough));
            let giver = lab.host(0).runtime();
            flow.givers.spawn_on(giving, giver.handle());
            let taking = take(recv, Arc::clone(&flow.received_bytes));
            let taker = lab.host(1).runtime();
            flow.takers.spawn_on(taking, taker.handle());
        }
        flow
    }

    fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Ends it, and waits until all that was sent is there.
    async fn end(self, lab: &Lab) {
        self.enough.store(true, Ordering::Relaxed);
        // What is written and not sent yet would take the narrow link seconds.
        lab.set_all(Link::default().with_rate_mbit(1_000));
        let sent_bytes: u64 = within(self.givers.join_all()).await.iter().sum();
        within(self.takers.join_all()).await;
        assert_eq!(self.received_bytes.load(Ordering::Relaxed), sent_bytes);
    }
}

/// What fills the queue in front of the link makes each wait for all of it, as weights do that go over the ordinary
/// connection. How long a hidden state takes exactly is measured by the bench.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn hidden_states_do_not_wait_behind_weights() {
    let lab = Lab::new(2).unwrap();
    let narrow = || {
        let link = Link::round_trip_ms(ROUND_TRIP_MS);
        lab.set_all(link.with_rate_mbit(LINK_MBIT).with_queue_ms(QUEUE_MS));
    };
    narrow();
    let mut one = create(lab.host(0)).await;
    let mut two = join(lab.host(1), &one.ticket().await).await;
    together(&one, &two).await;

    let bulk = Flow::start(&lab, &mut one, &two, true).await;
    let beside_bulk = echo_time(&one, &mut two, HIDDEN_STATE_BYTES, ECHOES).await;
    let meanwhile_bytes = bulk.received_bytes();
    bulk.end(&lab).await;

    narrow();
    let ordinary = Flow::start(&lab, &mut one, &two, false).await;
    let beside_ordinary = echo_time(&one, &mut two, HIDDEN_STATE_BYTES, SLOW_ECHOES).await;
    ordinary.end(&lab).await;

    assert!(
        beside_bulk * 2 < beside_ordinary,
        "{beside_bulk:?} beside bulk, {beside_ordinary:?} beside the same on the ordinary connection"
    );
    assert!(
        meanwhile_bytes > MEANWHILE_BYTES_MIN,
        "{meanwhile_bytes} bytes of weights meanwhile"
    );
}
