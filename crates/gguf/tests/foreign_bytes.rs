//! Bytes of any kind must give a header or an error, and nothing else; what was read must come
//! back from the writer unchanged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fuzz/fuzz_targets/entry.rs"]
mod entry;
mod mutation;
mod sample;

use gguf::{Array, GgmlType, Header, Metadata, Plan, StringArray, Value};
use mutation::{Random, mutate};
use proptest::prelude::*;

#[test]
fn twenty_thousand_mutations_give_a_header_or_an_error() {
    let seeds = [
        sample::file(),
        sample::write(sample::metadata(), &[]),
        sample::write(Metadata::new(), sample::TENSORS),
    ];
    let mut random = Random(1);
    let mut read = 0;
    for i in 0..20_000 {
        let mut file = seeds[i % seeds.len()].clone();
        mutate(&mut random, &mut file);
        read += u32::from(entry::check(&file));
    }
    // Some changes do no harm; were there none, the mutations would never get past the magic.
    assert!((500..19_500).contains(&read), "{read} were read");
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e9f32..1e9).prop_map(Value::F32),
        (-1e9f64..1e9).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::String),
        array().prop_map(Value::Array),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    let flat = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Array::U8),
        prop::collection::vec(any::<i32>(), 0..9).prop_map(Array::I32),
        prop::collection::vec(-1e9f32..1e9, 0..9).prop_map(Array::F32),
        prop::collection::vec(any::<u64>(), 0..9).prop_map(Array::U64),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9)
            .prop_map(|v| Array::String(v.into_iter().collect::<StringArray>())),
    ];
    flat.prop_recursive(3, 16, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(Array::Array)
    })
}

fn rows() -> impl Strategy<Value = Vec<(String, Vec<u64>, GgmlType)>> {
    let row = (
        prop::sample::select(GgmlType::KNOWN),
        prop::collection::vec(0u64..5, 0..=4),
    );
    prop::collection::vec(row, 0..6).prop_map(|rows| {
        let named = rows
            .into_iter()
            .enumerate()
            .map(|(i, (ggml_type, mut dims))| {
                let row = ggml_type.block().map_or(1, |b| b.elements);
                dims.iter_mut().take(1).for_each(|d| *d *= row);
                // A tensor without dimensions is one element, which only unblocked types can hold.
                if dims.is_empty() && row > 1 {
                    dims.push(row);
                }
                (format!("t{i}"), dims, ggml_type)
            });
        named.collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_written_again_byte_for_byte(
        pairs in prop::collection::btree_map("[a-z.]{1,12}", value(), 0..12),
        rows in rows(),
        alignment in prop::option::of(prop::sample::select(vec![1u32, 8, 32, 64, 4096])),
    ) {
        let mut metadata: Metadata = pairs.into_iter().collect();
        if let Some(a) = alignment {
            metadata.set("general.alignment", a);
        }
        let borrowed: Vec<_> = rows.iter().map(|(n, d, t)| (n.as_str(), d.as_slice(), *t)).collect();
        let file = sample::write(metadata.clone(), &borrowed);
        let header = Header::read(&file).unwrap();
        prop_assert_eq!(&header.metadata, &metadata);
        prop_assert_eq!(header.tensors.len(), rows.len());
        let mut writer = Plan::of(&header).unwrap().start(Vec::new()).unwrap();
        for tensor in &header.tensors {
            let start = header.file_range(tensor).unwrap().start;
            writer.copy(&tensor.name, &file, start).unwrap();
        }
        prop_assert!(writer.finish().unwrap() == file);
    }

    #[test]
    fn any_bytes_after_a_valid_start_are_safe(version in 2u32..4, rest in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut file = b"GGUF".to_vec();
        file.extend(version.to_le_bytes());
        file.extend(rest);
        entry::check(&file);
    }
}
