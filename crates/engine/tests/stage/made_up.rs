//! Stages whose weights are made up can be run: a time of numbers that are none would tell nothing of the true layers.

use std::fs::File;

use engine::stage::{StageBatch, StageRunner};
use gguf::{GgmlType, LayerMap, Model, Prefix, SliceRole};
use testkit::model::{Architecture, ModelSpec, WeightType};

const ROWS: usize = 40;

fn check(architecture: Architecture, weights: WeightType) {
    let what = format!("{architecture} {weights:?}");
    let spec = ModelSpec {
        weights,
        ..ModelSpec::tiny(architecture)
    };
    let plan = spec.plan().unwrap();
    let header = plan.header_bytes().unwrap();
    let source = Prefix {
        bytes: &header,
        total: Some(header.len() as u64 + plan.data_bytes()),
    };
    let model = Model::read([("headers".into(), source)]).unwrap();
    let map = LayerMap::of(&model).unwrap();
    let start = *map.cuts().last().unwrap();
    let plan = map.plan(start..map.layers(), SliceRole::Stage).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made-up.gguf");
    plan.write_made_up(&File::create_new(&path).unwrap())
        .unwrap();
    let mut stage = StageRunner::open(&path, &crate::options()).unwrap();
    let width = stage.width();
    for (from, count) in [(0, ROWS), (ROWS, 1), (ROWS + 1, 1)] {
        let hidden: Vec<f32> = (0..count * width)
            .map(|i| ((i * 7 + from) % 17) as f32 / 17.0 - 0.5)
            .collect();
        let positions: Vec<i32> = (from..from + count).map(|at| at as i32).collect();
        let batch = StageBatch {
            hidden: &hidden,
            positions: &positions,
            sequences: &vec![0; count],
        };
        let out = stage.run(&batch).unwrap();
        assert_eq!(out.len(), hidden.len(), "{what}");
        assert!(out.iter().all(|value| value.is_finite()), "{what} {from}");
    }
}

#[test]
fn made_up_layers_of_every_architecture_compute_finite_numbers() {
    let splittable = Architecture::ALL.iter().filter(|a| !a.is_embedding());
    for &architecture in splittable {
        for weights in [WeightType::F32, WeightType::Q8_0] {
            check(architecture, weights);
        }
    }
}

#[test]
fn bytes_of_zero_are_zeros_in_every_type_that_ggml_turns_into_floats() {
    let mut turned = 0;
    for ggml_type in GgmlType::KNOWN {
        let block = ggml_type.block().unwrap();
        let mut out = vec![1.0; block.elements as usize];
        let zeros = vec![0; block.bytes as usize];
        if llama::dequantize(ggml_type.id(), &zeros, &mut out).is_ok() {
            turned += 1;
            assert!(out.iter().all(|value| *value == 0.0), "{ggml_type}");
        }
    }
    assert!(turned > 20, "{turned}");
}
