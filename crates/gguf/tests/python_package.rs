//! The PyPI package `gguf` reads what this crate writes, and the reverse.
//!
//! Needs a Python that has the package, named by `MESH_LLM_TEST_PYTHON`. `./dev test` installs it, or leaves
//! these tests out by their names so that the runner counts them as skipped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sample;
mod whole;

use std::fs;
use std::path::Path;
use std::process::Command;

use gguf::{Array, GgmlType, Header, Metadata, Model, Plan, SliceRole, Value, ValueType};
use serde_json::Value as Json;

/// Names the Python to test with.
const PYTHON: &str = "MESH_LLM_TEST_PYTHON";

/// Set by whoever wants these tests to pass without it.
const SKIP: &str = "MESH_LLM_TEST_SKIP_CLIENTS";

/// The Python to test with. A test that could not run must not look like one that passed: `None` only if
/// that is asked for.
fn installed() -> Option<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let python = set(PYTHON);
    if python.is_none() {
        assert!(
            set(SKIP).is_some(),
            "{PYTHON} is not set; hint: run ./dev test, which installs the package gguf, \
             or eval \"$(./dev clients)\" first; {SKIP}=1 leaves these tests out"
        );
        eprintln!("skipped: {PYTHON} is not set, and {SKIP} is");
    }
    python
}

/// Runs the script; `None` when there is no Python to run it with, and that is wanted.
fn python(arguments: &[&str]) -> Option<String> {
    let python = installed()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check.py");
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The metadata as the package's `contents()` gives it.
fn to_json(metadata: &Metadata) -> Json {
    metadata
        .iter()
        .map(|(key, value)| (key.to_owned(), value_json(value)))
        .collect()
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::F32(v) => (*v).into(),
        Value::F64(v) => (*v).into(),
        Value::Bool(v) => (*v).into(),
        Value::String(v) => v.as_str().into(),
        Value::I8(v) => (*v).into(),
        Value::I16(v) => (*v).into(),
        Value::I32(v) => (*v).into(),
        Value::I64(v) => (*v).into(),
        Value::Array(Array::F32(v)) => v.clone().into(),
        Value::Array(Array::F64(v)) => v.clone().into(),
        Value::Array(Array::Bool(v)) => v.clone().into(),
        Value::Array(Array::I8(v)) => v.clone().into(),
        Value::Array(Array::I16(v)) => v.clone().into(),
        Value::Array(Array::I32(v)) => v.clone().into(),
        Value::Array(Array::I64(v)) => v.clone().into(),
        Value::Array(Array::String(v)) => (0..v.len()).map(|i| v.get(i).unwrap()).collect(),
        Value::Array(v) => (0..v.len()).map(|i| v.get_u64(i).unwrap()).collect(),
        other => other.to_u64().unwrap().into(),
    }
}

#[test]
fn the_python_package_reads_what_is_written() {
    let mut metadata = sample::metadata();
    // The package cannot show these: empty and nested arrays, and text that is not UTF-8.
    for key in ["a.empty", "a.nested", "tokenizer.ggml.tokens"] {
        metadata.remove(key);
    }
    metadata.set(
        "a.string",
        ["x", "", "ü"].iter().collect::<gguf::StringArray>(),
    );
    let mut tensors = sample::TENSORS.to_vec();
    tensors[3].1 = &[1];
    check_read(&sample::write(metadata, &tensors));
}

/// The package must see the metadata and tensors that are in the file.
fn check_read(file: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::write(&path, file).unwrap();
    let Some(found) = python(&["read", path.to_str().unwrap()]) else {
        return;
    };
    let found: Json = serde_json::from_str(&found).unwrap();
    let header = Header::read(file).unwrap();
    assert_eq!(found["metadata"], to_json(&header.metadata));
    let found = found["tensors"].as_array().unwrap();
    assert_eq!(found.len(), header.tensors.len());
    for (found, tensor) in found.iter().zip(&header.tensors) {
        let range = header.file_range(tensor).unwrap();
        assert_eq!(found["name"], tensor.name.as_str());
        assert_eq!(found["dims"], Json::from(tensor.dims.clone()));
        assert_eq!(found["type"], tensor.ggml_type.to_string());
        assert_eq!(found["start"], range.start);
        assert_eq!(found["bytes"], range.end - range.start);
        let data = &file[range.start as usize..range.end as usize];
        assert_eq!(found["sha256"], sha256(data));
    }
}

#[test]
fn the_python_package_reads_slices() {
    for (architecture, layers) in [("gpt-oss", 6), ("qwen3", 5), ("deepseek2", 3)] {
        let mut metadata = whole::metadata(architecture, layers);
        let kinds: Vec<u32> = (0..layers).collect();
        metadata.set(format!("{architecture}.feed_forward_length"), kinds);
        let files = whole::files(&metadata, &whole::rows(layers), 3);
        for (range, role) in [(0..2, SliceRole::Stage), (2..layers, SliceRole::Tail)] {
            check_read(&gguf::slice(&files, range, role, Vec::new()).unwrap());
        }
    }
}

fn sha256(data: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(data)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn what_the_python_package_writes_is_read_and_written_again_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let Some(_) = python(&["write", path.to_str().unwrap()]) else {
        return;
    };
    let file = fs::read(&path).unwrap();
    let header = Header::read(&file).unwrap();
    assert_eq!(header.alignment, 64);
    let m = &header.metadata;
    let types: Vec<_> = m
        .iter()
        .filter(|(k, _)| k.starts_with("t."))
        .map(|(_, v)| v.value_type())
        .collect();
    use ValueType::{Bool, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
    assert_eq!(
        types,
        [U8, I8, U16, I16, U32, I32, U64, I64, F32, F64, Bool, String]
    );
    assert_eq!(m.get("t.i64"), Some(&Value::I64(-(1 << 62))));
    assert_eq!(m.get("t.f64"), Some(&Value::F64(0.1)));
    assert_eq!(m.str("t.string").unwrap(), "grüße");
    assert_eq!(m.get("a.i32"), Some(&vec![1i32, -2, 3].into()));
    assert_eq!(m.get("a.bool"), Some(&vec![true, false, true].into()));
    assert_eq!(
        m.strings("a.string").unwrap().bytes(2),
        Some("ü".as_bytes())
    );
    let two = header.tensor("two").unwrap();
    assert_eq!(
        (two.dims.as_slice(), two.ggml_type),
        ([4, 3].as_slice(), GgmlType::F16)
    );
    assert_eq!(
        header.tensor("three").unwrap().size_bytes().unwrap(),
        2 * 2 * 34
    );
    let mut writer = Plan::of(&header).unwrap().start(Vec::new()).unwrap();
    for tensor in &header.tensors {
        writer
            .copy(
                &tensor.name,
                &file,
                header.file_range(tensor).unwrap().start,
            )
            .unwrap();
    }
    assert!(writer.finish().unwrap() == file);
}

#[test]
fn parts_that_the_python_package_writes_are_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let Some(_) = python(&["parts", path.to_str().unwrap()]) else {
        return;
    };
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    let model = Model::open(&names[1]).unwrap();
    assert_eq!(model.parts().len(), names.len());
    assert_eq!(model.parts()[0].header.tensors.len(), 0);
    assert_eq!(model.metadata().block_count().unwrap(), 3);
    let found: Vec<_> = model.tensors().map(|t| t.info.name.as_str()).collect();
    assert_eq!(found, ["one", "two", "three"]);
}

#[test]
fn sizes_of_tensor_types_are_those_of_the_python_package() {
    let Some(found) = python(&["sizes"]) else {
        return;
    };
    let rows: Vec<(String, u32, u64, u64)> = serde_json::from_str(&found).unwrap();
    assert!(rows.len() >= 30);
    // The package may be older or newer than this table; what both know must agree.
    let mut known = 0;
    for (name, id, elements, bytes) in rows {
        let ggml_type = GgmlType::from_id(id);
        let Some(block) = ggml_type.block() else {
            continue;
        };
        // The package still has the size that this type had with a 32-bit scale. No file holds it:
        // ggml uses it only while it computes.
        if ggml_type == GgmlType::Q8_1 {
            continue;
        }
        known += 1;
        assert_eq!(
            (ggml_type.to_string(), block.elements, block.bytes),
            (name, elements, bytes)
        );
    }
    assert!(known >= 30, "{known}");
}
