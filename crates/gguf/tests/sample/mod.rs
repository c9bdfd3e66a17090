//! A small valid file with every value type, for the other tests to write, read and damage.
#![allow(dead_code)]

use gguf::{Array, GgmlType, Metadata, Plan, StringArray, Value};

pub(crate) fn metadata() -> Metadata {
    let mut m = Metadata::new();
    m.set("general.architecture", "qwen3");
    m.set("general.name", "sämple");
    m.set("general.file_type", 7u32);
    m.set("qwen3.block_count", 2u32);
    m.set("qwen3.context_length", 4096u64);
    m.set("qwen3.embedding_length", 64i32);
    m.set("qwen3.attention.head_count", vec![4u32, 8]);
    m.set("qwen3.attention.head_count_kv", vec![2i32, 4]);
    m.set("qwen3.attention.key_length", 16u16);
    m.set("qwen3.rope.freq_base", 1e6f32);
    m.set("t.u8", 8u8);
    m.set("t.i8", -8i8);
    m.set("t.i16", -16i16);
    m.set("t.i64", i64::MIN);
    m.set("t.f64", 0.1f64);
    m.set("t.bool", true);
    m.set("a.u8", vec![1u8, 2, 3]);
    m.set("a.i8", vec![-1i8]);
    m.set("a.u16", vec![1u16]);
    m.set("a.i16", vec![1i16]);
    m.set("a.f32", vec![0.5f32; 9]);
    m.set("a.bool", vec![true, false]);
    m.set("a.u64", vec![u64::MAX]);
    m.set("a.i64", vec![i64::MIN]);
    m.set("a.f64", vec![0.5f64]);
    m.set("a.empty", Vec::<u32>::new());
    let nested = Array::Array(vec![Array::U8(vec![1]), Array::U8(vec![])]);
    m.set("a.nested", Value::Array(nested));
    let tokens = [b"a".as_slice(), b"", b"\xff\xfe", "ü".as_bytes()];
    m.set(
        "tokenizer.ggml.tokens",
        tokens.iter().collect::<StringArray>(),
    );
    m.set("tokenizer.chat_template", "{{ messages }}");
    m
}

pub(crate) const TENSORS: &[(&str, &[u64], GgmlType)] = &[
    ("token_embd.weight", &[64, 4], GgmlType::Q8_0),
    ("blk.0.attn_norm.weight", &[3], GgmlType::F32),
    ("blk.1.ffn_down_exps.weight", &[2, 3, 5], GgmlType::F16),
    ("scalar", &[], GgmlType::I8),
];

/// The whole file; tensor `i` is filled with byte `i + 1`.
pub(crate) fn file() -> Vec<u8> {
    write(metadata(), TENSORS)
}

pub(crate) fn write(metadata: Metadata, tensors: &[(&str, &[u64], GgmlType)]) -> Vec<u8> {
    let mut plan = Plan::new(metadata).unwrap();
    for (name, dims, ggml_type) in tensors {
        plan.add(name, dims, *ggml_type).unwrap();
    }
    let mut writer = plan.start(Vec::new()).unwrap();
    let mut fill = 0u8;
    while let Some(due) = writer.due() {
        let (name, size) = (due.name.clone(), due.size_bytes().unwrap() as usize);
        fill += 1;
        writer.tensor(&name, &vec![fill; size]).unwrap();
    }
    writer.finish().unwrap()
}
