//! What the parts of a model take on GPUs and in main memory, by its header. How many layers go where follows in
//! `offload`.

use gguf::{LayerPeriod, Metadata, SplitArchitecture};

use super::device;
use super::load::{Header, LoadOptions, OVERHEAD_BYTES};
use super::offload::{self, Demand, Placement, Sizes};
use super::vacancy::Vacancy;
use crate::Error;

/// Matrix of token rows, and of the output too where there is no other.
const TOKEN_ROWS: &str = "token_embd.weight";

/// Matrix of the output.
const OUTPUT: &str = "output.weight";

/// Beginnings of the names of tensors whose rows are looked up: llama.cpp keeps these in main memory.
const LOOKED_UP: [&str; 4] = [
    "token_embd.",
    "position_embd.",
    "token_types.",
    "per_layer_token_embd.",
];

/// llama.cpp rounds the KV cache up to a multiple of so many tokens.
const KV_TOKENS_STEP: u64 = 256;

/// Bytes of the attention mask for one row and one token of the KV cache: a float, and its half for the kernels.
const MASK_BYTES: u64 = 4 + 2;

/// Where the layers of a model would go now. `layers_max`: no more go to GPUs where the user does not say how many,
/// as long as main memory has room for the others. `host_bytes_free`: what is free in main memory, bytes. `None` where
/// only llama.cpp can tell: without a GPU that has memory of its own and tells it, or where the header does not say
/// enough. Reads headers and asks the GPUs' drivers.
///
/// # Errors
/// As [`memory_needed`](super::memory_needed).
pub fn place(
    options: &LoadOptions,
    layers_max: Option<u32>,
    host_bytes_free: u64,
) -> Result<Option<Placement>, Error> {
    match Vacancy::now(options.device.as_deref(), host_bytes_free) {
        None => Ok(None),
        Some(mut vacancy) => vacancy.place(options, layers_max),
    }
}

impl Vacancy {
    /// What is free now on all GPUs, or on the one called `device`. `host_bytes_free`: in main memory, bytes. `None`
    /// without a GPU that has memory of its own and tells it. Asks the GPUs' drivers.
    #[must_use]
    pub fn now(device: Option<&str>, host_bytes_free: u64) -> Option<Self> {
        let gpus_free = device::free_of_each(device)?;
        Some(Self::new(gpus_free, host_bytes_free))
    }

    /// Where the layers of the next model go. What it takes is no longer free then; nothing is if it does not fit.
    /// The device of `options` is not looked at. `layers_max` and `None` as with [`place`]. Reads headers.
    ///
    /// # Errors
    /// As [`memory_needed`](super::memory_needed).
    pub fn place(
        &mut self,
        options: &LoadOptions,
        layers_max: Option<u32>,
    ) -> Result<Option<Placement>, Error> {
        let Some((ample, least)) = demands(options)? else {
            return Ok(None);
        };
        let placement = offload::place(options.gpu_layers, layers_max, &ample, &least, self);
        if let Placement::Fits { gpu_layers, .. } = placement {
            self.take(gpu_layers, &ample, &least);
        }
        Ok(Some(placement))
    }
}

/// What is to be loaded, with what it may take and with what it takes for certain; `None` if a header does not say.
fn demands(options: &LoadOptions) -> Result<Option<(Demand, Demand)>, Error> {
    let header = Header::read(options)?;
    let draft = match header.draft(options)? {
        None => None,
        Some(draft) => match sizes(&draft)? {
            None => return Ok(None),
            told => told,
        },
    };
    let Some((ample, least)) = sizes(&header)? else {
        return Ok(None);
    };
    let (ample_draft, least_draft) = draft.unzip();
    let ample = Demand {
        model: ample,
        draft: ample_draft,
        has_margin: true,
    };
    let least = Demand {
        model: least,
        // Not certain otherwise: a model with recurrent layers is loaded without one.
        draft: least_draft.filter(|_| knows_cache(&header)),
        has_margin: false,
    };
    Ok(Some((ample, least)))
}

/// What a model may take, and what it takes for certain; `None` if the header does not say.
fn sizes(header: &Header) -> Result<Option<(Sizes, Sizes)>, Error> {
    let metadata = header.gguf.metadata();
    let Ok(blocks) = metadata.block_count() else {
        return Ok(None);
    };
    let Some(weights) = Weights::of(header, blocks) else {
        return Ok(None);
    };
    let buffers = header.buffer_bytes()?;
    let masks = kv_tokens(header)
        .saturating_mul(header.room.batch_tokens.into())
        .saturating_mul(MASK_BYTES);
    let caches = caches(header, blocks);
    let layers = weights.layers.iter().zip(caches);
    let layers = layers.map(|(weights, cache)| weights.saturating_add(cache));
    let ample = Sizes {
        layers: layers.collect(),
        output: weights.output.saturating_add(weights.tied),
        output_host: weights.output,
        host: weights.looked_up.saturating_add(buffers),
        buffers: buffers.saturating_add(masks),
        tensor_max: weights.tensor_max,
    };
    let mut certain = if knows_cache(header) {
        ample.layers.clone()
    } else {
        weights.layers
    };
    // llama.cpp passes layers over that only draft tokens.
    let drafting = metadata.arch_u32("nextn_predict_layers").unwrap_or(0);
    let first = blocks.saturating_sub(drafting) as usize;
    certain.iter_mut().skip(first).for_each(|bytes| *bytes = 0);
    let least = Sizes {
        layers: certain,
        // Not every model that makes vectors has an output.
        output: if header.purpose.embeds() {
            weights.output
        } else {
            ample.output
        },
        output_host: weights.output,
        host: weights.looked_up.saturating_add(OVERHEAD_BYTES),
        buffers: OVERHEAD_BYTES,
        tensor_max: 0,
    };
    Ok(Some((ample, least)))
}

/// Weights by place, bytes.
struct Weights {
    layers: Vec<u64>,
    /// Of no layer, and not looked up.
    output: u64,
    /// The copy of the token rows that an output without a matrix of its own is made of.
    tied: u64,
    looked_up: u64,
    /// The largest tensor of a layer.
    tensor_max: u64,
}

impl Weights {
    fn of(header: &Header, blocks: u32) -> Option<Self> {
        let mut weights = Self {
            layers: vec![0; blocks as usize],
            output: 0,
            tied: 0,
            looked_up: 0,
            tensor_max: 0,
        };
        let mut has_output = false;
        for tensor in header.gguf.tensors() {
            let name = tensor.info.name.as_str();
            let bytes = tensor.info.size_bytes().ok()?;
            has_output |= name == OUTPUT;
            if name == TOKEN_ROWS {
                weights.tied = bytes;
            }
            let layer = tensor.info.layer();
            let sum = match layer.and_then(|layer| weights.layers.get_mut(layer as usize)) {
                Some(layer) => {
                    weights.tensor_max = weights.tensor_max.max(bytes);
                    layer
                }
                None if LOOKED_UP.iter().any(|start| name.starts_with(start)) => {
                    &mut weights.looked_up
                }
                None => &mut weights.output,
            };
            *sum = sum.saturating_add(bytes);
        }
        if has_output {
            weights.tied = 0;
        }
        Some(weights)
    }
}

/// Tokens that the KV cache has room for.
fn kv_tokens(header: &Header) -> u64 {
    u64::from(header.room.context_tokens).next_multiple_of(KV_TOKENS_STEP)
}

/// What each layer remembers, bytes: keys and values of all tokens, or the states of all sequences.
fn caches(header: &Header, blocks: u32) -> Vec<u64> {
    let metadata = header.gguf.metadata();
    // A model without attention does not say.
    let of_token = metadata.kv_bytes_per_token_of_layers().unwrap_or_default();
    let states = state_bytes(metadata).saturating_mul(header.room.sequences.into());
    let interval = linear_interval(metadata);
    let caches = (0..blocks as usize).map(|layer| {
        let attends = interval.is_none_or(|interval| layer % interval == interval - 1);
        let of_token = of_token.get(layer).copied().filter(|_| attends);
        let kv = of_token.unwrap_or(0).saturating_mul(kv_tokens(header));
        // Layers that only attend have none, but some do both.
        kv.saturating_add(states)
    });
    caches.collect()
}

/// Every how many layers there is one with full attention, where the others have a state.
fn linear_interval(metadata: &Metadata) -> Option<usize> {
    let architecture = SplitArchitecture::of(metadata.architecture().ok()?)?;
    let LayerPeriod::Linear { default } = architecture.period else {
        return None;
    };
    let kinds = metadata.arch_key("attention.recurrent_layers").ok()?;
    if metadata.contains(&kinds) {
        return None;
    }
    let interval = metadata.arch_u32("full_attention_interval");
    let interval = interval.unwrap_or(default) as usize;
    (interval > 0).then_some(interval)
}

/// State of one sequence in one recurrent layer, bytes (`n_embd_r` and `n_embd_s` in `llama-hparams.cpp`, floats).
/// 0 for kinds that have other keys: theirs are small.
fn state_bytes(metadata: &Metadata) -> u64 {
    let size = |suffix| u64::from(metadata.arch_u32(suffix).unwrap_or(0));
    let (inner, state) = (size("ssm.inner_size"), size("ssm.state_size"));
    let channels = size("ssm.group_count").saturating_mul(state);
    let channels = channels.saturating_mul(2).saturating_add(inner);
    let rows = size("ssm.conv_kernel").saturating_sub(1);
    let values = rows.saturating_mul(channels);
    let values = values.saturating_add(inner.saturating_mul(state));
    values.saturating_mul(size_of::<f32>() as u64)
}

/// Whether the KV cache of each layer is known and not only bounded: for those architectures whose loaders have been
/// read, if no layer is recurrent.
fn knows_cache(header: &Header) -> bool {
    let architecture = header.gguf.metadata().architecture().ok();
    let known = architecture.and_then(SplitArchitecture::of);
    known.is_some_and(|known| !matches!(known.period, LayerPeriod::Linear { .. }))
        && !header.purpose.embeds()
}

#[cfg(test)]
mod tests {
    use gguf::LayerMap;
    use testkit::model::{Architecture, ModelSpec};

    use super::super::load::ModelSource;
    use super::*;

    /// KV cache of a layer of [`ModelSpec::tiny`]: 2 heads, keys and values of 16 halves, 512 tokens.
    const KV_BYTES: u64 = 2 * (16 + 16) * 2 * 512;

    fn options(spec: &ModelSpec) -> LoadOptions {
        let bytes: &'static [u8] = Box::leak(spec.to_bytes().unwrap().into_boxed_slice());
        LoadOptions::new(ModelSource::Bytes(bytes))
    }

    fn header(spec: &ModelSpec) -> Header {
        Header::read(&options(spec)).unwrap()
    }

    #[test]
    fn layers_have_their_weights_and_their_cache() {
        let header = header(&ModelSpec::tiny(Architecture::Qwen3));
        let (ample, least) = sizes(&header).unwrap().unwrap();
        let map = LayerMap::of(&header.gguf).unwrap();
        let layers: Vec<u64> = map.layer_bytes().iter().map(|w| w + KV_BYTES).collect();
        assert_eq!(ample.layers, layers);
        assert_eq!(least.layers, layers);
        let rows = header.gguf.tensor(TOKEN_ROWS).unwrap();
        let rows = rows.info.size_bytes().unwrap();
        // Norm and head are the output; the rows stay in main memory.
        assert_eq!(ample.output, map.head_bytes() - rows);
        assert_eq!(ample.output_host, ample.output);
        assert_eq!(least.host, rows + OVERHEAD_BYTES);
        assert!(ample.host > least.host && ample.buffers > least.buffers);
    }

    #[test]
    fn an_output_without_a_matrix_is_a_copy_of_the_token_rows() {
        let own = ModelSpec::tiny(Architecture::Qwen3);
        let tied = ModelSpec {
            tied_output: true,
            ..own.clone()
        };
        let (own, _) = sizes(&header(&own)).unwrap().unwrap();
        let (tied, least) = sizes(&header(&tied)).unwrap().unwrap();
        // On a GPU it takes as much, in main memory only the norm.
        assert_eq!((tied.output, least.output), (own.output, own.output));
        assert_eq!(tied.output_host, 64 * 4);
        assert_eq!(tied.host, own.host);
    }

    #[test]
    fn layers_with_a_state_have_no_cache_of_tokens() {
        let header = header(&ModelSpec::tiny(Architecture::Qwen35));
        let (ample, least) = sizes(&header).unwrap().unwrap();
        let state = state_bytes(header.gguf.metadata());
        assert!(state > 0);
        let states = state * u64::from(header.room.sequences);
        let weights = LayerMap::of(&header.gguf).unwrap().layer_bytes().to_vec();
        // Every other layer attends.
        assert_eq!(ample.layers[0], weights[0] + states);
        assert_eq!(ample.layers[1], weights[1] + states + KV_BYTES);
        // What they remember is estimated: nothing of it is certain.
        assert_eq!(least.layers, weights);
    }

    #[test]
    fn two_models_share_the_memory_of_a_gpu() {
        let mut first = options(&ModelSpec::tiny(Architecture::Qwen3));
        let mut second = options(&ModelSpec::tiny(Architecture::Llama));
        let (ample, least) = demands(&first).unwrap().unwrap();
        let layers = 5;
        let one = ample.taken(layers, &[0]).into_iter().sum::<u64>();
        let host = u64::MAX;
        let placed = |gpu, first: &LoadOptions, second: &LoadOptions| {
            let mut vacancy = Vacancy::new(vec![gpu], host);
            [first, second].map(|options| vacancy.place(options, None).unwrap().unwrap())
        };
        let fits = |gpu_layers| Placement::Fits { gpu_layers, layers };
        // Twice as much is plenty for one, but not for two with a margin; thrice as much is enough.
        assert_eq!(placed(one * 2, &first, &second), [fits(5), fits(0)]);
        assert_eq!(placed(one * 3, &first, &second), [fits(5), fits(5)]);
        // Those that are refused for the user's number leave all to the next one.
        first.gpu_layers = Some(5);
        second.gpu_layers = Some(5);
        let certain = least.taken(layers, &[0]).into_iter().sum::<u64>();
        let [_, short] = placed(certain, &first, &second);
        assert!(
            matches!(short, Placement::GpuShort { free_bytes: 0, .. }),
            "{short:?}"
        );
        let [short, other] = placed(certain - 1, &first, &second);
        let expected = Placement::GpuShort {
            layers,
            needed_bytes: certain,
            free_bytes: certain - 1,
            fitting: Some(0),
        };
        assert_eq!((short, other), (expected, fits(5)));
    }

    #[test]
    fn where_no_gpu_tells_its_memory_llama_cpp_decides() {
        let no_model = LoadOptions::new(ModelSource::Bytes(b"no model"));
        let placed = place(&no_model, None, 0);
        match device::free_of_each(None) {
            None => assert_eq!(placed, Ok(None)),
            Some(_) => assert!(placed.is_err()),
        }
    }
}
