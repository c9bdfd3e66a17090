//! Where models may be cut, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod whole;

use std::ops::Range;

use gguf::{LayerMap, Metadata, SliceError, SliceRole, Value};
use whole::Files;

use SliceRole::{Stage, Tail};

fn cuts(arch: &str, layers: u32, set: &[(&str, Value)]) -> Result<Vec<u32>, SliceError> {
    let mut m = whole::metadata(arch, layers);
    for (suffix, value) in set {
        m.set(format!("{arch}.{suffix}"), value.clone());
    }
    let files = vec![whole::file(m, &whole::rows(layers))];
    Ok(LayerMap::of(&whole::open(&files))?.cuts().to_vec())
}

#[test]
fn cuts_lie_between_periods() {
    let check = |arch: &str, layers: u32, set: &[(&str, Value)], wanted: &[u32]| {
        assert_eq!(cuts(arch, layers, set).unwrap(), wanted, "{arch} {set:?}");
    };
    let window = || ("attention.sliding_window", Value::from(512u32));
    let pattern = |value: Value| ("attention.sliding_window_pattern", value);
    let interval = |n: u32| ("full_attention_interval", Value::from(n));
    let linear = |kinds: &[u32]| ("attention.recurrent_layers", Value::from(kinds.to_vec()));
    check("llama", 4, &[], &[1, 2, 3]);
    check("llama", 1, &[], &[]);
    check("phi3", 3, &[window()], &[1, 2]);
    check("gemma2", 6, &[], &[2, 4]);
    check("gpt-oss", 5, &[], &[2, 4]);
    check("gemma3", 4, &[], &[1, 2, 3]);
    check("gemma3", 20, &[window()], &[6, 12, 18]);
    check("gemma3", 6, &[window()], &[]);
    check("gemma3", 6, &[window(), pattern(4u32.into())], &[4]);
    check("gemma3", 3, &[window(), pattern(0u32.into())], &[1, 2]);
    check("gemma3", 3, &[window(), pattern(1u32.into())], &[1, 2]);
    check(
        "gemma3",
        3,
        &[window(), pattern(vec![true; 3].into())],
        &[1, 2],
    );
    check("gemma3", 3, &[window(), pattern(u32::MAX.into())], &[]);
    check("qwen35", 12, &[], &[4, 8]);
    // The last two layers alone would have no full attention, which llama.cpp cannot run.
    check("qwen35", 10, &[], &[4]);
    check("qwen35", 9, &[("nextn_predict_layers", 1u32.into())], &[4]);
    check("qwen35moe", 6, &[interval(2)], &[2, 4]);
    check("qwen35moe", 6, &[interval(1)], &[]);
    check("qwen35moe", 6, &[interval(7)], &[]);
    check("qwen35", 6, &[linear(&[1, 0, 0, 1, 1, 0])], &[3]);
    check("qwen35", 6, &[linear(&[0, 1, 0, 1, 0, 1])], &[3]);
    check("qwen35", 4, &[linear(&[1, 1, 1, 1])], &[]);
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let check = |found: Result<Vec<u8>, SliceError>, wanted: &str| {
        let error = found.unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        error
    };
    let slice = |files: &Files, range, role| gguf::slice(files, range, role, Vec::new());
    let llama = whole::simple("llama", 4);
    let error = check(
        slice(&whole::simple("llama4", 4), 0..2, Stage),
        "\"llama4\" cannot be split",
    );
    assert!(matches!(&error, SliceError::Architecture { name } if name == "llama4"));
    assert!(error.to_string().contains("gemma3, glm4"), "{error}");
    for range in [2..2, 3..5, 5..6, Range { start: 3, end: 1 }] {
        assert!(matches!(
            slice(&llama, range, Stage),
            Err(SliceError::Range { layers: 4, .. })
        ));
    }
    check(slice(&llama, 0..3, Tail), "ends before layer 3 of 4");
    let error = check(
        slice(&whole::simple("gpt-oss", 6), 1..6, Tail),
        "cut before layer 2, 4",
    );
    assert!(matches!(error, SliceError::Cut { at: 1, legal, .. } if legal == [2, 4]));
    check(
        slice(&whole::simple("qwen35", 4), 0..2, Stage),
        "has no place to cut",
    );
    check(
        slice(&vec![slice(&llama, 0..2, Stage).unwrap()], 0..1, Stage),
        "is itself a slice",
    );

    let model = whole::open(&llama);
    let plan = LayerMap::of(&model).unwrap().plan(0..2, Stage).unwrap();
    let none: [&[u8]; 0] = [];
    check(
        plan.write(&none, Vec::new(), |_| true),
        "cut from 1 files and 0",
    );
    assert!(matches!(
        plan.write(&llama, Vec::new(), |_| false),
        Err(SliceError::Stopped)
    ));
    let short = &llama[0][..llama[0].len() / 2];
    check(
        plan.write(&[short], Vec::new(), |_| true),
        "cannot read the data of tensor",
    );
}

#[test]
fn models_that_make_no_sense_are_refused() {
    let check = |change: fn(&mut Metadata, &mut whole::Rows), wanted: &str| {
        let (mut m, mut rows) = (whole::metadata("qwen35", 8), whole::rows(8));
        change(&mut m, &mut rows);
        let files = vec![whole::file(m, &rows)];
        let error = LayerMap::of(&whole::open(&files)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    };
    check(
        |m, _| drop(m.set("qwen35.block_count", 5000u32)),
        "over the maximum",
    );
    check(
        |m, _| drop(m.set("qwen35.block_count", 9u32)),
        "\"blk.8.*\" is missing",
    );
    check(
        |m, _| drop(m.set("qwen35.block_count", 7u32)),
        "\"blk.7.attn_norm.weight\" is of no layer",
    );
    check(
        |m, _| drop(m.set("qwen35.nextn_predict_layers", 8u32)),
        "leaves no others",
    );
    check(
        |m, _| drop(m.set("qwen35.nextn_predict_layers", u32::MAX)),
        "leaves no others",
    );
    check(
        |m, _| drop(m.set("qwen35.embedding_length", 0u32)),
        "is 0, not 1 to",
    );
    check(
        |m, _| drop(m.set("qwen35.embedding_length", u32::MAX)),
        "not 1 to",
    );
    check(
        |m, _| drop(m.set("qwen35.embedding_length", 64u32)),
        "not rows of 64",
    );
    check(|_, r| drop(r.remove(0)), "\"token_embd.weight\" is missing");
    check(|_, r| r[2].0 = "blk.01.x".into(), "has no layer number");
    check(|_, r| r[2].0 = "blk.+1.x".into(), "has no layer number");
    check(|_, r| r[2].0 = "blk.x".into(), "has no layer number");
    check(|_, r| r[2].0 = "blk.1".into(), "has no layer number");
    check(
        |_, r| r[2].0 = "blk.99999999999.x".into(),
        "has no layer number",
    );
    check(
        |m, _| drop(m.set("qwen35.full_attention_interval", 0u32)),
        "is 0",
    );
    check(
        |m, _| drop(m.set("qwen35.full_attention_interval", "x")),
        "is of type string",
    );
    check(
        |m, _| drop(m.set("qwen35.attention.head_count", vec![1u32; 7])),
        "has 7 values for 8 layers",
    );
    check(
        |m, _| drop(m.set("qwen35.attention.recurrent_layers", 1u32)),
        "expected an array",
    );
    check(
        |m, _| drop(m.set("qwen35.attention.recurrent_layers", vec![-1i32; 8])),
        "expected an array of",
    );
}

/// A model of `layers` layers of 32 elements, with heads of 8 unless `key_length` says otherwise.
fn check_variant(arch: &str, layers: u32, set: &[(&str, u32)], range: Range<u32>, wanted: &str) {
    let mut m = whole::metadata(arch, layers);
    for (suffix, value) in set {
        m.set(format!("{arch}.{suffix}"), *value);
    }
    let files = vec![whole::file(m, &whole::rows(layers))];
    let found = gguf::slice(&files, range, Stage, Vec::new());
    match found {
        Ok(_) => assert_eq!(wanted, "", "{arch} {layers} {set:?}"),
        Err(error) => {
            let told = error.to_string();
            assert!(!wanted.is_empty() && told.contains(wanted), "{told}");
        }
    }
}

#[test]
fn variants_that_llama_cpp_knows_by_their_layers_are_not_mistaken() {
    let other_scale: &[(&str, u32)] = &[("attention.key_length", 16)];
    // Heads of a width that the model's width divides into make both scales the same.
    check_variant("gemma2", 46, &[], 0..2, "");
    check_variant(
        "gemma2",
        46,
        other_scale,
        0..2,
        "another scale in models of 46 layers",
    );
    check_variant("gemma2", 44, other_scale, 0..2, "");
    check_variant(
        "gemma2",
        50,
        other_scale,
        0..46,
        "would be computed wrongly",
    );
    check_variant("gemma2", 50, other_scale, 0..44, "");
    check_variant(
        "gemma3",
        62,
        other_scale,
        0..6,
        "another scale in models of 62 layers",
    );
    check_variant("gemma3", 46, other_scale, 0..6, "");
    check_variant("gemma3", 62, &[("attention.head_count", 0)], 0..6, "is 0");

    let compressed: &[(&str, u32)] = &[("attention.q_lora_rank", 16)];
    check_variant(
        "deepseek2",
        61,
        compressed,
        0..26,
        "would be computed wrongly",
    );
    check_variant(
        "deepseek2",
        61,
        compressed,
        0..27,
        "would be computed wrongly",
    );
    check_variant("deepseek2", 61, compressed, 0..28, "");
    check_variant("deepseek2", 61, &[], 0..27, "");
    check_variant("deepseek2", 27, &[], 0..26, "");
}
