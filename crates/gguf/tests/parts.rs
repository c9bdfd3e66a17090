//! Models in several files: found from any part, checked against each other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sample;

use std::fs;
use std::path::{Path, PathBuf};

use gguf::{GgmlType, Metadata, Model, ReadError};

type Row = (&'static str, &'static [u64], GgmlType);

/// Writes the sample over three parts, the first with metadata only.
fn write_parts(folder: &Path, tensors_total: i32) -> Vec<PathBuf> {
    let split: [&[Row]; 3] = [&[], &sample::TENSORS[..2], &sample::TENSORS[2..]];
    let write = |(i, rows): (usize, &&[Row])| {
        let mut m = if i == 0 {
            sample::metadata()
        } else {
            Metadata::new()
        };
        m.set("split.no", i as u16);
        m.set("split.count", 3u16);
        m.set("split.tensors.count", tensors_total);
        let path = folder.join(format!("m-{:05}-of-00003.gguf", i + 1));
        fs::write(&path, sample::write(m, rows)).unwrap();
        path
    };
    split.iter().enumerate().map(write).collect()
}

#[test]
fn any_part_opens_the_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path(), 4);
    let whole = folder.path().join("whole.gguf");
    fs::write(&whole, sample::file()).unwrap();
    let whole = Model::open(&whole).unwrap();
    for path in &paths {
        let model = Model::open(path).unwrap();
        assert_eq!(
            model.parts().iter().map(|p| &p.name).collect::<Vec<_>>(),
            paths.iter().collect::<Vec<_>>()
        );
        assert_eq!(model.metadata().architecture().unwrap(), "qwen3");
        assert_eq!(
            model.tensors().map(|t| t.part).collect::<Vec<_>>(),
            [1, 1, 2, 2]
        );
        assert_eq!(model.fingerprint(), whole.fingerprint());
        for tensor in model.tensors() {
            let bytes = fs::read(&paths[tensor.part]).unwrap();
            let range = tensor.file_range().unwrap();
            let found = &bytes[range.start as usize..range.end as usize];
            assert_eq!(found.len() as u64, tensor.info.size_bytes().unwrap());
        }
    }
}

#[test]
fn a_missing_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_parts(folder.path(), 4);
    fs::remove_file(&paths[1]).unwrap();
    let error = Model::open(&paths[2]).unwrap_err();
    assert!(
        matches!(
            error,
            ReadError::MissingPart {
                number: 2,
                count: 3,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("m-00002-of-00003.gguf"),
        "{error}"
    );
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |prepare: fn(&Path, &[PathBuf]) -> PathBuf, wanted: &str| {
        let paths = write_parts(folder.path(), 4);
        let error = Model::open(prepare(folder.path(), &paths))
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{error}");
    };
    check(
        |_, p| {
            fs::copy(&p[1], &p[2]).unwrap();
            p[0].clone()
        },
        "says it is part 2, but its place is 3",
    );
    check(
        |f, p| {
            let to = f.join("alone.gguf");
            fs::copy(&p[1], &to).unwrap();
            to
        },
        "is one of 3 parts, but its name",
    );
    check(
        |f, p| {
            fs::write(&p[1], sample::file()).unwrap();
            let _ = f;
            p[0].clone()
        },
        "does not say of how many parts",
    );
    check(
        |f, _| write_parts(f, 9)[0].clone(),
        "says the parts hold 9 tensors, but they hold 4",
    );
    check(
        |f, _| f.join("m-00001-of-99999.gguf"),
        "the number of parts is 99999, over the maximum of 1024",
    );
    check(
        |f, p| {
            let two: [PathBuf; 2] = [1, 2].map(|i| f.join(format!("n-{i:05}-of-00002.gguf")));
            fs::copy(&p[0], &two[0]).unwrap();
            fs::copy(&p[1], &two[1]).unwrap();
            two[0].clone()
        },
        "says it is one of 3 parts, but there are 2",
    );
}

#[test]
fn tensors_that_occur_in_two_parts_are_refused() {
    let part = |no: u16| {
        let mut m = sample::metadata();
        m.set("split.no", no);
        m.set("split.count", 2u16);
        (
            PathBuf::from(format!("part {no}")),
            sample::write(m, sample::TENSORS),
        )
    };
    let error = Model::read([part(0), part(1)]).unwrap_err();
    assert!(
        matches!(error, ReadError::Duplicate { what: "tensor", .. }),
        "{error}"
    );
}

#[test]
fn what_is_not_a_file_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let error = Model::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("not a regular file") && error.contains(&*folder.path().to_string_lossy()),
        "{error}"
    );
    let error = Model::open(folder.path().join("none.gguf"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot read ") && error.contains("none.gguf"),
        "{error}"
    );
}
