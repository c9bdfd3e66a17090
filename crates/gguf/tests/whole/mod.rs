//! Small models to cut: metadata and a few tensors per layer, in one file or several, each tensor
//! filled with bytes of its own.
#![allow(dead_code)]

use gguf::{GgmlType, Metadata, Model, Plan};

/// Width of every model here, in elements.
pub(crate) const WIDTH: u64 = 32;

/// One file after the other.
pub(crate) type Files = Vec<Vec<u8>>;

/// Name, shape and type of tensors.
pub(crate) type Rows = Vec<(String, Vec<u64>, GgmlType)>;

/// Metadata that every architecture needs.
pub(crate) fn metadata(architecture: &str, layers: u32) -> Metadata {
    let mut m = Metadata::new();
    m.set("general.architecture", architecture);
    m.set("general.name", "whole");
    let mut set = |suffix: &str, value: u32| m.set(format!("{architecture}.{suffix}"), value);
    set("block_count", layers);
    set("embedding_length", WIDTH as u32);
    set("attention.head_count", 4);
    set("attention.key_length", 8);
    set("vocab_size", 4);
    m.set("tokenizer.ggml.model", "gpt2");
    m.set("tokenizer.chat_template", "{{ messages }}");
    m
}

/// Tensors of so many layers, with one for all layers and a head.
pub(crate) fn rows(layers: u32) -> Rows {
    let mut rows: Rows = vec![
        ("token_embd.weight".into(), vec![WIDTH, 4], GgmlType::Q8_0),
        ("rope_freqs.weight".into(), vec![4], GgmlType::F32),
    ];
    for layer in 0..layers {
        let name = |rest: &str| format!("blk.{layer}.{rest}");
        rows.push((name("attn_norm.weight"), vec![WIDTH], GgmlType::F32));
        rows.push((
            name("ffn_up.weight"),
            vec![WIDTH, 1 + u64::from(layer)],
            GgmlType::F16,
        ));
    }
    rows.push(("output_norm.weight".into(), vec![WIDTH], GgmlType::F32));
    rows.push(("output.weight".into(), vec![WIDTH, 4], GgmlType::Q8_0));
    rows
}

/// The data of a tensor: bytes that follow from its name.
pub(crate) fn data(name: &str, size: u64) -> Vec<u8> {
    let seed = name
        .bytes()
        .fold(7u8, |h, b| h.wrapping_mul(31).wrapping_add(b));
    (0..size)
        .map(|i| seed.wrapping_add((i % 251) as u8))
        .collect()
}

/// One file with these tensors.
pub(crate) fn file(metadata: Metadata, rows: &[(String, Vec<u64>, GgmlType)]) -> Vec<u8> {
    let mut plan = Plan::new(metadata).unwrap();
    for (name, dims, ggml_type) in rows {
        plan.add(name, dims, *ggml_type).unwrap();
    }
    let mut writer = plan.start(Vec::new()).unwrap();
    while let Some(due) = writer.due() {
        let (name, size) = (due.name.clone(), due.size_bytes().unwrap());
        writer.tensor(&name, &data(&name, size)).unwrap();
    }
    writer.finish().unwrap()
}

/// The model in `parts` files behind a first one that holds metadata only.
pub(crate) fn files(metadata: &Metadata, rows: &Rows, parts: usize) -> Files {
    let per_part = rows.len().div_ceil(parts.max(1)).max(1);
    let mut chunks: Vec<&[_]> = rows.chunks(per_part).collect();
    chunks.insert(0, &[]);
    let count = chunks.len();
    let write = |(i, chunk): (usize, &&[_])| {
        let mut m = if i == 0 {
            metadata.clone()
        } else {
            Metadata::new()
        };
        m.set("split.no", i as u16);
        m.set("split.count", count as u16);
        m.set("split.tensors.count", rows.len() as i32);
        file(m, chunk)
    };
    chunks.iter().enumerate().map(write).collect()
}

/// Opens files in memory as one model.
pub(crate) fn open(files: &Files) -> Model {
    let named = files.iter().enumerate();
    Model::read(named.map(|(i, f)| (format!("{i}").into(), f.as_slice()))).unwrap()
}

/// A model of one file with the usual metadata and tensors.
pub(crate) fn simple(architecture: &str, layers: u32) -> Files {
    vec![file(metadata(architecture, layers), &rows(layers))]
}
