//! Owns synthetic models: what shape they have and how they become a GGUF file. The weights are
//! random, so the text is noise; sizes, tokenizer and structure are those of real models.
//!
//! The same spec gives the same bytes on every machine.

mod architecture;
mod metadata;
mod tensors;
mod tokenizer;
mod weights;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use gguf::{Plan, Pooling, WriteError};

pub use architecture::Architecture;
pub use tokenizer::{CHATML, END_OF_TEXT, FIRST_SPECIAL, IM_END, IM_START, MERGES};
pub use weights::{WeightType, quantize_q8_0};

/// Buffer in front of the file, in bytes: as large as the pieces in which weights are made.
const FILE_BUFFER_BYTES: usize = 1 << 20;

/// The matrix that makes logits of a hidden state.
const OUTPUT: &str = "output.weight";

/// Shape, weights and tokenizer of a synthetic model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Which graph llama.cpp builds for it.
    pub architecture: Architecture,
    /// `general.name`.
    pub name: String,
    /// Number of layers.
    pub layers: u32,
    /// Layers behind those that only draft tokens (MTP); used by the architectures that have them.
    pub draft_layers: u32,
    /// Width of the hidden state, in elements.
    pub width: u32,
    /// Attention heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements of one head's key and value.
    pub head_length: u32,
    /// Width of a dense feed-forward layer, in elements.
    pub feed_forward: u32,
    /// Experts; used by the architectures that have them.
    pub experts: Experts,
    /// Sliding window in tokens; used by the architectures that have one.
    pub window: u32,
    /// Tokens in the vocabulary: 256 bytes, merges, special tokens, and made-up words.
    pub vocab: u32,
    /// Context length that the file states, in tokens.
    pub context: u32,
    /// How matrices are stored. Vectors are always F32.
    pub weights: WeightType,
    /// True when the output matrix is the token embedding.
    pub tied_output: bool,
    /// How hidden states become one vector, as the file says; `None`: it says nothing of it.
    pub pooling: Option<Pooling>,
    /// Jinja template of chats, or none.
    pub chat_template: Option<String>,
    /// Seed of all weights.
    pub seed: u64,
    /// The text that the model writes goes round in loops of so many tokens. `None`: it is noise. Such a model computes
    /// as much as any other; it needs an output matrix of its own, and rows of an even length.
    pub loop_tokens: Option<u32>,
}

/// Shape of a mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// Experts in a layer.
    pub count: u32,
    /// Experts that see a token.
    pub used: u32,
    /// Width of one expert's feed-forward layer, in elements.
    pub feed_forward: u32,
}

impl ModelSpec {
    /// A model of a few hundred kilobytes: 4 layers, width 64, 640 tokens, context 512, F32.
    #[must_use]
    pub fn tiny(architecture: Architecture) -> Self {
        Self {
            architecture,
            // Not the architecture: llama.cpp asks some names ("phi3") for tokens of their own.
            name: "tiny".to_owned(),
            layers: 4,
            draft_layers: 0,
            width: 64,
            heads: 4,
            kv_heads: if architecture.is_bert() { 4 } else { 2 },
            head_length: 16,
            feed_forward: 128,
            experts: Experts {
                count: 4,
                used: 2,
                feed_forward: 32,
            },
            window: 16,
            vocab: 640,
            context: 512,
            weights: WeightType::F32,
            tied_output: architecture == Architecture::Gemma2,
            pooling: architecture.pooling(),
            chat_template: (!architecture.is_embedding()).then(|| CHATML.to_owned()),
            seed: 1,
            loop_tokens: None,
        }
    }

    /// A model with the shape of a half-billion-parameter one: 24 layers, width 896, Q8_0, 441 MB.
    #[must_use]
    pub fn bench_half_billion() -> Self {
        Self {
            architecture: Architecture::Qwen3,
            name: "bench-random".to_owned(),
            layers: 24,
            width: 896,
            heads: 14,
            kv_heads: 2,
            head_length: 64,
            feed_forward: 4864,
            vocab: 32_000,
            context: 8192,
            weights: WeightType::Q8_0,
            ..Self::tiny(Architecture::Qwen3)
        }
    }

    /// The same, whose text goes round in loops of so many tokens.
    #[must_use]
    pub fn bench_loops(tokens: u32) -> Self {
        Self {
            // What differs in weights alone would pass for the same model.
            name: "bench-loops".to_owned(),
            loop_tokens: Some(tokens),
            ..Self::bench_half_billion()
        }
    }

    /// The file's metadata and tensor table, without weights.
    ///
    /// # Errors
    /// When the shape cannot be stored, for instance rows that the weight type cannot hold.
    pub fn plan(&self) -> Result<Plan, WriteError> {
        let mut plan = Plan::new(metadata::of(self))?;
        for tensor in tensors::of(self) {
            plan.add(&tensor.name, &tensor.dims, tensor.ggml_type(self.weights))?;
        }
        Ok(plan)
    }

    /// Writes the model into a sink. Holds about 1 MiB of it at once.
    ///
    /// # Errors
    /// As [`ModelSpec::plan`], and when the sink fails.
    pub fn write_into<W: Write>(&self, sink: W) -> Result<W, WriteError> {
        let mut writer = self.plan()?.start(sink)?;
        for tensor in tensors::of(self) {
            writer.stream(&tensor.name, |out| {
                match (tensor.name.as_str(), self.loop_tokens) {
                    (OUTPUT, Some(tokens)) => weights::write_loops(self, tokens, out),
                    _ => weights::write(&tensor, self, out),
                }
            })?;
        }
        writer.finish()
    }

    /// The whole file in memory.
    ///
    /// # Errors
    /// As [`ModelSpec::plan`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, WriteError> {
        self.write_into(Vec::new())
    }
}

/// Writes a model file. It gets its name only when it is complete.
///
/// # Errors
/// When the shape cannot be stored or the file cannot be written.
pub fn write(spec: &ModelSpec, path: impl AsRef<Path>) -> Result<(), WriteError> {
    let path = path.as_ref();
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let file = BufWriter::with_capacity(FILE_BUFFER_BYTES, File::create(&partial)?);
    let written = spec.write_into(file).and_then(|file| {
        drop(
            file.into_inner()
                .map_err(std::io::IntoInnerError::into_error)?,
        );
        Ok(fs::rename(&partial, path)?)
    });
    if written.is_err() {
        // The first error is the one to report; a file left behind is only untidy.
        let _ = fs::remove_file(&partial);
    }
    written
}
