//! Slices: what they hold, byte for byte, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod whole;

use std::ops::Range;

use gguf::{
    Array, GgmlType, Header, LayerMap, Model, PieceOrigin, SliceOrigin, SliceRole,
    SplitArchitecture, Value,
};
use testkit::model::{Architecture, ModelSpec};
use whole::Files;

use SliceRole::{Stage, Tail};

/// Plans a slice, checks what the plan promises against the file it writes, and returns the file.
fn cut(files: &Files, range: Range<u32>, role: SliceRole) -> Vec<u8> {
    let model = whole::open(files);
    let map = LayerMap::of(&model).unwrap();
    let plan = map.plan(range.clone(), role).unwrap();
    let mut told = Vec::new();
    let bytes = plan
        .write(files, Vec::new(), |done| {
            told.push(done);
            true
        })
        .unwrap();
    assert_eq!(bytes.len() as u64, plan.file_bytes());
    assert!(bytes.starts_with(&plan.header().unwrap()));
    assert!(told.is_sorted());
    assert_eq!(
        told.last().copied().unwrap_or_default(),
        plan.copied_bytes()
    );

    let layers = &map.layer_bytes()[range.start as usize..range.end as usize];
    let head = if role == Tail { map.head_bytes() } else { 0 };
    assert_eq!(
        plan.copied_bytes(),
        layers.iter().sum::<u64>() + map.shared_bytes() + head
    );
    check_ranges(&plan, files, &bytes);
    let header = Header::read(&bytes).unwrap();
    assert_eq!(&header.metadata, plan.metadata());
    assert_eq!(header.tensors, plan.tensors());
    assert_eq!(
        SliceOrigin::of(&header.metadata).unwrap().unwrap(),
        SliceOrigin {
            model: model.fingerprint(),
            layers: range,
            model_layers: map.layers(),
            role,
        }
    );
    bytes
}

/// Builds the file from the plan's ranges alone, as one that fetches them would.
fn check_ranges(plan: &gguf::SlicePlan, files: &Files, wanted: &[u8]) {
    let ranges = plan.ranges();
    let mut found = plan.header().unwrap();
    found.resize(plan.file_bytes() as usize, 0);
    for piece in plan.pieces() {
        let target = piece.target.start as usize..piece.target.end as usize;
        match &piece.origin {
            PieceOrigin::Copy(copy) => {
                let holds = |r: &gguf::FileRange| {
                    r.part == copy.part
                        && r.bytes.start <= copy.bytes.start
                        && copy.bytes.end <= r.bytes.end
                };
                assert!(ranges.iter().any(holds), "{copy:?} is in no range");
                let source = copy.bytes.start as usize..copy.bytes.end as usize;
                found[target].copy_from_slice(&files[copy.part][source]);
            }
            PieceOrigin::Ones => found[target]
                .as_chunks_mut::<4>()
                .0
                .iter_mut()
                .for_each(|f| *f = 1f32.to_le_bytes()),
            _ => {}
        }
    }
    assert!(found == wanted);
}

fn tensor<'f>(file: &'f [u8], name: &str) -> &'f [u8] {
    let header = Header::read(file).unwrap();
    let info = header
        .tensor(name)
        .unwrap_or_else(|| panic!("no tensor {name:?}"));
    let range = header.file_range(info).unwrap();
    &file[range.start as usize..range.end as usize]
}

fn names(file: &[u8]) -> Vec<String> {
    let header = Header::read(file).unwrap();
    header.tensors.into_iter().map(|t| t.name).collect()
}

#[test]
fn a_stage_holds_its_layers_and_nothing_of_the_head() {
    let files = whole::simple("llama", 4);
    let stage = cut(&files, 1..3, Stage);
    assert_eq!(
        names(&stage),
        [
            "token_embd.weight",
            "output_norm.weight",
            "rope_freqs.weight",
            "blk.0.attn_norm.weight",
            "blk.0.ffn_up.weight",
            "blk.1.attn_norm.weight",
            "blk.1.ffn_up.weight",
        ]
    );
    let m = Header::read(&stage).unwrap().metadata;
    assert_eq!(m.block_count().unwrap(), 2);
    assert_eq!(m.vocab_size().unwrap(), 1);
    assert_eq!(m.str("tokenizer.ggml.model").unwrap(), "no_vocab");
    assert_eq!(m.chat_template(), None);
    assert_eq!(m.name(), Some("whole"));
    assert!(tensor(&stage, "token_embd.weight") == [0; 128]);
    assert!(tensor(&stage, "output_norm.weight") == 1f32.to_le_bytes().repeat(32));
    for (new, old) in [(0, 1), (1, 2)] {
        for rest in ["attn_norm.weight", "ffn_up.weight"] {
            let (new, old) = (format!("blk.{new}.{rest}"), format!("blk.{old}.{rest}"));
            assert!(tensor(&stage, &new) == tensor(&files[0], &old), "{old}");
        }
    }
    assert!(tensor(&stage, "rope_freqs.weight") == tensor(&files[0], "rope_freqs.weight"));
}

#[test]
fn a_tail_keeps_tokenizer_embedding_and_head() {
    let files = whole::simple("qwen2", 4);
    let tail = cut(&files, 3..4, Tail);
    let m = Header::read(&tail).unwrap().metadata;
    assert_eq!(m.block_count().unwrap(), 1);
    assert_eq!(m.vocab_size().unwrap(), 4);
    assert_eq!(m.str("tokenizer.ggml.model").unwrap(), "gpt2");
    assert_eq!(m.chat_template(), Some("{{ messages }}"));
    for name in ["token_embd.weight", "output_norm.weight", "output.weight"] {
        assert!(tensor(&tail, name) == tensor(&files[0], name), "{name}");
    }
    assert!(tensor(&tail, "blk.0.ffn_up.weight") == tensor(&files[0], "blk.3.ffn_up.weight"));
    assert_eq!(names(&tail).len(), 6);
}

#[test]
fn one_file_and_parts_give_the_same_slices() {
    let (m, rows) = (whole::metadata("qwen3", 5), whole::rows(5));
    let one = vec![whole::file(m.clone(), &rows)];
    for parts in 1..5 {
        let many = whole::files(&m, &rows, parts);
        assert_eq!(Header::read(&many[0]).unwrap().tensors.len(), 0);
        for (range, role) in [(0..2, Stage), (2..4, Stage), (4..5, Tail), (0..5, Tail)] {
            assert!(cut(&one, range.clone(), role) == cut(&many, range, role));
        }
    }
}

#[test]
fn all_of_a_model_is_the_model() {
    let all = |files: &Files| {
        let model = whole::open(files);
        let map = LayerMap::of(&model).unwrap();
        assert!(map.plan(1..map.layers(), SliceRole::Whole).is_err());
        let plan = map.plan(0..map.layers(), SliceRole::Whole).unwrap();
        let file = plan.write(files, Vec::new(), |_| true).unwrap();
        check_ranges(&plan, files, &file);
        let again = whole::open(&vec![file.clone()]);
        assert_eq!(again.fingerprint(), model.fingerprint());
        // It can be split like any other.
        assert!(LayerMap::of(&again).is_ok());
        file
    };
    let (m, rows) = (whole::metadata("qwen3", 5), whole::rows(5));
    let one = vec![whole::file(m.clone(), &rows)];
    assert!(all(&one) == one[0]);
    for parts in 1..5 {
        assert!(all(&whole::files(&m, &rows, parts)) == one[0], "{parts}");
    }
    // Layers that only draft are no slice's, and the model's all the same.
    let spec = ModelSpec {
        draft_layers: 1,
        ..ModelSpec::tiny(Architecture::Qwen3)
    };
    let drafting = vec![spec.to_bytes().unwrap()];
    assert!(all(&drafting) == drafting[0]);
}

#[test]
fn slices_of_files_are_those_of_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let files = whole::files(&whole::metadata("llama", 3), &whole::rows(3), 2);
    let path = |i: usize| {
        folder
            .path()
            .join(format!("m-{:05}-of-{:05}.gguf", i + 1, files.len()))
    };
    for (i, file) in files.iter().enumerate() {
        std::fs::write(path(i), file).unwrap();
    }
    let model = Model::open(path(1)).unwrap();
    let plan = LayerMap::of(&model).unwrap().plan(1..3, Tail).unwrap();
    let sources = model.open_sources().unwrap();
    let bytes = plan.write(&sources, Vec::new(), |_| true).unwrap();
    assert!(bytes == cut(&files, 1..3, Tail));
    assert!(bytes == gguf::slice(&files, 1..3, Tail, Vec::new()).unwrap());
    std::fs::remove_file(path(2)).unwrap();
    let error = model.open_sources().unwrap_err().to_string();
    assert!(error.contains("m-00003"), "{error}");
}

#[test]
fn every_synthetic_model_comes_back_from_its_slices() {
    let mut seen = Vec::new();
    for &architecture in Architecture::ALL.iter().filter(|a| !a.is_bert()) {
        for draft_layers in [0, 1] {
            let spec = ModelSpec {
                layers: 8,
                draft_layers,
                ..ModelSpec::tiny(architecture)
            };
            let files = vec![spec.to_bytes().unwrap()];
            let model = whole::open(&files);
            let map = LayerMap::of(&model).unwrap();
            assert_eq!(map.layers(), 8, "{architecture}");
            assert_eq!(map.width(), 64);
            let mut ends = map.cuts().to_vec();
            ends.push(8);
            let mut start = 0;
            let mut slices = Vec::new();
            for end in ends {
                let role = if end == 8 { Tail } else { Stage };
                slices.push((start, cut(&files, start..end, role)));
                start = end;
            }
            check_whole(&files[0], &slices, draft_layers);
            seen.push(architecture.gguf_name());
        }
    }
    let missing: Vec<_> = SplitArchitecture::all()
        .iter()
        .filter(|a| !seen.contains(&a.name))
        .collect();
    assert!(missing.is_empty(), "no synthetic model of {missing:?}");
}

/// Every tensor of the whole is in one slice, unchanged; only drafting layers are in none.
fn check_whole(file: &[u8], slices: &[(u32, Vec<u8>)], draft_layers: u32) {
    let header = Header::read(file).unwrap();
    let drafting = 8..8 + draft_layers;
    let mut found = 0;
    for (start, slice) in slices {
        let last = Some(start) == slices.last().map(|(s, _)| s);
        for t in Header::read(slice).unwrap().tensors {
            let name = match t.layer() {
                Some(layer) => {
                    let rest = t.name.splitn(3, '.').last().unwrap();
                    format!("blk.{}.{rest}", layer + start)
                }
                None if last => t.name.clone(),
                None => continue,
            };
            found += 1;
            assert!(tensor(slice, &t.name) == tensor(file, &name), "{name}");
        }
    }
    let wanted = header
        .tensors
        .iter()
        .filter(|t| !t.layer().is_some_and(|l| drafting.contains(&l)));
    assert_eq!(found, wanted.count());
}

#[test]
fn metadata_that_count_layers_are_cut() {
    let check =
        |arch: &str, suffix: &str, value: Value, range: Range<u32>, wanted: Option<Value>| {
            let key = format!("{arch}.{suffix}");
            let mut m = whole::metadata(arch, 8);
            m.set(key.as_str(), value);
            let drafting = m.u32(&format!("{arch}.nextn_predict_layers")).unwrap_or(0);
            let role = if range.end + drafting == 8 {
                Tail
            } else {
                Stage
            };
            let files = vec![whole::file(m, &whole::rows(8))];
            let slice = Header::read(&cut(&files, range.clone(), role)).unwrap();
            assert_eq!(slice.metadata.get(&key), wanted.as_ref(), "{key} {range:?}");
        };
    let numbers = |range: Range<u32>| Value::from(range.collect::<Vec<u32>>());
    for suffix in [
        "attention.head_count_kv",
        "feed_forward_length",
        "expert_used_count",
    ] {
        check(
            "llama",
            suffix,
            numbers(10..18),
            2..5,
            Some(numbers(12..15)),
        );
        check("llama", suffix, 7u32.into(), 2..5, Some(7u32.into()));
    }
    let heads = Value::from(vec![3i32; 8]);
    check(
        "qwen3",
        "attention.head_count",
        heads,
        6..8,
        Some(vec![3i32; 2].into()),
    );
    check(
        "qwen3moe",
        "expert_feed_forward_length",
        numbers(0..8),
        1..2,
        Some(numbers(1..2)),
    );
    check(
        "gpt-oss",
        "expert_feed_forward_length",
        numbers(0..8),
        4..8,
        Some(numbers(4..8)),
    );
    // One that the loader of this architecture does not read by layers stays as it is.
    check(
        "llama",
        "rope.dimension_sections",
        numbers(0..8),
        1..2,
        Some(numbers(0..8)),
    );
    check("llama", "tokenizer", "x".into(), 1..2, Some("x".into()));

    let window = "attention.sliding_window_pattern";
    let pattern = vec![true, true, false, true, true, false, true, false];
    let cut_pattern = Some(vec![false, true, true].into());
    check(
        "gemma2",
        window,
        pattern.clone().into(),
        2..5,
        cut_pattern.clone(),
    );
    check("gpt-oss", window, pattern.into(), 2..5, cut_pattern);
    check("gemma2", window, 4u32.into(), 4..8, Some(4u32.into()));

    let dense = "leading_dense_block_count";
    for (range, left) in [(0..2, 3u32), (2..4, 1), (3..8, 0), (5..8, 0)] {
        check(
            "deepseek2",
            dense,
            3u32.into(),
            range.clone(),
            Some(left.into()),
        );
        check("glm4moe", dense, 3u32.into(), range, Some(left.into()));
    }
    check("qwen35", "nextn_predict_layers", 4u32.into(), 0..4, None);
    check("glm4", "nextn_predict_layers", 1u32.into(), 3..7, None);
    let linear = vec![1u32, 1, 0, 1, 0, 1, 1, 0];
    check(
        "qwen35moe",
        "attention.recurrent_layers",
        linear.into(),
        3..5,
        Some(vec![1u32, 0].into()),
    );
    check(
        "qwen35",
        "full_attention_interval",
        2u32.into(),
        2..6,
        Some(2u32.into()),
    );
    check(
        "qwen3",
        "pooling_type",
        3u32.into(),
        2..8,
        Some(3u32.into()),
    );
    check("qwen3", "pooling_type", 3u32.into(), 2..6, None);
}

#[test]
fn notes_on_single_tensors_follow_them() {
    let names = [
        "blk.0.ffn_up.weight",
        "output.weight",
        "blk.2.ffn_up.weight",
    ];
    let mut m = whole::metadata("llama", 3);
    m.set(
        "general.tensor_extra.name",
        names.iter().collect::<gguf::StringArray>(),
    );
    m.set("general.tensor_extra.prec_a4", vec![true, false, true]);
    m.set("general.tensor_extra.note", vec![1u8, 2, 3]);
    let check = |range, role, wanted: &[&str], notes: Vec<u8>| {
        let files = vec![whole::file(m.clone(), &whole::rows(3))];
        let m = Header::read(&cut(&files, range, role)).unwrap().metadata;
        let found = m.strings("general.tensor_extra.name").unwrap();
        assert!(found.iter().eq(wanted.iter().map(|n| n.as_bytes())));
        let note = m.get("general.tensor_extra.note").unwrap();
        assert_eq!(note, &Value::Array(Array::U8(notes)));
    };
    check(0..2, Stage, &["blk.0.ffn_up.weight"], vec![1]);
    check(1..3, Stage, &["blk.1.ffn_up.weight"], vec![3]);
    check(
        1..3,
        Tail,
        &["output.weight", "blk.1.ffn_up.weight"],
        vec![2, 3],
    );
    check(1..2, Stage, &[], vec![]);
    let mut bad = m.clone();
    bad.set("general.tensor_extra.note", vec![1u8]);
    let files = vec![whole::file(bad, &whole::rows(3))];
    let error = gguf::slice(&files, 0..1, Stage, Vec::new()).unwrap_err();
    assert!(error.to_string().contains("one for each tensor"), "{error}");
}

#[test]
fn a_stage_of_gpt_oss_has_a_head_of_one_row() {
    let files = whole::simple("gpt-oss", 4);
    let stage = cut(&files, 0..2, Stage);
    assert!(tensor(&stage, "output.weight") == [0; 128]);
}

#[test]
fn slices_of_deepseek2_say_what_their_size_would_say() {
    let check = |layers: u32,
                 vocab: u32,
                 rank: Option<u32>,
                 gating: Option<u32>,
                 wanted: (Option<u32>, u32)| {
        let mut m = whole::metadata("deepseek2", layers);
        m.set("deepseek2.vocab_size", vocab);
        let mut set = |suffix: &str, value: Option<u32>| {
            if let Some(value) = value {
                m.set(format!("deepseek2.{suffix}"), value);
            }
        };
        set("attention.q_lora_rank", rank);
        set("expert_gating_func", gating);
        let files = vec![whole::file(m, &whole::rows(layers))];
        let m = Header::read(&cut(&files, 0..3, Stage)).unwrap().metadata;
        let rank = m.u32("deepseek2.attention.q_lora_rank").ok();
        let gating = m.u32("deepseek2.expert_gating_func").unwrap();
        assert_eq!((rank, gating), wanted, "{layers} {vocab}");
    };
    check(27, 100, None, None, (Some(0), 1));
    check(48, 128_256, None, Some(2), (Some(0), 2));
    check(48, 128_255, Some(8), None, (Some(8), 1));
    check(47, 154_880, Some(8), None, (Some(8), 2));
    check(61, 100, Some(8), Some(0), (Some(8), 1));
    check(61, 100, Some(8), Some(2), (Some(8), 2));
}

#[test]
fn the_map_adds_up() {
    let files = whole::simple("llama", 3);
    let model = whole::open(&files);
    let map = LayerMap::of(&model).unwrap();
    // A norm of 128 bytes and rows of 64: one more in each layer.
    assert_eq!(map.layer_bytes(), [192, 256, 320]);
    assert_eq!(map.shared_bytes(), 16);
    assert_eq!(map.head_bytes(), 2 * 4 * 34 + 128);
    assert_eq!(map.total_bytes(), model.tensor_bytes().unwrap());
    assert_eq!(map.architecture().name, "llama");
    assert_eq!(map.model().metadata().block_count().unwrap(), 3);
}

#[test]
fn ranges_join_neighbours() {
    let rows: whole::Rows = whole::rows(4);
    let files = vec![whole::file(whole::metadata("llama", 4), &rows)];
    let model = whole::open(&files);
    let map = LayerMap::of(&model).unwrap();
    let ranges = |range, role| map.plan(range, role).unwrap().ranges();
    // The tensor of all layers lies before the layers.
    assert_eq!(ranges(0..2, Stage).len(), 1);
    assert_eq!(ranges(1..2, Stage).len(), 2);
    let all = ranges(0..4, Tail);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].bytes.start, model.parts()[0].header.data_offset);
    let last = model.tensor("output.weight").unwrap();
    assert_eq!(all[0].bytes.end, last.file_range().unwrap().end);
    assert_eq!(last.info.ggml_type, GgmlType::Q8_0);
}
