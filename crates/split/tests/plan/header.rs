//! Shapes from headers agree with what the files hold.

use gguf::{GgmlType, Metadata, Model};
use split::plan::{ModelShape, Room, WindowCache};
use testkit::model::{Architecture, ModelSpec};

fn open(spec: &ModelSpec) -> Model {
    Model::read([("in memory".into(), spec.to_bytes().unwrap())]).unwrap()
}

fn shape(model: &Model, windows: WindowCache) -> ModelShape {
    ModelShape::from_model(model, Some(1), windows).unwrap()
}

#[test]
fn no_byte_is_lost() {
    for &architecture in Architecture::ALL {
        let model = open(&ModelSpec::tiny(architecture));
        let shape = shape(&model, WindowCache::Full);
        assert_eq!(
            shape.weight_bytes(),
            model.tensor_bytes().unwrap(),
            "{architecture}"
        );
        let parts = shape.parts();
        assert_eq!(parts.width, 64);
        assert_eq!(parts.cuts, [1, 2, 3]);
        let kv: u64 = parts.layers.iter().map(|layer| layer.kv_token_bytes).sum();
        let wanted = model.metadata().kv_bytes_per_token().unwrap();
        // Layers with linear attention keep a state of constant size, which the sum over all layers misses.
        let linear = matches!(architecture, Architecture::Qwen35 | Architecture::Qwen35Moe);
        assert_eq!(kv < wanted, linear, "{architecture}");
        assert!(kv <= wanted, "{architecture}");
        let read_less = parts
            .layers
            .iter()
            .any(|layer| layer.active_bytes < layer.weight_bytes);
        assert_eq!(read_less, architecture.has_experts(), "{architecture}");
    }
}

#[test]
fn a_tied_head_is_read_but_kept_once() {
    for tied_output in [false, true] {
        let spec = ModelSpec {
            tied_output,
            ..ModelSpec::tiny(Architecture::Qwen3)
        };
        let shape = shape(&open(&spec), WindowCache::Full);
        let parts = shape.parts();
        let table = 64 * 640 * 4;
        assert_eq!(parts.embedding_bytes, table);
        assert_eq!(parts.head_bytes >= table, !tied_output);
        assert!(parts.head_active_bytes >= table);
    }
}

#[test]
fn without_a_period_there_are_no_cuts() {
    let model = open(&ModelSpec::tiny(Architecture::Llama));
    let shape = ModelShape::from_model(&model, None, WindowCache::Full).unwrap();
    assert!(shape.parts().cuts.is_empty());
    let shape = ModelShape::from_model(&model, Some(2), WindowCache::Full).unwrap();
    assert_eq!(shape.parts().cuts, [2]);
}

#[test]
fn windows_bound_the_cache_where_it_is_bounded() {
    let model = open(&ModelSpec::tiny(Architecture::Gemma2));
    let room = Room {
        context_tokens: 8192,
        sequences: 2,
    };
    for (windows, tokens) in [
        (WindowCache::Full, [8192, 8192]),
        // The window of 16 and a batch of 512, for each of two sequences.
        (WindowCache::Window, [2 * 528, 8192]),
    ] {
        let shape = shape(&model, windows);
        for (layer, tokens) in shape.parts().layers.iter().zip(tokens) {
            // Two heads of 16, keys and values, two bytes each.
            assert_eq!(layer.kv_bytes(room), tokens * 2 * 16 * 2 * 2);
        }
    }
}

/// Six layers, every third with full attention, and a last one that only predicts.
fn linear_attention() -> Model {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "qwen35moe");
    for (key, value) in [
        ("block_count", 7u32),
        ("nextn_predict_layers", 1),
        ("embedding_length", 64),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("attention.key_length", 32),
        ("attention.value_length", 32),
        ("full_attention_interval", 3),
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", 128),
        ("ssm.state_size", 16),
        ("ssm.group_count", 2),
        ("expert_count", 8),
        ("expert_used_count", 2),
    ] {
        metadata.set(format!("qwen35moe.{key}"), value);
    }
    let mut plan = gguf::Plan::new(metadata).unwrap();
    for layer in 0..7 {
        let name = format!("blk.{layer}.ffn_up_exps.weight");
        plan.add(&name, &[64, 16, 8], GgmlType::F16).unwrap();
    }
    let mut header = plan.header_bytes().unwrap();
    let data = 7 * 64 * 16 * 8 * 2;
    header.resize(header.len().next_multiple_of(32) + data, 0);
    Model::read([("in memory".into(), header)]).unwrap()
}

#[test]
fn linear_attention_keeps_a_state_and_no_tokens() {
    let shape = shape(&linear_attention(), WindowCache::Full);
    assert_eq!(shape.layer_count(), 6);
    let state = (3 * (128 + 2 * 2 * 16) + 16 * 128) * 4;
    for (index, layer) in shape.parts().layers.iter().enumerate() {
        let full = (index + 1) % 3 == 0;
        assert_eq!(layer.state_bytes, if full { 0 } else { state });
        assert_eq!(layer.kv_token_bytes, if full { 2 * 64 * 2 } else { 0 });
        assert_eq!(layer.active_bytes * 4, layer.weight_bytes);
    }
}

#[test]
fn a_tensor_beyond_the_last_layer_is_an_error() {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "qwen3");
    for (key, value) in [
        ("block_count", 1u32),
        ("embedding_length", 64),
        ("attention.head_count", 4),
    ] {
        metadata.set(format!("qwen3.{key}"), value);
    }
    let mut plan = gguf::Plan::new(metadata).unwrap();
    plan.add("blk.1.x.weight", &[64], GgmlType::F32).unwrap();
    let mut file = plan.header_bytes().unwrap();
    file.resize(file.len().next_multiple_of(32) + 256, 0);
    let model = Model::read([("in memory".into(), file)]).unwrap();
    let error = ModelShape::from_model(&model, Some(1), WindowCache::Full).unwrap_err();
    assert!(error.to_string().contains("blk.1.x.weight"), "{error}");
}
