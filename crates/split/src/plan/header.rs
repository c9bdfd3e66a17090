//! A model's shape from its GGUF header: what each layer's tensors take, and what it keeps of every token.

use gguf::{KeyError, Metadata, Model, TensorInfo, optional};
use thiserror::Error;

use super::memory::KvBytes;
use super::shape::{Layer, ModelShape, Parts, ShapeError};

/// How layers with a sliding window keep their cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowCache {
    /// Every token, as `llama` sets it up: prefixes can be shared and taken back.
    Full,
    /// Only the window.
    Window,
}

/// Rows of a batch that a bounded cache needs beyond its window, as in llama.cpp.
const WINDOW_BATCH_ROWS: u32 = 512;

/// Why a header gives no shape.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum HeaderError {
    /// A key is missing or makes no sense.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The numbers are no model.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A tensor of a layer that the model does not have.
    #[error("tensor {tensor} belongs to a layer beyond the model's {layers}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// Layers of the model.
        layers: u32,
    },
}

impl ModelShape {
    /// Reads the shape of a model.
    ///
    /// `period` is the number of layers after which the architecture's pattern repeats, and `None` for an
    /// architecture that can't be split.
    ///
    /// # Errors
    /// [`HeaderError`] when keys or tensors make no sense.
    pub fn from_model(
        model: &Model,
        period: Option<u32>,
        windows: WindowCache,
    ) -> Result<Self, HeaderError> {
        let metadata = model.metadata();
        // Layers that only predict further tokens come last, and are not loaded.
        let predicting = optional(metadata.arch_u32("nextn_predict_layers"))?.unwrap_or(0);
        let all = metadata.block_count()?;
        let count = all.saturating_sub(predicting);
        let mut layers = cache_of_layers(metadata, count, windows)?;
        let mut parts = Parts {
            architecture: metadata.architecture()?.to_owned(),
            layers: Vec::new(),
            embedding_bytes: 0,
            head_bytes: 0,
            head_active_bytes: 0,
            width: metadata.embedding_length()?,
            cuts: period.map_or_else(Vec::new, |period| Self::cuts_every(count, period)),
        };
        let experts = Experts::of(metadata)?;
        for tensor in model.tensors() {
            let bytes = tensor.info.size_bytes()?;
            match tensor.info.layer() {
                Some(index) if index < count => {
                    let layer = &mut layers[index as usize];
                    layer.weight_bytes = layer.weight_bytes.saturating_add(bytes);
                    let active = experts.active(tensor.info, bytes);
                    layer.active_bytes = layer.active_bytes.saturating_add(active);
                }
                Some(index) if index < all => {}
                Some(_) => {
                    let tensor = tensor.info.name.clone();
                    return Err(HeaderError::Tensor {
                        tensor,
                        layers: all,
                    });
                }
                None => add_end(&mut parts, tensor.info, bytes),
            }
        }
        // A model without an output matrix uses the embedding.
        parts.head_active_bytes = match model.tensor("output.weight") {
            Some(_) => parts.head_bytes,
            None => parts.head_bytes.saturating_add(parts.embedding_bytes),
        };
        parts.layers = layers;
        Ok(Self::new(parts)?)
    }
}

fn add_end(parts: &mut Parts, tensor: &TensorInfo, bytes: u64) {
    const EMBEDDINGS: [&str; 4] = ["token_embd", "token_types", "position_embd", "per_layer_"];
    let embeds = EMBEDDINGS
        .iter()
        .any(|start| tensor.name.starts_with(start));
    let sum = if embeds {
        &mut parts.embedding_bytes
    } else {
        &mut parts.head_bytes
    };
    *sum = sum.saturating_add(bytes);
}

/// How many of the experts see a token.
struct Experts {
    count: u64,
    used: u64,
}

impl Experts {
    fn of(metadata: &Metadata) -> Result<Self, KeyError> {
        let count = optional(metadata.arch_u32("expert_count"))?.unwrap_or(0);
        let used = optional(metadata.arch_u32("expert_used_count"))?.unwrap_or(count);
        Ok(Self {
            count: count.max(1).into(),
            used: used.min(count.max(1)).into(),
        })
    }

    /// Bytes read for one token. Tensors of all experts are named `…_exps.weight`.
    fn active(&self, tensor: &TensorInfo, bytes: u64) -> u64 {
        if tensor.name.contains("_exps.") {
            (bytes / self.count).saturating_mul(self.used)
        } else {
            bytes
        }
    }
}

/// Layers without weights: what each keeps of a token, or of a sequence.
fn cache_of_layers(
    metadata: &Metadata,
    count: u32,
    windows: WindowCache,
) -> Result<Vec<Layer>, KeyError> {
    let heads = metadata.head_counts()?;
    let kv_heads = metadata.kv_head_counts()?;
    let width = metadata.embedding_length()?;
    let key_length = optional(metadata.arch_u32("attention.key_length"))?;
    let value_length = optional(metadata.arch_u32("attention.value_length"))?;
    let compressed = metadata.contains(&metadata.arch_key("attention.key_length_mla")?);
    let state_bytes = state_bytes(metadata)?;
    let interval = optional(metadata.arch_u32("full_attention_interval"))?.unwrap_or(1);
    let window = window(metadata, windows)?;
    let layer = |index: u32| {
        let (heads, kv_heads) = (heads[index as usize], kv_heads[index as usize]);
        let recurrent =
            state_bytes > 0 && (kv_heads == 0 || !(index + 1).is_multiple_of(interval.max(1)));
        let head_length = width.checked_div(heads).unwrap_or(0);
        let key_length = key_length.unwrap_or(head_length);
        let kv = if compressed {
            KvBytes::Compressed {
                row_length: key_length.saturating_mul(kv_heads),
            }
        } else {
            KvBytes::Grouped {
                heads: kv_heads,
                key_length,
                value_length: value_length.unwrap_or(head_length),
            }
        };
        Layer {
            weight_bytes: 0,
            active_bytes: 0,
            kv_token_bytes: if recurrent { 0 } else { kv.bytes() },
            kv_tokens_max: window.as_ref().and_then(|window| window.tokens_max(index)),
            state_bytes: if recurrent { state_bytes } else { 0 },
        }
    };
    Ok((0..count).map(layer).collect())
}

/// Bytes of one sequence's state in a layer with linear attention: the last inputs of the convolution and
/// the matrices of all heads, as `n_embd_r` and `n_embd_s` of llama.cpp's `llama-hparams.cpp`.
fn state_bytes(metadata: &Metadata) -> Result<u64, KeyError> {
    const ELEMENT_BYTES: u64 = 4;
    let number =
        |suffix| Ok::<_, KeyError>(u64::from(optional(metadata.arch_u32(suffix))?.unwrap_or(0)));
    let state = number("ssm.state_size")?;
    let inner = number("ssm.inner_size")?;
    let groups = number("ssm.group_count")?;
    let kernel = number("ssm.conv_kernel")?;
    let channels = inner.saturating_add(groups.saturating_mul(state).saturating_mul(2));
    let convolution = kernel.saturating_sub(1).saturating_mul(channels);
    let matrices = state.saturating_mul(inner);
    Ok(convolution
        .saturating_add(matrices)
        .saturating_mul(ELEMENT_BYTES))
}

/// Which layers see only the last tokens.
struct Window {
    tokens: u32,
    /// Every so many layers one sees everything.
    pattern: u32,
}

impl Window {
    fn tokens_max(&self, layer: u32) -> Option<u32> {
        let limited = layer % self.pattern < self.pattern - 1;
        limited.then(|| self.tokens.saturating_add(WINDOW_BATCH_ROWS))
    }
}

/// The window, where the cache is bounded by it and its pattern is known. A pattern that is not a number
/// counts as none: too much memory is better than too little.
fn window(metadata: &Metadata, windows: WindowCache) -> Result<Option<Window>, KeyError> {
    if windows == WindowCache::Full {
        return Ok(None);
    }
    let Some(tokens) = optional(metadata.arch_u32("attention.sliding_window"))? else {
        return Ok(None);
    };
    // What `load_swa_pattern` of llama.cpp's models assumes when the file does not say.
    let known = match metadata.architecture()? {
        "gemma2" | "gpt-oss" => 2,
        "gemma3" => 6,
        "cohere2" | "exaone4" | "olmo2" => 4,
        _ => 1,
    };
    let pattern = metadata.arch_u32("attention.sliding_window_pattern");
    Ok(Some(Window {
        tokens,
        pattern: pattern.unwrap_or(known).max(1),
    }))
}
