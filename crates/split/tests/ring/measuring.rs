//! A machine that finds out how fast it is, which takes its time, and others that want something of it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gguf::Fingerprint;
use mesh::NodeId;
use split::fault::Refusal;
use split::layers::{LayerSource, Layers, Loading};
use split::spec::StageSpec;
use split::station::{Offer, Station};
use split::wire::Pace;

use crate::fake::{BUDGET, Fake, MODEL, plan};
use crate::net::{Net, node};

/// Ends a test that hangs.
const HANG: Duration = Duration::from_secs(30);

const PACE: Pace = Pace {
    decode_bytes_per_s: 7,
    prefill_bytes_per_s: 70,
};

/// Layers of a machine that fetches until it is told that its work is done, or may not go on.
#[derive(Clone, Default)]
struct Slow {
    fake: Fake,
    /// How often it has begun to.
    began: Arc<AtomicU32>,
    is_done: Arc<AtomicBool>,
    is_stopped: Arc<AtomicBool>,
}

impl LayerSource for Slow {
    fn needed_bytes(&self, host: NodeId, spec: &StageSpec) -> Result<u64, Refusal> {
        self.fake.needed_bytes(host, spec)
    }

    fn load(
        &self,
        host: NodeId,
        spec: &StageSpec,
        progress: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<Box<dyn Layers>, String> {
        self.fake.load(host, spec, progress)
    }

    fn pace(&self, host: NodeId, _: Fingerprint, is_free: &dyn Fn() -> bool) -> Option<Pace> {
        if self.is_done.load(Ordering::SeqCst) {
            return Some(PACE);
        }
        if !is_free() {
            return None;
        }
        self.began.fetch_add(1, Ordering::SeqCst);
        assert_eq!(host, node(0));
        let began = Instant::now();
        while began.elapsed() < HANG {
            if self.is_done.load(Ordering::SeqCst) {
                return Some(PACE);
            }
            if !is_free() {
                self.is_stopped.store(true, Ordering::SeqCst);
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

struct Rig {
    host: Station,
    worker: Station,
    slow: Slow,
}

impl Rig {
    fn new() -> Self {
        let (net, slow) = (Net::default(), Slow::default());
        let offer = Offer {
            source: Arc::new(slow.clone()),
            budget_bytes: BUDGET,
        };
        let worker = Station::new(node(1), net.transport(1), Some(offer));
        net.add_station(1, &worker);
        Self {
            host: net.station(0, None),
            worker,
            slow,
        }
    }

    /// Asks for the worker's speed, and waits until it is looked for.
    async fn ask(&self) -> tokio::task::JoinHandle<Option<Pace>> {
        let host = self.host.clone();
        let asked = tokio::spawn(async move { host.pace_of(node(1), MODEL).await });
        while self.slow.began.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        asked
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.expect("it hangs")
}

#[tokio::test]
async fn what_takes_long_to_find_out_is_told_when_it_is_known_and_found_out_once() {
    let rig = Rig::new();
    let asked = within(rig.ask()).await;
    rig.slow.is_done.store(true, Ordering::SeqCst);
    assert_eq!(within(asked).await.unwrap(), Some(PACE));
    assert_eq!(within(rig.host.pace_of(node(1), MODEL)).await, Some(PACE));
    assert_eq!(rig.slow.began.load(Ordering::SeqCst), 1);
    within(rig.worker.close()).await;
}

#[tokio::test]
async fn who_is_given_layers_stops_to_look_how_fast_it_is() {
    let rig = Rig::new();
    let asked = within(rig.ask()).await;
    let ring = within(rig.host.raise(plan(1, 1, 1), &mut |_, _| {})).await;
    let ring = ring.unwrap();
    assert_eq!(within(asked).await.unwrap(), None);
    assert!(rig.slow.is_stopped.load(Ordering::SeqCst));
    // Nor does it begin as long as it has them.
    assert_eq!(within(rig.host.pace_of(node(1), MODEL)).await, None);
    assert_eq!(rig.slow.began.load(Ordering::SeqCst), 1);
    drop(ring);
}

#[tokio::test]
async fn who_stops_does_not_wait_until_it_knows_how_fast_it_is() {
    let rig = Rig::new();
    let asked = within(rig.ask()).await;
    within(rig.worker.close()).await;
    assert!(rig.slow.is_stopped.load(Ordering::SeqCst));
    assert_eq!(within(asked).await.unwrap(), None);
}
