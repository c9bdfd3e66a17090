//! Memory that models leave to those that are loaded behind them: pure.

use super::offload::Demand;

/// Memory for models that are loaded one after the other, with layers on GPUs. Each one that is placed leaves less to
/// the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vacancy {
    /// What is free for certain: earlier models take all that they may take.
    pub(super) certain: Free,
    /// What may be free: earlier models take only what they take for certain.
    pub(super) possible: Free,
}

/// Memory that is free, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Free {
    /// On each GPU that layers are shared out among, in llama.cpp's order.
    pub(super) gpus: Vec<u64>,
    /// In main memory.
    pub(super) host: u64,
}

impl Vacancy {
    /// What is free before any model is placed. `gpus_free`: on each GPU, in llama.cpp's order, bytes; `host_free`: in
    /// main memory, bytes.
    #[must_use]
    pub fn new(gpus_free: Vec<u64>, host_free: u64) -> Self {
        let free = Free {
            gpus: gpus_free,
            host: host_free,
        };
        Self {
            certain: free.clone(),
            possible: free,
        }
    }

    /// Takes what a model takes that has `gpu_layers` layers on GPUs: `ample` what it may take, `least` what it takes
    /// for certain.
    pub(super) fn take(&mut self, gpu_layers: u32, ample: &Demand, least: &Demand) {
        self.certain.take(gpu_layers, ample);
        self.possible.take(gpu_layers, least);
    }
}

impl Free {
    fn take(&mut self, gpu_layers: u32, demand: &Demand) {
        // What is left free is not taken: once is enough for all models, and each leaves its own of what it finds.
        let taken = demand.taken(gpu_layers, &self.gpus);
        for (free, bytes) in self.gpus.iter_mut().zip(taken) {
            *free = free.saturating_sub(bytes);
        }
        self.host = self.host.saturating_sub(demand.host_bytes(gpu_layers));
    }
}

#[cfg(test)]
mod tests {
    use super::super::offload::tests::{MIB, ample, least};
    use super::super::offload::{Placement, place};
    use super::*;

    /// Places models of five layers one after the other, each with the user's own number of layers or none, in so many MiB;
    /// layers on GPUs of each, or `None` if it is refused.
    fn layers(asked: &[Option<u32>], gpus: &[u64], host: u64) -> Vec<Option<u32>> {
        let gpus = gpus.iter().map(|free| free * MIB).collect();
        let mut vacancy = Vacancy::new(gpus, host * MIB);
        let mut placed = Vec::new();
        for &asked in asked {
            let placement = place(asked, None, &ample(), &least(), &vacancy);
            let Placement::Fits { gpu_layers, .. } = placement else {
                placed.push(None);
                continue;
            };
            vacancy.take(gpu_layers, &ample(), &least());
            placed.push(Some(gpu_layers));
        }
        placed
    }

    /// MiB free on each GPU and in main memory, and the layers of two models.
    type Case<'a> = (&'a [u64], u64, [Option<u32>; 2]);

    #[test]
    fn the_second_model_gets_what_the_first_leaves() {
        let cases: &[Case<'_>] = &[
            // Each takes 4,600 MiB, and an eighth of what the second one finds stays free.
            (&[9858], 100_000, [Some(5), Some(5)]),
            (&[9857], 100_000, [Some(5), Some(4)]),
            (&[8000], 100_000, [Some(5), Some(3)]),
            // 700 MiB are left, and main memory takes all of the second, or all but what fits without a margin. That
            // is 4,300 MiB, and the first one takes 200 MiB for certain.
            (&[5300], 5100, [Some(5), Some(0)]),
            (&[5300], 5099, [Some(5), Some(1)]),
            (&[5300], 4599, [Some(5), Some(1)]),
            (&[5300], 4500, [Some(5), Some(1)]),
            (&[5300], 4499, [Some(5), None]),
            // Without GPUs both are in main memory: the first takes 4,700 MiB for certain, the second may take 4,800.
            (&[0], 9500, [Some(0), Some(0)]),
            (&[0], 9499, [Some(0), None]),
            // The first one has three layers on one GPU, a layer and the output on the other. What must be free for a
            // layer at the border, it does not take.
            (&[20_000, 20_000], 100_000, [Some(5), Some(5)]),
            (&[8000, 8000], 100_000, [Some(5), Some(5)]),
            (&[7000, 7000], 100_000, [Some(5), Some(4)]),
            (&[5000, 5000], 100_000, [Some(5), Some(1)]),
            (&[4900, 4900], 100_000, [Some(5), Some(0)]),
        ];
        for &(gpus, host, expected) in cases {
            let placed = layers(&[None, None], gpus, host);
            assert_eq!(placed, expected, "{gpus:?} {host}");
        }
    }

    #[test]
    fn a_model_that_is_refused_takes_nothing() {
        // The first one leaves 2,510 MiB at most: three layers.
        let placed = layers(&[Some(5), Some(4), None], &[7020], 100_000);
        assert_eq!(placed, [Some(5), None, Some(2)]);
        let placed = layers(&[Some(5), Some(3), None], &[7020], 100_000);
        assert_eq!(placed, [Some(5), Some(3), Some(0)]);
    }

    #[test]
    fn the_users_number_is_refused_by_what_is_certain_alone() {
        // Each takes 4,510 MiB at least, although it may take 4,600.
        let asked = [Some(5), Some(5)];
        assert_eq!(layers(&asked, &[9020], 100_000), [Some(5), Some(5)]);
        assert_eq!(layers(&asked, &[9019], 100_000), [Some(5), None]);
        // Main memory too: with one layer on the GPU 4,200 MiB.
        let asked = [Some(1), Some(1)];
        assert_eq!(layers(&asked, &[9000], 8400), [Some(1), Some(1)]);
        assert_eq!(layers(&asked, &[9000], 8399), [Some(1), None]);
    }

    #[test]
    fn the_margin_is_left_once() {
        let mut vacancy = Vacancy::new(vec![8000 * MIB, 0], 1000 * MIB);
        vacancy.take(5, &ample(), &least());
        // Nor is the layer at the border taken, which the other GPU might have had.
        assert_eq!(vacancy.certain.gpus, [3400 * MIB, 0]);
        assert_eq!(vacancy.possible.gpus, [3490 * MIB, 0]);
        assert_eq!(vacancy.certain.host, 700 * MIB);
        assert_eq!(vacancy.possible.host, 800 * MIB);
        // No more than all.
        vacancy.take(5, &ample(), &least());
        assert_eq!(vacancy.certain.gpus, [0, 0]);
    }
}
