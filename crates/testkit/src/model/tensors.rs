//! Owns which tensors each architecture has, with names and shapes as llama.cpp's loader wants
//! them. Values are made in `weights`.

use gguf::GgmlType;

use super::ModelSpec;
use super::architecture::Architecture;
use super::weights::WeightType;

/// Token types that a BERT model knows.
pub(crate) const TOKEN_TYPES: u32 = 2;
/// Layers of a `deepseek2` or `glm4moe` model before the first one with experts.
pub(crate) const LEADING_DENSE: u32 = 1;
/// Layers of a hybrid model of which the last has full attention and the others a linear one.
/// Real ones have 4; with 2 a model of four layers has a place to be cut.
pub(crate) const FULL_ATTENTION_INTERVAL: u32 = 2;

/// Sizes of compressed attention, in elements. Real ones are 16 times as large; these are the
/// smallest whose rows Q8_0 can hold.
pub(crate) struct Compressed {
    pub(crate) query_rank: u32,
    pub(crate) kv_rank: u32,
    /// Part of a head's key without and with rotary positions.
    pub(crate) plain: u32,
    pub(crate) rotary: u32,
    pub(crate) value: u32,
}

pub(crate) const COMPRESSED: Compressed = Compressed {
    query_rank: 32,
    kv_rank: 32,
    plain: 32,
    rotary: 32,
    value: 32,
};

/// Sizes of linear attention (gated delta net), in elements or heads.
pub(crate) struct Linear {
    /// Elements of a head's query, key and value.
    pub(crate) head_length: u32,
    /// Heads of queries and keys; divides the heads of values.
    pub(crate) key_heads: u32,
    pub(crate) value_heads: u32,
    /// Tokens that the convolution in front of it looks at.
    pub(crate) conv_kernel: u32,
}

pub(crate) const LINEAR: Linear = Linear {
    head_length: 32,
    key_heads: 2,
    value_heads: 4,
    conv_kernel: 4,
};

/// What a tensor's values look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Random, stored in the model's weight type.
    Matrix,
    /// As a matrix, always F32.
    FloatMatrix,
    /// As a matrix, with smaller values.
    Embedding,
    /// Close to one, F32.
    Norm,
    /// Close to zero, F32 (also matrices that llama.cpp wants in F32).
    Bias,
    /// Close to minus one, F32: how fast a state fades.
    Decay,
}

/// One tensor to be.
#[derive(Debug, Clone)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    /// Row length first.
    pub(crate) dims: Vec<u64>,
    pub(crate) kind: Kind,
}

impl TensorSpec {
    /// How it is stored in a model of this weight type. Rows that blocks do not divide fall back
    /// to F16, as they do when llama.cpp quantizes.
    pub(crate) fn ggml_type(&self, weights: WeightType) -> GgmlType {
        let wanted = weights.ggml_type();
        let row = self.dims.first().copied().unwrap_or(1);
        match self.kind {
            Kind::FloatMatrix | Kind::Norm | Kind::Bias | Kind::Decay => GgmlType::F32,
            _ if wanted.block().is_none_or(|b| row % b.elements != 0) => GgmlType::F16,
            Kind::Matrix | Kind::Embedding => wanted,
        }
    }
}

/// Collects tensors in file order.
struct Table {
    prefix: String,
    tensors: Vec<TensorSpec>,
}

impl Table {
    fn add(&mut self, name: &str, dims: &[u32], kind: Kind) {
        let name = format!("{}{name}", self.prefix);
        let dims = dims.iter().map(|&d| d.into()).collect();
        self.tensors.push(TensorSpec { name, dims, kind });
    }

    fn matrix(&mut self, name: &str, dims: &[u32]) {
        self.add(&format!("{name}.weight"), dims, Kind::Matrix);
    }

    fn norm(&mut self, name: &str, length: u32) {
        self.add(&format!("{name}.weight"), &[length], Kind::Norm);
    }

    fn bias(&mut self, name: &str, dims: &[u32]) {
        self.add(&format!("{name}.bias"), dims, Kind::Bias);
    }

    /// A norm with a bias, as BERT has.
    fn full_norm(&mut self, name: &str, length: u32) {
        self.norm(name, length);
        self.bias(name, &[length]);
    }
}

/// All tensors of a model, in file order.
pub(crate) fn of(spec: &ModelSpec) -> Vec<TensorSpec> {
    let mut table = Table {
        prefix: String::new(),
        tensors: Vec::new(),
    };
    table.add(
        "token_embd.weight",
        &[spec.width, spec.vocab],
        Kind::Embedding,
    );
    if spec.architecture.is_bert() {
        // llama.cpp adds rows of these as they are, so they stay F32.
        table.add("token_types.weight", &[spec.width, TOKEN_TYPES], Kind::Bias);
        if spec.architecture == Architecture::Bert {
            table.add(
                "position_embd.weight",
                &[spec.width, spec.context],
                Kind::Bias,
            );
        }
        table.full_norm("token_embd_norm", spec.width);
    }
    for layer in 0..spec.layers + drafting(spec) {
        table.prefix = format!("blk.{layer}.");
        if spec.architecture.is_bert() {
            add_bert_layer(spec, &mut table);
        } else {
            table.norm("attn_norm", spec.width);
            add_attention(spec, layer, &mut table);
            add_feed_forward(spec, layer, &mut table);
            if layer >= spec.layers {
                add_drafting(spec.width, &mut table);
            }
        }
    }
    table.prefix.clear();
    if !spec.architecture.is_bert() {
        table.norm("output_norm", spec.width);
        if !spec.tied_output {
            table.matrix("output", &[spec.width, spec.vocab]);
        }
    }
    table.tensors
}

/// How many layers only draft.
pub(crate) fn drafting(spec: &ModelSpec) -> u32 {
    if spec.architecture.may_draft() {
        spec.draft_layers
    } else {
        0
    }
}

/// What turns a hidden state and a token into the input of a layer that drafts.
fn add_drafting(width: u32, table: &mut Table) {
    table.matrix("nextn.eh_proj", &[2 * width, width]);
    table.norm("nextn.enorm", width);
    table.norm("nextn.hnorm", width);
    table.norm("nextn.shared_head_norm", width);
}

fn add_bert_layer(spec: &ModelSpec, table: &mut Table) {
    let (width, ff) = (spec.width, spec.feed_forward);
    let with_bias = spec.architecture == Architecture::Bert;
    let mut linear = |name: &str, from: u32, to: u32| {
        table.matrix(name, &[from, to]);
        if with_bias {
            table.bias(name, &[to]);
        }
    };
    for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
        linear(name, width, width);
    }
    linear("ffn_up", width, ff);
    linear("ffn_down", ff, width);
    if !with_bias {
        linear("ffn_gate", width, ff);
    }
    table.full_norm("attn_output_norm", width);
    table.full_norm("layer_output_norm", width);
}

fn add_attention(spec: &ModelSpec, layer: u32, table: &mut Table) {
    use Architecture::{
        Deepseek2, Gemma2, Gemma3, Glm4, Glm4Moe, GptOss, Qwen3, Qwen3Embedding, Qwen3Moe, Qwen35,
        Qwen35Moe,
    };
    let (width, arch) = (spec.width, spec.architecture);
    if matches!(
        arch,
        Gemma2 | Gemma3 | Glm4 | Glm4Moe | GptOss | Qwen35 | Qwen35Moe
    ) {
        table.norm("post_attention_norm", width);
    }
    // Layers that draft have full attention.
    let linear = arch.has_linear_attention() && layer < spec.layers;
    if linear && !(layer + 1).is_multiple_of(FULL_ATTENTION_INTERVAL) {
        return add_linear_attention(width, table);
    }
    if arch == Deepseek2 {
        return add_compressed_attention(spec, table);
    }
    add_projections(spec, table);
    if matches!(
        arch,
        Qwen3 | Qwen3Embedding | Qwen3Moe | Qwen35 | Qwen35Moe | Gemma3 | Glm4Moe
    ) {
        table.norm("attn_q_norm", spec.head_length);
        table.norm("attn_k_norm", spec.head_length);
    }
    table.matrix("attn_output", &[spec.heads * spec.head_length, width]);
    if arch == GptOss {
        table.bias("attn_output", &[width]);
        table.add("attn_sinks.weight", &[spec.heads], Kind::Bias);
    }
}

/// Queries, keys and values.
fn add_projections(spec: &ModelSpec, table: &mut Table) {
    use Architecture::{Glm4, Glm4Moe, GptOss, Phi3, Qwen2};
    let (width, arch) = (spec.width, spec.architecture);
    let q = spec.heads * spec.head_length;
    let kv = spec.kv_heads * spec.head_length;
    if arch == Phi3 {
        table.matrix("attn_qkv", &[width, q + 2 * kv]);
        return;
    }
    // Beside linear attention, each query comes with a gate of the same size.
    let gates = if arch.has_linear_attention() { q } else { 0 };
    table.matrix("attn_q", &[width, q + gates]);
    table.matrix("attn_k", &[width, kv]);
    table.matrix("attn_v", &[width, kv]);
    if matches!(arch, Qwen2 | Glm4 | Glm4Moe | GptOss) {
        table.bias("attn_q", &[q]);
        table.bias("attn_k", &[kv]);
        table.bias("attn_v", &[kv]);
    }
}

fn add_linear_attention(width: u32, table: &mut Table) {
    let l = LINEAR;
    let (keys, values) = (l.key_heads * l.head_length, l.value_heads * l.head_length);
    let mixed = 2 * keys + values;
    table.matrix("attn_qkv", &[width, mixed]);
    table.matrix("attn_gate", &[width, values]);
    // llama.cpp's convolution reads F32 only.
    table.add(
        "ssm_conv1d.weight",
        &[l.conv_kernel, mixed],
        Kind::FloatMatrix,
    );
    table.bias("ssm_dt", &[l.value_heads]);
    table.add("ssm_a", &[l.value_heads], Kind::Decay);
    table.matrix("ssm_alpha", &[width, l.value_heads]);
    table.matrix("ssm_beta", &[width, l.value_heads]);
    table.norm("ssm_norm", l.head_length);
    table.matrix("ssm_out", &[values, width]);
}

fn add_compressed_attention(spec: &ModelSpec, table: &mut Table) {
    let (width, heads, c) = (spec.width, spec.heads, COMPRESSED);
    table.matrix("attn_q_a", &[width, c.query_rank]);
    table.norm("attn_q_a_norm", c.query_rank);
    table.matrix("attn_q_b", &[c.query_rank, heads * (c.plain + c.rotary)]);
    table.matrix("attn_kv_a_mqa", &[width, c.kv_rank + c.rotary]);
    table.norm("attn_kv_a_norm", c.kv_rank);
    // F32 whatever the weight type: on CPUs with AMX, llama.cpp 0.1.161 puts other types of these
    // two where its own graph cannot use them, and aborts.
    table.add(
        "attn_k_b.weight",
        &[c.plain, c.kv_rank, heads],
        Kind::FloatMatrix,
    );
    table.add(
        "attn_v_b.weight",
        &[c.kv_rank, c.value, heads],
        Kind::FloatMatrix,
    );
    table.matrix("attn_output", &[heads * c.value, width]);
}

fn add_feed_forward(spec: &ModelSpec, layer: u32, table: &mut Table) {
    let (width, ff, arch) = (spec.width, spec.feed_forward, spec.architecture);
    // In these the norm after attention is the norm before the feed-forward layer.
    let one_norm = matches!(
        arch,
        Architecture::GptOss
            | Architecture::Qwen35
            | Architecture::Qwen35Moe
            | Architecture::Glm4Moe
    );
    if !one_norm {
        table.norm("ffn_norm", width);
    }
    let leading =
        matches!(arch, Architecture::Deepseek2 | Architecture::Glm4Moe) && layer < LEADING_DENSE;
    match arch {
        _ if arch.has_experts() && !leading => add_experts(spec, table),
        Architecture::Phi3 | Architecture::Glm4 => {
            table.matrix("ffn_up", &[width, 2 * ff]);
            table.matrix("ffn_down", &[ff, width]);
        }
        _ => {
            table.matrix("ffn_gate", &[width, ff]);
            table.matrix("ffn_up", &[width, ff]);
            table.matrix("ffn_down", &[ff, width]);
        }
    }
    if matches!(
        arch,
        Architecture::Gemma2 | Architecture::Gemma3 | Architecture::Glm4
    ) {
        table.norm("post_ffw_norm", width);
    }
}

fn add_experts(spec: &ModelSpec, table: &mut Table) {
    let (width, arch, count) = (spec.width, spec.architecture, spec.experts.count);
    let dense_width = arch == Architecture::LlamaExperts;
    let ff = if dense_width {
        spec.feed_forward
    } else {
        spec.experts.feed_forward
    };
    // The router decides which experts run; it stays F32 in every real model.
    table.add("ffn_gate_inp.weight", &[width, count], Kind::Bias);
    table.matrix("ffn_gate_exps", &[width, ff, count]);
    table.matrix("ffn_up_exps", &[width, ff, count]);
    table.matrix("ffn_down_exps", &[ff, width, count]);
    if arch == Architecture::GptOss {
        table.bias("ffn_gate_inp", &[count]);
        table.bias("ffn_gate_exps", &[ff, count]);
        table.bias("ffn_up_exps", &[ff, count]);
        table.bias("ffn_down_exps", &[width, count]);
    }
    if arch == Architecture::Glm4Moe {
        table.bias("exp_probs_b", &[count]);
    }
    if arch == Architecture::Qwen35Moe {
        table.add("ffn_gate_inp_shexp.weight", &[width], Kind::Bias);
    }
    if matches!(
        arch,
        Architecture::Deepseek2 | Architecture::Glm4Moe | Architecture::Qwen35Moe
    ) {
        table.matrix("ffn_gate_shexp", &[width, ff]);
        table.matrix("ffn_up_shexp", &[width, ff]);
        table.matrix("ffn_down_shexp", &[ff, width]);
    }
}
