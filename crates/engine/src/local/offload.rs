//! How many layers of a model go to GPUs: pure. Asks no device and reads no file.
//!
//! llama.cpp (`load_tensors` in `llama-model.cpp`) puts the last `n_gpu_layers` layers on GPUs and counts the
//! output, which is norm and head, as one more layer behind all others. It shares them among the GPUs in
//! proportion to free memory, in order. The KV cache of a layer lies where its weights are. Token rows stay in
//! main memory; an output that is made of them is a second copy where it is on a GPU.

use super::vacancy::Vacancy;

/// Most that is left free on a GPU, bytes: for buffers of drivers and libraries, for gaps between allocations and
/// for other programs, which nobody can tell beforehand. llama.cpp's own command line tools leave as much.
const MARGIN_BYTES_MAX: u64 = 1 << 30;

/// And no more than this part of what is free, or small GPUs would never be used.
const MARGIN_PART: u64 = 8;

/// Where the layers of a model go. Layers count from the last one, the output as one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// GPUs have room for `gpu_layers` of all `layers`, and main memory for the others.
    Fits {
        /// Layers on GPUs.
        gpu_layers: u32,
        /// Layers in all.
        layers: u32,
    },
    /// A GPU lacks room for as many layers as were asked for.
    GpuShort {
        /// Layers in all.
        layers: u32,
        /// What they take at least of the GPU that lacks most, bytes.
        needed_bytes: u64,
        /// What is free there, bytes.
        free_bytes: u64,
        /// With as many layers on GPUs all would fit, if there is such a number.
        fitting: Option<u32>,
    },
    /// Main memory lacks room for what is not on GPUs.
    HostShort {
        /// Layers on GPUs.
        gpu_layers: u32,
        /// Layers in all.
        layers: u32,
        /// What the others take of main memory, bytes.
        needed_bytes: u64,
        /// What is free there, bytes.
        free_bytes: u64,
        /// With as many layers on GPUs all would fit, if there is such a number.
        fitting: Option<u32>,
    },
}

/// Sizes of a model's parts, bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sizes {
    /// Weights and KV cache of each layer, the first one first; without the output.
    pub(super) layers: Vec<u64>,
    /// What the output takes on a GPU.
    pub(super) output: u64,
    /// What it takes in main memory beside the token rows, if it is there.
    pub(super) output_host: u64,
    /// What is in main memory in any case: token rows and buffers.
    pub(super) host: u64,
    /// Buffers for computing on a GPU.
    pub(super) buffers: u64,
    /// Largest tensor of a layer. Long prompts are computed on a GPU also where the weights are in main memory;
    /// llama.cpp then copies one tensor at a time.
    pub(super) tensor_max: u64,
}

/// What is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    /// The model.
    pub(super) model: Sizes,
    /// Another one that drafts for it and has as many layers on GPUs, or all of its own.
    pub(super) draft: Option<Sizes>,
    /// Whether a margin is left free on each GPU.
    pub(super) has_margin: bool,
}

impl Sizes {
    /// Layers with the output.
    fn count(&self) -> u32 {
        u32::try_from(self.layers.len()).map_or(u32::MAX, |layers| layers.saturating_add(1))
    }

    /// Sizes of the last `layers` layers, the output behind them.
    fn last(&self, layers: u32) -> impl Iterator<Item = u64> {
        let others = self.count().saturating_sub(layers) as usize;
        let all = self.layers.iter().copied().chain([self.output]);
        all.skip(others)
    }

    /// What is left to main memory with the last `layers` layers on GPUs.
    fn host_bytes(&self, layers: u32) -> u64 {
        let others = self.count().saturating_sub(layers) as usize;
        let output = if layers == 0 { self.output_host } else { 0 };
        let first = self.layers.iter().take(others);
        first.fold(self.host.saturating_add(output), |sum, &bytes| {
            sum.saturating_add(bytes)
        })
    }
}

impl Demand {
    /// What each GPU must have free for the last `layers` layers, bytes: what they take, and what is left free beside
    /// it. `gpus_free`: what is free on each, bytes.
    fn gpu_bytes(&self, layers: u32, gpus_free: &[u64]) -> Vec<u64> {
        let mut bytes = self.taken(layers, gpus_free);
        if self.has_margin {
            // llama.cpp looks at the free memory itself, a little later: a layer at the border may then be the
            // neighbour's.
            let border = match gpus_free.len() {
                0 | 1 => 0,
                _ => self.model.layers.iter().copied().max().unwrap_or(0),
            };
            let used = bytes.iter_mut().zip(gpus_free).filter(|(sum, _)| **sum > 0);
            used.for_each(|(sum, &free)| {
                let margin = (free / MARGIN_PART).min(MARGIN_BYTES_MAX);
                *sum = sum.saturating_add(margin).saturating_add(border);
            });
        }
        bytes
    }

    /// What the last `layers` layers take of each GPU, bytes. `gpus_free`: what is free on each, bytes.
    pub(super) fn taken(&self, layers: u32, gpus_free: &[u64]) -> Vec<u64> {
        let mut taken = vec![0_u64; gpus_free.len()];
        let layers = layers.min(self.model.count());
        if layers == 0 {
            return taken;
        }
        for (index, bytes) in self.model.last(layers).enumerate() {
            if let Some(sum) = taken.get_mut(gpu_of(index, layers, gpus_free)) {
                *sum = sum.saturating_add(bytes);
            }
        }
        let drafting = self
            .draft
            .as_ref()
            .map_or(0, |draft| draft.last(layers).fold(0, u64::saturating_add));
        for (sum, &free) in taken.iter_mut().zip(gpus_free) {
            let draft = share(drafting, free, gpus_free);
            if *sum > 0 || draft > 0 {
                let parts = [draft, self.beside(layers)];
                *sum = parts.into_iter().fold(*sum, u64::saturating_add);
            }
        }
        taken
    }

    /// What is taken of a GPU with layers beside them, bytes.
    fn beside(&self, layers: u32) -> u64 {
        let mut bytes = self.model.buffers;
        if let Some(draft) = &self.draft {
            bytes = bytes.saturating_add(draft.buffers);
        }
        if layers < self.model.count() {
            bytes = bytes.saturating_add(self.model.tensor_max);
        }
        bytes
    }

    /// What is left to main memory with the last `layers` layers on GPUs, bytes.
    pub(super) fn host_bytes(&self, layers: u32) -> u64 {
        let draft = self
            .draft
            .as_ref()
            .map_or(0, |draft| draft.host_bytes(layers.min(draft.count())));
        self.model.host_bytes(layers).saturating_add(draft)
    }

    /// Whether the last `layers` layers fit on the GPUs.
    fn fits(&self, layers: u32, gpus_free: &[u64]) -> bool {
        let taken = self.gpu_bytes(layers, gpus_free);
        taken
            .iter()
            .zip(gpus_free)
            .all(|(bytes, free)| bytes <= free)
    }

    /// The most layers that fit on the GPUs, `layers_max` at most.
    fn most(&self, layers_max: u32, gpus_free: &[u64]) -> u32 {
        // One GPU may have more to bear with fewer layers, because they are shared out anew: so no bisection.
        let mut numbers = (0..=self.model.count().min(layers_max)).rev();
        numbers
            .find(|&layers| self.fits(layers, gpus_free))
            .unwrap_or(0)
    }
}

/// The GPU that llama.cpp puts the `index`-th of `layers` layers on.
fn gpu_of(index: usize, layers: u32, gpus_free: &[u64]) -> usize {
    let total = total(gpus_free);
    let mut reached = 0_u128;
    let gpu = gpus_free.iter().position(|&free| {
        reached += u128::from(free);
        reached * u128::from(layers) > index as u128 * total
    });
    gpu.unwrap_or(gpus_free.len().saturating_sub(1))
}

/// The part of `bytes` that a GPU gets of which `free` bytes are free, rounded up.
fn share(bytes: u64, free: u64, gpus_free: &[u64]) -> u64 {
    match total(gpus_free) {
        0 => bytes,
        total => {
            let share = (u128::from(bytes) * u128::from(free)).div_ceil(total);
            u64::try_from(share).unwrap_or(u64::MAX)
        }
    }
}

fn total(gpus_free: &[u64]) -> u128 {
    gpus_free.iter().map(|&free| u128::from(free)).sum()
}

/// Where the layers go. `asked`: the user's own number; without one no more than `layers_max` go to GPUs, unless the
/// rest then lacks room. `ample` is what the load may take, with a margin: by it a number is chosen, of what is free
/// for certain, because llama.cpp fails where too many layers are put on a GPU. `least` is what it takes for
/// certain: a model is refused only if not even that fits the GPUs with what may be free there, since what is known
/// too little of may turn out well. Loading looks again.
pub(super) fn place(
    asked: Option<u32>,
    layers_max: Option<u32>,
    ample: &Demand,
    least: &Demand,
    vacancy: &Vacancy,
) -> Placement {
    let layers = ample.model.count();
    let (certain, possible) = (&vacancy.certain, &vacancy.possible);
    let (gpu_layers, needed_bytes, free_bytes, fitting) = match asked {
        Some(asked) => {
            let asked = asked.min(layers);
            let most = ample.most(layers, &certain.gpus);
            let fitting = (ample.host_bytes(most) <= certain.host).then_some(most);
            if let Some((needed_bytes, free_bytes)) = shortage(asked, least, &possible.gpus) {
                return Placement::GpuShort {
                    layers,
                    needed_bytes,
                    free_bytes,
                    fitting,
                };
            }
            (asked, least.host_bytes(asked), possible.host, fitting)
        }
        None => {
            let numbers = [layers_max.unwrap_or(layers), layers].into_iter();
            let mut numbers = numbers.map(|max| ample.most(max, &certain.gpus));
            let most = numbers.find(|&most| ample.host_bytes(most) <= certain.host);
            if let Some(gpu_layers) = most {
                return Placement::Fits { gpu_layers, layers };
            }
            // Better without a margin, and beside models that take no more than they must, than not at all.
            let most = least.most(layers, &possible.gpus);
            (most, ample.host_bytes(most), possible.host, None)
        }
    };
    if needed_bytes <= free_bytes {
        return Placement::Fits { gpu_layers, layers };
    }
    Placement::HostShort {
        gpu_layers,
        layers,
        needed_bytes,
        free_bytes,
        fitting,
    }
}

/// Of the GPU that lacks most for so many layers, what they take and what is free; `None` if they fit.
fn shortage(layers: u32, demand: &Demand, gpus_free: &[u64]) -> Option<(u64, u64)> {
    let taken = demand.gpu_bytes(layers, gpus_free);
    let short = taken
        .into_iter()
        .zip(gpus_free.iter().copied())
        .filter(|(bytes, free)| bytes > free);
    short.max_by_key(|(bytes, free)| bytes - free)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const MIB: u64 = 1 << 20;

    /// Four layers of 1,000 MiB and an output of 500 MiB, with everything that may be taken.
    pub(in super::super) fn ample() -> Demand {
        Demand {
            model: Sizes {
                layers: vec![1000 * MIB; 4],
                output: 500 * MIB,
                output_host: 500 * MIB,
                host: 300 * MIB,
                buffers: 100 * MIB,
                tensor_max: 50 * MIB,
            },
            draft: None,
            has_margin: true,
        }
    }

    /// The same with what is taken for certain.
    pub(in super::super) fn least() -> Demand {
        let ample = ample();
        Demand {
            model: Sizes {
                host: 200 * MIB,
                buffers: 10 * MIB,
                tensor_max: 0,
                ..ample.model
            },
            draft: None,
            has_margin: false,
        }
    }

    /// Places with sizes in MiB, and gives those of the result in MiB.
    fn placed(asked: Option<u32>, gpus: &[u64], host: u64) -> Placement {
        let gpus = gpus.iter().map(|free| free * MIB).collect();
        let vacancy = Vacancy::new(gpus, host * MIB);
        let mut placement = place(asked, None, &ample(), &least(), &vacancy);
        match &mut placement {
            Placement::Fits { .. } => {}
            Placement::GpuShort {
                needed_bytes,
                free_bytes,
                ..
            }
            | Placement::HostShort {
                needed_bytes,
                free_bytes,
                ..
            } => {
                *needed_bytes /= MIB;
                *free_bytes /= MIB;
            }
        }
        placement
    }

    fn fits(gpu_layers: u32) -> Placement {
        Placement::Fits {
            gpu_layers,
            layers: 5,
        }
    }

    #[test]
    fn one_gpu_gets_the_layers_that_fit_with_a_margin() {
        // All layers take 4,600 MiB, and an eighth of what is free stays free.
        for (free, gpu_layers) in [
            (100_000, 5),
            (5258, 5),
            (5257, 4),
            (4000, 3),
            // The output alone takes 650 MiB.
            (750, 1),
            (700, 0),
            (0, 0),
        ] {
            assert_eq!(placed(None, &[free], 100_000), fits(gpu_layers), "{free}");
        }
        // Of large GPUs 1 GiB stays free.
        let huge = Demand {
            model: Sizes {
                layers: vec![100_000 * MIB],
                ..Sizes::default()
            },
            ..ample()
        };
        assert!(huge.fits(2, &[101_024 * MIB]) && !huge.fits(2, &[101_023 * MIB]));
    }

    #[test]
    fn two_gpus_share_the_layers_as_llama_cpp_does() {
        // Two thirds of five: four layers on the first, the output on the second.
        let taken = least().gpu_bytes(5, &[6000 * MIB, 3000 * MIB]);
        assert_eq!(taken, [4010 * MIB, 510 * MIB]);
        // A half is the second's, as with `upper_bound`.
        let taken = least().gpu_bytes(4, &[2400 * MIB, 2400 * MIB]);
        assert_eq!(taken, [2010 * MIB, 1510 * MIB]);
        for (gpus, gpu_layers) in [
            ([6000, 3000], 5),
            // Together 5,000 MiB would do for four layers, but one GPU gets two of them.
            ([2500, 2500], 2),
            ([2400, 2400], 1),
            // One without memory gets nothing, and stands in nobody's way.
            ([0, 8000], 5),
            ([8000, 0], 5),
            ([0, 0], 0),
        ] {
            assert_eq!(placed(None, &gpus, 100_000), fits(gpu_layers), "{gpus:?}");
        }
    }

    #[test]
    fn the_rest_must_fit_main_memory() {
        // Three layers with a margin, four without.
        assert_eq!(placed(None, &[4000], 2300), fits(3));
        assert_eq!(placed(None, &[4000], 2299), fits(4));
        assert_eq!(placed(None, &[4000], 1300), fits(4));
        let short = |gpu_layers, needed_bytes, free_bytes, fitting| Placement::HostShort {
            gpu_layers,
            layers: 5,
            needed_bytes,
            free_bytes,
            fitting,
        };
        assert_eq!(placed(None, &[4000], 1299), short(4, 1300, 1299, None));
        // Without a GPU the output is there too.
        assert_eq!(placed(None, &[0], 4800), fits(0));
        assert_eq!(placed(None, &[0], 4799), short(0, 4800, 4799, None));
        // The user's own number fits the GPU, the rest does not fit; another number would do, or none.
        assert_eq!(
            placed(Some(2), &[4000], 2500),
            short(2, 3200, 2500, Some(3))
        );
        assert_eq!(placed(Some(2), &[4000], 900), short(2, 3200, 900, None));
    }

    #[test]
    fn a_number_that_is_too_high_is_refused_with_one_that_fits() {
        let short = |needed_bytes, free_bytes, fitting| Placement::GpuShort {
            layers: 5,
            needed_bytes,
            free_bytes,
            fitting,
        };
        // More than all is all.
        for asked in [5, 99, u32::MAX] {
            assert_eq!(
                placed(Some(asked), &[4000], 100_000),
                short(4510, 4000, Some(3))
            );
        }
        // What would fit the GPU leaves too much to main memory.
        assert_eq!(placed(Some(5), &[4000], 100), short(4510, 4000, None));
        // In the margin the user decides.
        assert_eq!(placed(Some(4), &[4000], 100_000), fits(4));
        assert_eq!(placed(Some(99), &[4510], 100_000), fits(5));
        assert_eq!(placed(Some(1), &[0], 100_000), short(510, 0, Some(0)));
        // Of several GPUs the one that lacks most is told.
        assert_eq!(
            placed(Some(5), &[2400, 2400], 100_000),
            short(3010, 2400, Some(1))
        );
    }

    #[test]
    fn what_was_planned_for_models_behind_is_left_to_them() {
        let placed = |layers_max, host| {
            let vacancy = Vacancy::new(vec![100_000 * MIB], host * MIB);
            place(None, Some(layers_max), &ample(), &least(), &vacancy)
        };
        for (layers_max, gpu_layers) in [(0, 0), (3, 3), (5, 5), (9, 5)] {
            assert_eq!(placed(layers_max, 100_000), fits(gpu_layers));
        }
        // Unless the rest does not fit so.
        assert_eq!(placed(3, 2300), fits(3));
        assert_eq!(placed(3, 2299), fits(5));
        // The user's own number counts.
        let vacancy = Vacancy::new(vec![100_000 * MIB], 100_000 * MIB);
        let placement = place(Some(4), Some(3), &ample(), &least(), &vacancy);
        assert_eq!(placement, fits(4));
    }

    #[test]
    fn tied_token_rows_are_a_copy_on_the_gpu_only() {
        let mut tied = ample();
        tied.model.output_host = 0;
        assert_eq!(tied.model.host_bytes(0), 4300 * MIB);
        assert_eq!(ample().model.host_bytes(0), 4800 * MIB);
        for layers in 1..=5 {
            assert_eq!(tied.host_bytes(layers), ample().host_bytes(layers));
            let gpus = [9000 * MIB];
            assert_eq!(
                tied.gpu_bytes(layers, &gpus),
                ample().gpu_bytes(layers, &gpus)
            );
        }
    }

    #[test]
    fn a_draft_model_takes_its_part_of_each_gpu() {
        let draft = Sizes {
            layers: vec![100 * MIB; 2],
            output: 100 * MIB,
            output_host: 100 * MIB,
            host: 50 * MIB,
            buffers: 50 * MIB,
            tensor_max: 0,
        };
        let both = Demand {
            draft: Some(draft),
            ..ample()
        };
        let alone = ample();
        for (free, with, without) in [(8000, 5, 5), (5400, 4, 5), (0, 0, 0)] {
            let gpus = [free * MIB];
            assert_eq!((both.most(9, &gpus), alone.most(9, &gpus)), (with, without));
        }
        // All of its three layers are among the last four.
        assert_eq!(both.host_bytes(4), 1350 * MIB);
        assert_eq!(both.host_bytes(1), (4300 + 250) * MIB);
        let gpus = [6000 * MIB, 3000 * MIB];
        let more = [250 * MIB, 150 * MIB];
        for (gpu, more) in more.into_iter().enumerate() {
            assert_eq!(
                both.gpu_bytes(5, &gpus)[gpu],
                alone.gpu_bytes(5, &gpus)[gpu] + more
            );
        }
    }

    #[test]
    fn absurd_sizes_saturate() {
        let absurd = Demand {
            model: Sizes {
                layers: vec![u64::MAX; 3],
                output: u64::MAX,
                output_host: u64::MAX,
                host: u64::MAX,
                buffers: u64::MAX,
                tensor_max: u64::MAX,
            },
            draft: Some(least().model),
            has_margin: true,
        };
        let gpus = [u64::MAX - 1, u64::MAX - 1];
        assert_eq!(absurd.most(u32::MAX, &gpus), 0);
        assert_eq!(absurd.host_bytes(2), u64::MAX);
    }
}
