//! Slices whose weights are made up from a model's headers alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod whole;

use std::fs::File;

use gguf::{GgmlType, Header, LayerMap, Model, Prefix, SliceError, SlicePlan, SliceRole};
use testkit::model::{Architecture, ModelSpec};

/// A model as one knows it who has its headers alone.
fn headers(spec: &ModelSpec) -> Model {
    let plan = spec.plan().unwrap();
    let header = plan.header_bytes().unwrap();
    let source = Prefix {
        bytes: &header,
        total: Some(header.len() as u64 + plan.data_bytes()),
    };
    Model::read([("headers".into(), source)]).unwrap()
}

fn made_up(plan: &SlicePlan) -> Result<Vec<u8>, SliceError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made-up.gguf");
    plan.write_made_up(&File::create_new(&path).unwrap())?;
    Ok(std::fs::read(path).unwrap())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let fours = bytes.as_chunks::<4>().0.iter();
    fours.map(|four| f32::from_le_bytes(*four)).collect()
}

/// Not all alike, and on both sides of zero.
#[track_caller]
fn check_noise(numbers: &[f32], what: &str) {
    assert!(numbers.iter().all(|n| (0.03..0.07).contains(&n.abs())));
    for side in [1.0, -1.0] {
        let of_side: Vec<_> = numbers.iter().filter(|n| n.signum() == side).collect();
        assert!(of_side.iter().any(|n| *n != of_side[0]), "{what} {side}");
    }
}

#[test]
fn headers_are_enough_for_a_stage_of_the_true_shape() {
    let splittable = Architecture::ALL.iter().filter(|a| !a.is_embedding());
    for &architecture in splittable {
        let model = headers(&ModelSpec::tiny(architecture));
        let map = LayerMap::of(&model).unwrap();
        // The last ones: the first layer of some mixtures has no experts.
        let start = *map.cuts().last().unwrap();
        let plan = map.plan(start..map.layers(), SliceRole::Stage).unwrap();
        let bytes = made_up(&plan).unwrap();
        assert_eq!(bytes.len() as u64, plan.file_bytes(), "{architecture}");
        let header = Header::read(&bytes).unwrap();
        assert_eq!(&header.metadata, plan.metadata(), "{architecture}");
        assert_eq!(header.tensors, plan.tensors(), "{architecture}");
        let mut routers = 0;
        for tensor in &header.tensors {
            let what = format!("{architecture} {}", tensor.name);
            let range = header.file_range(tensor).unwrap();
            let data = &bytes[range.start as usize..range.end as usize];
            assert_eq!(tensor.ggml_type, GgmlType::F32, "{what}");
            if tensor.name.ends_with("ffn_gate_inp.weight") {
                routers += 1;
                check_noise(&floats(data), &what);
            } else if tensor.name.ends_with("norm.weight") {
                assert!(floats(data).iter().all(|n| *n == 1.0), "{what}");
            } else if !tensor.name.contains("ffn_gate_inp") {
                assert!(data.iter().all(|byte| *byte == 0), "{what}");
            }
        }
        assert_eq!(routers > 0, architecture.has_experts(), "{architecture}");
        assert!(made_up(&plan).unwrap() == bytes, "{architecture}");
    }
}

/// What is made up for a router and for a matrix of these types, in a model that has factors of rotary positions.
fn special(router: GgmlType, matrix: GgmlType) -> Result<[Vec<u8>; 3], SliceError> {
    let mut rows = whole::rows(2);
    let width = whole::WIDTH;
    rows.push(("blk.1.ffn_gate_inp.weight".into(), vec![width, 64], router));
    rows.push(("blk.1.ffn_up_exps.weight".into(), vec![width, 64], matrix));
    let files = vec![whole::file(whole::metadata("llama", 2), &rows)];
    let model = whole::open(&files);
    let plan = LayerMap::of(&model).unwrap().plan(1..2, SliceRole::Stage)?;
    let bytes = made_up(&plan)?;
    let header = Header::read(&bytes).unwrap();
    Ok(["ffn_gate_inp", "ffn_up_exps", "rope_freqs"].map(|part| {
        let mut tensors = header.tensors.iter();
        let tensor = tensors.find(|tensor| tensor.name.contains(part)).unwrap();
        let range = header.file_range(tensor).unwrap();
        bytes[range.start as usize..range.end as usize].to_vec()
    }))
}

#[test]
fn routers_are_the_same_in_every_type_of_single_numbers() {
    let router = |ggml_type| special(ggml_type, GgmlType::Q8_0).map(|[router, ..]| router);
    let numbers = floats(&router(GgmlType::F32).unwrap());
    check_noise(&numbers, "F32");
    let halves = |ggml_type| {
        let bytes = router(ggml_type).unwrap();
        let twos = bytes.as_chunks::<2>().0.iter();
        twos.map(|two| u16::from_le_bytes(*two)).collect::<Vec<_>>()
    };
    let bf16 = halves(GgmlType::BF16).into_iter();
    let bf16: Vec<_> = bf16.map(|n| f32::from_bits(u32::from(n) << 16)).collect();
    assert_eq!(bf16, numbers);
    let f16 = halves(GgmlType::F16).into_iter().map(|n| {
        let sign = if n >> 15 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from((n >> 10) & 31) - 15;
        sign * (1.0 + f32::from(n & 1023) / 1024.0) * 2f32.powi(exponent)
    });
    assert_eq!(f16.collect::<Vec<_>>(), numbers);
    let error = router(GgmlType::Q8_0).unwrap_err().to_string();
    assert!(
        error.contains("ffn_gate_inp") && error.contains("Q8_0"),
        "{error}"
    );
}

#[test]
fn angles_stay_numbers_and_scales_are_not_too_small_to_be_fast() {
    for matrix in [GgmlType::Q8_0, GgmlType::MXFP4] {
        let [_, matrix_bytes, rotary] = special(GgmlType::F32, matrix).unwrap();
        assert_eq!(floats(&rotary), [1.0; 4]);
        if matrix == GgmlType::MXFP4 {
            let mut blocks = matrix_bytes.chunks(17);
            assert_eq!(blocks.len(), 64);
            let mut wanted = [0u8; 17];
            wanted[0] = 127;
            assert!(blocks.all(|block| block == wanted));
        } else {
            assert!(matrix_bytes.iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_made_up_slice_is_large_and_takes_little_of_the_disk() {
    use std::os::unix::fs::MetadataExt;

    let model = headers(&ModelSpec::bench_half_billion());
    let map = LayerMap::of(&model).unwrap();
    let plan = map.plan(12..13, SliceRole::Stage).unwrap();
    let file = tempfile::tempfile().unwrap();
    plan.write_made_up(&file).unwrap();
    let found = file.metadata().unwrap();
    assert_eq!(found.len(), plan.file_bytes());
    assert!(found.len() > map.layer_bytes()[12] && found.len() > 10 << 20);
    assert!(found.blocks() * 512 < found.len() / 8, "{}", found.blocks());
}
