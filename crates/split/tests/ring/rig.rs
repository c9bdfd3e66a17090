//! A host, number 0, and workers from 1 on.

use std::time::Duration;

use split::Usage;
use split::ring::{RaiseError, Ring, RingPlan};
use split::station::Station;

use crate::fake::{BUDGET, Fake};
use crate::net::Net;

pub(crate) struct Rig {
    pub(crate) net: Net,
    pub(crate) host: Station,
    pub(crate) workers: Vec<Station>,
    pub(crate) fakes: Vec<Fake>,
}

impl Rig {
    pub(crate) fn new(workers: u8) -> Self {
        let net = Net::default();
        let host = net.station(0, None);
        let fakes: Vec<_> = (0..workers).map(|_| Fake::default()).collect();
        let numbers = 1..=workers;
        let workers = numbers
            .zip(&fakes)
            .map(|(n, fake)| net.station(n, Some((fake, BUDGET))));
        Self {
            workers: workers.collect(),
            host,
            net,
            fakes,
        }
    }

    pub(crate) async fn raise(&self, plan: &RingPlan) -> Result<Ring, RaiseError> {
        // Nothing may hang, whatever happens.
        let mut progress = |_, _| {};
        let raise = self.host.raise(plan.clone(), &mut progress);
        let limit = Duration::from_secs(200);
        tokio::time::timeout(limit, raise).await.expect("it hangs")
    }

    /// Lets a ring go, and sees that nothing is left of it.
    pub(crate) async fn end(&self, ring: Ring) {
        drop(ring);
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.assert_free().await;
    }

    pub(crate) async fn assert_free(&self) {
        for (station, fake) in self.workers.iter().zip(&self.fakes) {
            assert_eq!(fake.bytes(), 0);
            let Usage {
                rings, used_bytes, ..
            } = station.usage().await;
            assert_eq!((rings, used_bytes), (0, 0));
        }
    }
}
