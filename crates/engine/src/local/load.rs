//! From a GGUF to a running engine: what to load, how much it takes, and the loading itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use llama::{Context, ContextParams, KvType, Model, ModelParams};

use super::purpose::{self, Purpose};
use crate::Error;
use crate::speculation::DRAFT_TOKENS_MAX;
use crate::stage::StageOptions;

/// Sequences that run at the same time unless told otherwise.
const SLOTS_DEFAULT: u32 = 8;
/// Most slots: llama.cpp takes so many sequences.
pub(crate) const SLOTS_MAX: u32 = 256;
/// Fewest KV sequences, so that a few prefixes are kept even with one slot. More than one per slot
/// would keep more prefixes, but every kept cell slows the attention of all that run.
const SEQUENCES_MIN: u32 = 4;
/// Context unless told otherwise, tokens, if the model was trained for so much.
const CONTEXT_TOKENS_DEFAULT: u32 = 32 << 10;
/// Context below which the default is not reduced, tokens.
const CONTEXT_TOKENS_SMALL: u32 = 4096;
/// The default context is halved until its KV cache is no larger than the weights, or this, bytes.
const KV_BYTES_SMALL: u64 = 1 << 30;
/// Rows per step. More does not make prompts faster on CPUs and costs memory.
const BATCH_TOKENS: u32 = 512;
/// Rows per step of an embedding model, whose inputs must fit whole.
const EMBED_BATCH_TOKENS_MAX: u32 = 2048;
/// Waiting requests unless told otherwise.
const QUEUE_DEFAULT: u32 = 128;
/// Most waiting requests: each costs memory, and who waits behind so many has left.
const QUEUE_MAX: u32 = 10_000;
/// Prefixes that nobody computes with are kept outside the KV cache, in this much memory, bytes.
const STORE_BYTES_MAX: u64 = 256 << 20;
/// How long idle compute threads poll before they sleep (ggml's scale of 0 to 100).
pub(crate) const POLL: u32 = 50;
/// Buffers of llama.cpp beside weights and KV cache, bytes: graphs, thread stacks, small tensors.
pub(crate) const OVERHEAD_BYTES: u64 = 64 << 20;

/// Where a model's weights are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A GGUF file; any part of a multi-part model stands for all.
    Path(PathBuf),
    /// A whole GGUF file in memory.
    Bytes(&'static [u8]),
}

/// What proposes tokens ahead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Draft {
    /// Nothing.
    None,
    /// Prompt lookup: what followed the same words earlier in the text.
    #[default]
    Auto,
    /// A smaller model with the same vocabulary.
    Path(PathBuf),
}

/// What to load, and with what room. `None` leaves the choice to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Name under which it is served; default: the file's stem.
    pub name: Option<String>,
    /// Where it is.
    pub source: ModelSource,
    /// Tokens that all running sequences share, and the most that one can have.
    pub context_tokens: Option<u32>,
    /// Sequences that run at the same time.
    pub slots: Option<u32>,
    /// Layers on the GPU; default: all, where there is one. How many fit: [`place`](super::place).
    pub gpu_layers: Option<u32>,
    /// Device by name.
    pub device: Option<String>,
    /// Speculation.
    pub draft: Draft,
    /// Compute threads; default: one per physical core.
    pub threads: Option<u32>,
    /// Requests that may wait for a slot.
    pub queue_max: Option<u32>,
}

impl LoadOptions {
    /// Defaults for `source`.
    #[must_use]
    pub fn new(source: ModelSource) -> Self {
        Self {
            name: None,
            source,
            context_tokens: None,
            slots: None,
            gpu_layers: None,
            device: None,
            draft: Draft::default(),
            threads: None,
            queue_max: None,
        }
    }
}

/// The header of a model and what follows from it.
pub(super) struct Header {
    pub(super) gguf: gguf::Model,
    pub(super) name: String,
    pub(super) room: Room,
    pub(super) purpose: Purpose,
}

/// Sizes, everything decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) context_tokens: u32,
    pub(super) slots: u32,
    pub(super) sequences: u32,
    pub(super) batch_tokens: u32,
    pub(super) threads: u32,
    pub(super) queue_max: u32,
    /// Tokens that are kept outside the KV cache.
    pub(super) stored_tokens: u32,
}

/// Memory that a model takes, bytes: weights, KV cache, buffers, and the draft model's.
///
/// # Errors
/// [`Error::Load`] if the file is damaged or can't be understood.
pub fn memory_needed(options: &LoadOptions) -> Result<u64, Error> {
    let header = Header::read(options)?;
    let mut bytes = header.memory_bytes()?;
    if let Some(draft) = header.draft(options)? {
        bytes = bytes.saturating_add(draft.memory_bytes()?);
    }
    Ok(bytes)
}

/// The room that every part of a split model needs, for the last part at `options.source`. Threads,
/// GPU layers and device are this machine's.
///
/// # Errors
/// As [`memory_needed`].
pub fn stage_options(options: &LoadOptions) -> Result<StageOptions, Error> {
    Ok(Header::read(options)?.stage_options(options))
}

impl Header {
    /// Reads the header of `options.source` and settles the sizes.
    pub(super) fn read(options: &LoadOptions) -> Result<Self, Error> {
        let load = |e: &dyn std::fmt::Display| Error::Load(e.to_string());
        let (gguf, stem) = match &options.source {
            ModelSource::Path(path) => (gguf::Model::open(path).map_err(|e| load(&e))?, stem(path)),
            ModelSource::Bytes(bytes) => {
                let parts = [(PathBuf::from("embedded model"), *bytes)];
                (
                    gguf::Model::read(parts).map_err(|e| load(&e))?,
                    "embedded".to_owned(),
                )
            }
        };
        let name = options.name.clone().unwrap_or(stem);
        let purpose = Purpose::of(gguf.metadata())?;
        let trained = gguf
            .metadata()
            .context_length()
            .map_err(|e| load(&e))?
            .max(1);
        let weights = gguf.tensor_bytes().map_err(|e| load(&e))?;
        let kv_token_bytes = gguf.metadata().kv_bytes_per_token().unwrap_or(0);
        let context_tokens = match options.context_tokens {
            Some(0) => return Err(Error::invalid("context size", "must be at least 1")),
            Some(tokens) => tokens,
            None => default_context(trained, weights, kv_token_bytes),
        };
        let slots = options.slots.unwrap_or(SLOTS_DEFAULT).clamp(1, SLOTS_MAX);
        let batch_tokens = if purpose.embeds() {
            context_tokens.min(EMBED_BATCH_TOKENS_MAX)
        } else {
            BATCH_TOKENS.min(context_tokens).max(slots)
        };
        let room = Room {
            context_tokens,
            slots,
            sequences: slots.max(SEQUENCES_MIN),
            batch_tokens,
            threads: options.threads.unwrap_or_else(threads_default).max(1),
            queue_max: options.queue_max.unwrap_or(QUEUE_DEFAULT).min(QUEUE_MAX),
            stored_tokens: stored_tokens(context_tokens, kv_token_bytes),
        };
        Ok(Self {
            gguf,
            name,
            room,
            purpose,
        })
    }

    /// The header of the model that drafts for this one, if there is one.
    pub(super) fn draft(&self, options: &LoadOptions) -> Result<Option<Self>, Error> {
        let Draft::Path(path) = &options.draft else {
            return Ok(None);
        };
        let mut draft = LoadOptions::new(ModelSource::Path(path.clone()));
        draft.context_tokens = Some(self.room.context_tokens);
        draft.draft = Draft::None;
        Self::read(&draft).map(Some)
    }

    /// Room for the parts of a model, this header being the last one's.
    pub(super) fn stage_options(&self, options: &LoadOptions) -> StageOptions {
        StageOptions {
            kv_tokens: self.room.context_tokens,
            sequences: self.room.sequences,
            rows_max: self.room.batch_tokens,
            outputs_max: self.room.outputs_max(),
            threads: Some(self.room.threads),
            gpu_layers: options.gpu_layers,
            device: options.device.clone(),
        }
    }

    fn memory_bytes(&self) -> Result<u64, Error> {
        let load = |e: gguf::KeyError| Error::Load(e.to_string());
        let weights = self.gguf.tensor_bytes().map_err(load)?;
        // Saturating: the numbers are a file's, and may be anything.
        let kv_token_bytes = self.gguf.metadata().kv_bytes_per_token().unwrap_or(0);
        let kv_tokens = u64::from(self.room.context_tokens) + u64::from(self.room.stored_tokens);
        let kv = kv_token_bytes.saturating_mul(kv_tokens);
        let parts = [weights, kv, self.buffer_bytes()?];
        Ok(parts.into_iter().fold(0, u64::saturating_add))
    }

    /// Memory beside weights and KV cache, about, bytes.
    pub(super) fn buffer_bytes(&self) -> Result<u64, Error> {
        let width = self.gguf.metadata().embedding_length();
        let width = u64::from(width.map_err(|e| Error::Load(e.to_string()))?);
        let vocabulary = self.gguf.metadata().vocab_size().unwrap_or(0);
        // Logits of the output rows, and activations of a batch: about 16 rows of the model's width.
        let outputs = (u64::from(self.room.outputs_max()) * 4).saturating_mul(vocabulary);
        let activations = u64::from(self.room.batch_tokens) * width * 4 * 16;
        let parts = [outputs, activations, OVERHEAD_BYTES];
        Ok(parts.into_iter().fold(0, u64::saturating_add))
    }
}

impl Room {
    /// Most rows of one step that give logits.
    pub(super) fn outputs_max(&self) -> u32 {
        (self.slots * (DRAFT_TOKENS_MAX as u32 + 1)).min(self.batch_tokens)
    }

    /// A context of this size.
    pub(super) fn context(&self, model: &Model, purpose: Purpose) -> Result<Context, Error> {
        let embeddings = purpose.embeds();
        let params = ContextParams {
            kv_tokens: self.context_tokens,
            batch_tokens_max: self.batch_tokens,
            outputs_max: if embeddings {
                self.batch_tokens
            } else {
                self.outputs_max()
            },
            sequences_max: self.sequences,
            threads: self.threads,
            poll: POLL,
            kv_type: KvType::F16,
            embeddings,
        };
        let context = match purpose {
            Purpose::Text => Context::new(model, params),
            Purpose::Vectors(pooling) => Context::with_pooling(model, params, pooling),
        };
        let context = context.map_err(|e| Error::Load(e.to_string()))?;
        if purpose == Purpose::Text && !context.keeps_sequences() {
            return Err(Error::Load(
                "the model does not write a text token by token (it keeps nothing of what it has \
                 read), so it is not served; hint: take another one"
                    .into(),
            ));
        }
        Ok(context)
    }
}

/// Metadata of layers whose products have a third dimension: latent attention has heads there,
/// convolutions and recurrent layers have sequences.
const BATCHED_PRODUCTS: [&str; 5] = [
    "attention.key_length_mla",
    "ssm.",
    "shortconv.",
    "wkv.",
    "kda.",
];

/// Whether weights must stay as they are in the file. With a third dimension llama.cpp's kernels for
/// AMX abort, or read and write at wrong places: `ggml_backend_amx_mul_mat` takes the weights of the
/// next head or sequence behind those of the first, and offsets in bytes for offsets in floats.
fn keeps_layout(metadata: &gguf::Metadata) -> bool {
    let Ok(architecture) = metadata.architecture() else {
        return false;
    };
    metadata.iter().any(|(key, _)| {
        let key = key.strip_prefix(architecture);
        let key = key.and_then(|rest| rest.strip_prefix('.'));
        key.is_some_and(|key| BATCHED_PRODUCTS.iter().any(|start| key.starts_with(start)))
    })
}

/// Loads the weights at `source`, memory-mapped.
pub(crate) fn load_weights(
    source: &ModelSource,
    gguf: &gguf::Model,
    options: &LoadOptions,
    on_progress: &mut dyn FnMut(f32),
) -> Result<Model, Error> {
    let params = ModelParams {
        gpu_layers: options.gpu_layers,
        device: options.device.clone(),
        vocabulary_only: false,
        keep_layout: keeps_layout(gguf.metadata()),
    };
    let load = |paths: &[PathBuf], on_progress: &mut dyn FnMut(f32)| {
        let model = Model::load(paths, &params, |share| {
            on_progress(share);
            true
        })
        .map_err(|e| Error::Load(e.to_string()))?;
        // Those that are known are refused by their headers.
        if model.has_encoder() {
            let architecture = gguf.metadata().architecture().unwrap_or("unknown");
            return Err(purpose::has_encoder(architecture));
        }
        Ok(model)
    };
    match source {
        ModelSource::Path(_) => {
            let paths: Vec<PathBuf> = gguf.parts().iter().map(|p| p.name.clone()).collect();
            load(&paths, on_progress)
        }
        ModelSource::Bytes(bytes) => {
            // llama.cpp maps files. The name is gone right after loading; the mapping stays.
            let write = || {
                let mut file = tempfile::Builder::new().suffix(".gguf").tempfile()?;
                file.write_all(bytes)?;
                file.flush()?;
                Ok(file)
            };
            let file = write().map_err(|e: std::io::Error| {
                Error::Load(format!(
                    "the embedded model can't be written to a temporary file: {e}"
                ))
            })?;
            load(&[file.path().to_path_buf()], on_progress)
        }
    }
}

fn default_context(trained: u32, weights: u64, kv_token_bytes: u64) -> u32 {
    let mut tokens = trained.min(CONTEXT_TOKENS_DEFAULT);
    let kv_bytes_max = weights.max(KV_BYTES_SMALL);
    while tokens / 2 >= CONTEXT_TOKENS_SMALL
        && u64::from(tokens).saturating_mul(kv_token_bytes) > kv_bytes_max
    {
        tokens /= 2;
    }
    tokens
}

/// Tokens that fit into the memory for prefixes; no more than the cache itself has. None where the
/// price of a token is unknown.
fn stored_tokens(context_tokens: u32, kv_token_bytes: u64) -> u32 {
    let tokens = STORE_BYTES_MAX.checked_div(kv_token_bytes).unwrap_or(0);
    u32::try_from(tokens).map_or(context_tokens, |tokens| tokens.min(context_tokens))
}

/// Compute threads where nobody says otherwise: one per physical core that this process may use.
#[must_use]
pub fn threads_default() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(num_cpus::get_physical().min(allowed)).unwrap_or(1)
}

fn stem(path: &Path) -> String {
    let stem = path
        .file_stem()
        .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    // NAME-00001-of-00003.gguf is called NAME.
    match gguf::PartName::of(path) {
        Some(_) => stem
            .get(..stem.len().saturating_sub("-00001-of-00001".len()))
            .map(str::to_owned),
        None => None,
    }
    .filter(|s| !s.is_empty())
    .unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_context_follows_training_and_weights() {
        assert_eq!(default_context(2048, 1 << 20, 1000), 2048);
        assert_eq!(default_context(131_072, 1 << 20, 1000), 32 << 10);
        // 128 KiB a token: 1 GiB holds 8192.
        assert_eq!(default_context(131_072, 1 << 20, 128 << 10), 8192);
        assert_eq!(default_context(131_072, 4 << 30, 128 << 10), 32 << 10);
        assert_eq!(default_context(131_072, 1 << 20, 10 << 20), 4096);
    }

    #[test]
    fn absurd_headers_saturate() {
        assert_eq!(default_context(u32::MAX, u64::MAX, u64::MAX), 32 << 10);
        assert_eq!(default_context(u32::MAX, 0, u64::MAX), 4096);
    }

    #[test]
    fn parts_are_called_by_their_common_name() {
        assert_eq!(stem(Path::new("/m/big-00002-of-00003.gguf")), "big");
        assert_eq!(stem(Path::new("/m/small.gguf")), "small");
    }
}
