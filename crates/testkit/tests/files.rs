//! Synthetic model files: readable, repeatable, and of the promised shape.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use gguf::{Header, Model, Pooling};
use testkit::model::{self, Architecture, ModelSpec, WeightType};

#[test]
fn every_architecture_gives_a_readable_model() {
    for &architecture in Architecture::ALL {
        for weights in [WeightType::F32, WeightType::F16, WeightType::Q8_0] {
            let spec = ModelSpec {
                weights,
                ..ModelSpec::tiny(architecture)
            };
            let bytes = spec.to_bytes().unwrap();
            let model = Model::read([("m".into(), bytes.as_slice())]).unwrap();
            let m = model.metadata();
            assert_eq!(m.architecture().unwrap(), architecture.gguf_name());
            assert_eq!(m.block_count().unwrap(), spec.layers);
            assert_eq!(m.vocab_size().unwrap(), u64::from(spec.vocab));
            assert_eq!(
                m.quantization(),
                Some(weights.ggml_type().to_string().as_str())
            );
            assert!(m.kv_bytes_per_token().unwrap() > 0);
            let embeds = m.pooling().unwrap().is_some_and(|p| p != Pooling::None);
            assert_eq!(embeds, architecture.is_embedding(), "{architecture}");
            let stored = model
                .tensor("blk.1.attn_output.weight")
                .unwrap()
                .info
                .ggml_type;
            assert_eq!(stored, weights.ggml_type(), "{architecture}");
        }
    }
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    let bytes = |spec: &ModelSpec| spec.to_bytes().unwrap();
    let spec = ModelSpec::tiny(Architecture::Qwen3);
    let first = bytes(&spec);
    assert!(first == bytes(&spec));
    let other = bytes(&ModelSpec { seed: 2, ..spec });
    assert!(first != other && first.len() == other.len());
}

#[test]
fn a_layer_does_not_depend_on_how_many_there_are() {
    let layer_of = |layers| {
        let bytes = ModelSpec {
            layers,
            ..ModelSpec::tiny(Architecture::Llama)
        }
        .to_bytes()
        .unwrap();
        let header = Header::read(&bytes).unwrap();
        let range = header
            .file_range(header.tensor("blk.1.ffn_up.weight").unwrap())
            .unwrap();
        bytes[range.start as usize..range.end as usize].to_vec()
    };
    assert!(layer_of(2) == layer_of(5));
}

#[test]
fn the_bench_model_has_its_promised_size() {
    let plan = ModelSpec::bench_half_billion().plan().unwrap();
    let total = plan.data_bytes() + plan.header_bytes().unwrap().len() as u64;
    assert_eq!(total / 1_000_000, 441);
    assert_eq!(plan.tensors().len(), 24 * 11 + 3);
}

#[test]
fn a_written_file_is_complete_and_leaves_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let spec = ModelSpec::tiny(Architecture::Phi3);
    model::write(&spec, &path).unwrap();
    assert!(std::fs::read(&path).unwrap() == spec.to_bytes().unwrap());
    // More tensors than a file may have, so nothing of it is written.
    let bad = ModelSpec {
        layers: 100_000,
        ..spec
    };
    assert!(model::write(&bad, folder.path().join("bad.gguf")).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn names_of_architectures_parse() {
    for &architecture in Architecture::ALL {
        assert_eq!(architecture.name().parse(), Ok(architecture));
    }
    assert!("qwen9".parse::<Architecture>().is_err());
}
