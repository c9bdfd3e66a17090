//! Any well-formed model comes back from its slices, byte for byte; any damaged one gives slices
//! that can be read, or an error.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mutation;
#[path = "../fuzz/fuzz_targets/slicing.rs"]
mod slicing;
mod whole;

use std::collections::BTreeMap;

use gguf::{GgmlType, Header, LayerMap, Metadata, SliceRole, SplitArchitecture, Value};
use mutation::{Random, mutate};
use proptest::prelude::*;
use testkit::model::{Architecture, ModelSpec};
use whole::{Rows, WIDTH};

/// The header of a synthetic model with a vocabulary of a few tokens, so that damage hits the
/// keys and names that slicing looks at, and zeros for its weights.
fn seed(architecture: Architecture) -> Vec<u8> {
    let spec = ModelSpec {
        vocab: 300,
        draft_layers: 1,
        ..ModelSpec::tiny(architecture)
    };
    let plan = spec.plan().unwrap();
    let mut metadata = plan.metadata().clone();
    for key in ["tokens", "token_type", "merges"] {
        metadata.remove(&format!("tokenizer.ggml.{key}"));
    }
    let shrink = |dims: &[u64]| match dims {
        [row, rest @ ..] => [&[*row], vec![1; rest.len()].as_slice()].concat(),
        [] => Vec::new(),
    };
    let tensors = plan.tensors().iter();
    let rows: Rows = tensors
        .map(|t| (t.name.clone(), shrink(&t.dims), t.ggml_type))
        .collect();
    whole::file(metadata, &rows)
}

#[test]
fn five_thousand_mutations_give_slices_or_an_error() {
    let architectures = Architecture::ALL.iter().filter(|a| !a.is_bert());
    let seeds: Vec<_> = architectures.map(|&a| seed(a)).collect();
    let mut random = Random(2);
    let mut planned = 0;
    for i in 0..5_000 {
        let mut file = seeds[i % seeds.len()].clone();
        mutate(&mut random, &mut file);
        planned += slicing::check(&file);
    }
    // Some changes do no harm; were there none, nothing behind the header would be tried.
    assert!(planned > 1_000, "{planned} slices were planned");
    for seed in &seeds {
        assert!(slicing::check(seed) > 0);
    }
}

/// A model of any supported architecture, in any order, over any number of files.
#[derive(Debug, Clone)]
struct Whole {
    metadata: Metadata,
    rows: Rows,
    parts: Option<usize>,
    drafting: u32,
}

fn wholes() -> impl Strategy<Value = Whole> {
    (1u32..9, 0u32..3).prop_flat_map(|(layers, drafting)| {
        let blocks = layers + drafting;
        let tensor = (
            "[a-z_]{1,8}\\.(weight|bias)",
            prop::collection::vec(1u64..4, 0..3),
            prop::sample::select(vec![GgmlType::F32, GgmlType::Q4_0, GgmlType::BF16]),
        );
        let layer = prop::collection::btree_map(tensor.0, (tensor.1, tensor.2), 1..4);
        (
            prop::sample::select(SplitArchitecture::all()),
            prop::collection::vec(layer, blocks as usize),
            prop::collection::vec(any::<u32>(), blocks as usize),
            prop::collection::vec(any::<bool>(), blocks as usize),
            prop::option::of(1usize..5),
            prop::option::of(0u32..5),
            any::<prop::sample::Index>(),
        )
            .prop_map(move |(arch, layers, numbers, kinds, parts, period, turn)| {
                let mut metadata = whole::metadata(arch.name, blocks);
                let mut set = |suffix: &str, value: Value| {
                    metadata.set(format!("{}.{suffix}", arch.name), value);
                };
                set("nextn_predict_layers", drafting.into());
                set("feed_forward_length", numbers.into());
                set("leading_dense_block_count", period.unwrap_or(1).into());
                set("attention.sliding_window", 8u32.into());
                if let Some(period) = period {
                    set("attention.sliding_window_pattern", period.into());
                    set("full_attention_interval", period.max(1).into());
                } else {
                    set("attention.sliding_window_pattern", kinds.clone().into());
                    set("attention.recurrent_layers", kinds.into());
                }
                let mut rows = rows(&layers);
                let middle = turn.index(rows.len());
                rows.rotate_left(middle);
                Whole {
                    metadata,
                    rows,
                    parts,
                    drafting,
                }
            })
    })
}

type Layer = BTreeMap<String, (Vec<u64>, GgmlType)>;

fn rows(layers: &[Layer]) -> Rows {
    let mut rows = whole::rows(0);
    for (i, layer) in layers.iter().enumerate() {
        for (name, (dims, ggml_type)) in layer {
            let row = WIDTH * dims.first().copied().unwrap_or(1);
            let dims = [&[row], dims.get(1..).unwrap_or_default()].concat();
            rows.push((format!("blk.{i}.{name}"), dims, *ggml_type));
        }
    }
    rows
}

proptest! {
    #[test]
    fn all_slices_together_hold_the_whole_model(whole in wholes()) {
        let files = match whole.parts {
            Some(parts) => whole::files(&whole.metadata, &whole.rows, parts),
            None => vec![whole::file(whole.metadata.clone(), &whole.rows)],
        };
        let model = whole::open(&files);
        let map = LayerMap::of(&model).unwrap();
        let mut found: Vec<String> = Vec::new();
        let mut numbers = Vec::new();
        let mut start = 0;
        for &end in map.cuts().iter().chain([&map.layers()]) {
            let role = if end == map.layers() { SliceRole::Tail } else { SliceRole::Stage };
            let slice = gguf::slice(&files, start..end, role, Vec::new()).unwrap();
            let header = Header::read(&slice).unwrap();
            let layers = u64::from(end - start);
            prop_assert_eq!(u64::from(header.metadata.block_count().unwrap()), layers);
            numbers.extend(header.metadata.per_layer("feed_forward_length").unwrap());
            for tensor in &header.tensors {
                let name = match tensor.layer() {
                    Some(layer) => {
                        let rest = tensor.name.splitn(3, '.').last().unwrap();
                        format!("blk.{}.{rest}", layer + start)
                    }
                    None if role == SliceRole::Tail || tensor.name == "rope_freqs.weight" => tensor.name.clone(),
                    None => continue,
                };
                let range = header.file_range(tensor).unwrap();
                let bytes = &slice[range.start as usize..range.end as usize];
                prop_assert!(bytes == whole::data(&name, bytes.len() as u64), "{}", name);
                if tensor.layer().is_some() || role == SliceRole::Tail {
                    found.push(name);
                }
            }
            start = end;
        }
        found.sort();
        let drafting = |name: &str| {
            let layer = name.strip_prefix("blk.").and_then(|n| n.split('.').next()?.parse::<u32>().ok());
            layer.is_some_and(|l| l >= map.layers())
        };
        let mut wanted: Vec<_> = whole.rows.iter().map(|r| r.0.clone()).filter(|n| !drafting(n)).collect();
        wanted.sort();
        prop_assert_eq!(found, wanted);
        let all = whole.metadata.per_layer("feed_forward_length").unwrap();
        prop_assert_eq!(&numbers[..], &all[..all.len() - whole.drafting as usize]);
    }
}
