//! Owns the metadata of synthetic models: the keys that llama.cpp asks for, per architecture.

use gguf::{Metadata, Pooling, Value};

use super::ModelSpec;
use super::architecture::Architecture;
use super::tensors::{COMPRESSED, FULL_ATTENTION_INTERVAL, LEADING_DENSE, LINEAR, drafting};
use super::tokenizer;

/// Layers of which one in so many sees everything and the others a window.
const WINDOW_PERIOD: u32 = 2;
/// How `expert_gating_func` names a sigmoid.
const GATING_SIGMOID: u32 = 2;

pub(crate) fn of(spec: &ModelSpec) -> Metadata {
    let mut m = Metadata::new();
    m.set("general.architecture", spec.architecture.gguf_name());
    m.set("general.name", spec.name.as_str());
    m.set("general.file_type", spec.weights.file_type());
    add_shape(spec, &mut m);
    add_specials(spec, &mut m);
    tokenizer::add(spec, &mut m);
    m
}

/// Sets `{architecture}.{suffix}`.
fn set(spec: &ModelSpec, m: &mut Metadata, suffix: &str, value: impl Into<Value>) {
    m.set(format!("{}.{suffix}", spec.architecture.gguf_name()), value);
}

/// Keys that every architecture has.
fn add_shape(spec: &ModelSpec, m: &mut Metadata) {
    let compressed = spec.architecture == Architecture::Deepseek2;
    set(spec, m, "vocab_size", spec.vocab);
    set(spec, m, "context_length", spec.context);
    set(spec, m, "embedding_length", spec.width);
    let drafting = drafting(spec);
    set(spec, m, "block_count", spec.layers + drafting);
    if drafting > 0 {
        set(spec, m, "nextn_predict_layers", drafting);
    }
    set(spec, m, "feed_forward_length", spec.feed_forward);
    set(spec, m, "attention.head_count", spec.heads);
    // Compressed attention caches one head for all.
    set(
        spec,
        m,
        "attention.head_count_kv",
        if compressed { 1 } else { spec.kv_heads },
    );
    if spec.architecture.is_bert() {
        set(spec, m, "attention.layer_norm_epsilon", 1e-6f32);
        set(spec, m, "attention.causal", false);
        add_pooling(spec, m);
    } else {
        set(spec, m, "attention.layer_norm_rms_epsilon", 1e-6f32);
    }
    if compressed {
        add_compressed(spec, m);
    } else {
        set(spec, m, "attention.key_length", spec.head_length);
        set(spec, m, "attention.value_length", spec.head_length);
        let half = matches!(
            spec.architecture,
            Architecture::Glm4 | Architecture::Glm4Moe
        );
        let rotary = if half {
            spec.head_length / 2
        } else {
            spec.head_length
        };
        set(spec, m, "rope.dimension_count", rotary);
    }
    set(spec, m, "rope.freq_base", 1e6f32);
}

/// How hidden states become one vector, as llama.cpp numbers it.
fn add_pooling(spec: &ModelSpec, m: &mut Metadata) {
    let number: u32 = match spec.pooling {
        None => return,
        Some(Pooling::None) => 0,
        Some(Pooling::Mean) => 1,
        Some(Pooling::Cls) => 2,
        Some(Pooling::Last) => 3,
        Some(Pooling::Rank) => 4,
    };
    set(spec, m, "pooling_type", number);
}

fn add_compressed(spec: &ModelSpec, m: &mut Metadata) {
    let c = COMPRESSED;
    set(spec, m, "attention.q_lora_rank", c.query_rank);
    set(spec, m, "attention.kv_lora_rank", c.kv_rank);
    set(spec, m, "attention.key_length", c.kv_rank + c.rotary);
    set(spec, m, "attention.value_length", c.kv_rank);
    set(spec, m, "attention.key_length_mla", c.plain + c.rotary);
    set(spec, m, "attention.value_length_mla", c.value);
    set(spec, m, "rope.dimension_count", c.rotary);
}

fn add_linear(spec: &ModelSpec, m: &mut Metadata) {
    let l = LINEAR;
    set(spec, m, "full_attention_interval", FULL_ATTENTION_INTERVAL);
    set(spec, m, "ssm.conv_kernel", l.conv_kernel);
    set(spec, m, "ssm.state_size", l.head_length);
    set(spec, m, "ssm.group_count", l.key_heads);
    set(spec, m, "ssm.time_step_rank", l.value_heads);
    set(spec, m, "ssm.inner_size", l.head_length * l.value_heads);
    // Rotary pairs that follow time, height and width of an image; in text all three are one.
    let pairs = (spec.head_length / 2) as i32;
    let third = (pairs + 2) / 3;
    set(
        spec,
        m,
        "rope.dimension_sections",
        vec![third, third, pairs - 2 * third, 0],
    );
}

/// Keys of experts, windows, soft caps and pooling.
fn add_specials(spec: &ModelSpec, m: &mut Metadata) {
    if spec.architecture.has_experts() {
        set(spec, m, "expert_count", spec.experts.count);
        set(spec, m, "expert_used_count", spec.experts.used);
        // Experts of `llama` have the width of the dense layer.
        if spec.architecture != Architecture::LlamaExperts {
            set(
                spec,
                m,
                "expert_feed_forward_length",
                spec.experts.feed_forward,
            );
        }
    }
    if spec.architecture.has_window() {
        set(spec, m, "attention.sliding_window", spec.window);
    }
    match spec.architecture {
        Architecture::Gemma2 => {
            set(spec, m, "attn_logit_softcapping", 50.0f32);
            set(spec, m, "final_logit_softcapping", 30.0f32);
        }
        Architecture::Gemma3 => {
            set(spec, m, "attention.sliding_window_pattern", WINDOW_PERIOD);
            set(spec, m, "rope.freq_base_swa", 1e4f32);
        }
        Architecture::Deepseek2 => {
            set(spec, m, "leading_dense_block_count", LEADING_DENSE);
            set(spec, m, "expert_shared_count", 1u32);
            set(spec, m, "expert_weights_scale", 1.0f32);
        }
        Architecture::Qwen35 => add_linear(spec, m),
        Architecture::Qwen35Moe => {
            add_linear(spec, m);
            let shared = spec.experts.feed_forward;
            set(spec, m, "expert_shared_feed_forward_length", shared);
        }
        Architecture::Glm4Moe => {
            set(spec, m, "leading_dense_block_count", LEADING_DENSE);
            set(spec, m, "expert_shared_count", 1u32);
            set(spec, m, "expert_weights_scale", 1.0f32);
            set(spec, m, "expert_weights_norm", true);
            set(spec, m, "expert_gating_func", GATING_SIGMOID);
        }
        Architecture::Mistral3 => {
            set(spec, m, "attention.temperature_scale", 0.1f32);
            // The temperature takes a step every so many tokens.
            let step = spec.window;
            set(spec, m, "rope.scaling.original_context_length", step);
        }
        _ => {}
    }
    if !spec.architecture.is_bert() {
        add_pooling(spec, m);
    }
}
