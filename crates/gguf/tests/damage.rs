//! Damaged, truncated and hostile files: each gets one clear error.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sample;

use gguf::{GgmlType, Header, Metadata, Plan, ReadError, limits};

fn error_of(file: &[u8]) -> ReadError {
    Header::read(file).unwrap_err()
}

fn text_of(file: &[u8]) -> String {
    error_of(file).to_string()
}

/// A header made by hand: counts, then whatever follows.
fn raw(version: u32, tensors: u64, keys: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(version.to_le_bytes());
    out.extend(tensors.to_le_bytes());
    out.extend(keys.to_le_bytes());
    rest.iter().for_each(|r| out.extend(*r));
    out
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn row(name: &str, dims: &[u64], ggml_type: u32, offset: u64) -> Vec<u8> {
    let mut out = string(name);
    out.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.extend(ggml_type.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// One tensor table and plenty of data after it.
fn table(rows: &[Vec<u8>]) -> Vec<u8> {
    let mut file = raw(
        3,
        rows.len() as u64,
        0,
        &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(),
    );
    file.resize(file.len() + 4096, 0);
    file
}

#[test]
fn every_truncation_is_an_error() {
    let file = sample::file();
    // The last tensor is one byte long; what follows it is padding.
    let end = file.len() - 31;
    for len in 0..end {
        let error = error_of(&file[..len]);
        let ok = match error {
            ReadError::TruncatedHeader { at, .. } => at == len as u64,
            ReadError::TruncatedData { needed, found } => {
                (needed, found) == (end as u64, len as u64)
            }
            _ => false,
        };
        assert!(ok, "{len}: {error}");
    }
    Header::read(&file[..end]).unwrap();
    assert!(text_of(&file[..end - 5]).contains("so 5 are missing"));
}

#[test]
fn other_formats_are_named() {
    assert!(
        text_of(b"PK\x03\x04 and so on")
            .starts_with("not a GGUF file: it starts with \"PK\\x03\\x04\"")
    );
    assert!(matches!(
        error_of(&raw(1, 0, 0, &[])),
        ReadError::Version { found: 1 }
    ));
    assert!(matches!(
        error_of(&raw(4, 0, 0, &[])),
        ReadError::Version { found: 4 }
    ));
    assert!(matches!(
        error_of(&raw(3u32.swap_bytes(), 0, 0, &[])),
        ReadError::BigEndian
    ));
    assert!(text_of(b"").contains("an empty file"));
}

#[test]
fn version_2_is_read() {
    assert_eq!(Header::read(&raw(2, 0, 0, &[])).unwrap().version, 2);
}

#[test]
fn counts_beyond_reason_are_refused() {
    let check = |file: Vec<u8>, wanted: &str| {
        assert!(text_of(&file).contains(wanted), "{}", text_of(&file))
    };
    check(
        raw(3, u64::MAX, 0, &[]),
        "the length of the tensor table is 18446744073709551615",
    );
    check(
        raw(3, 0, u64::MAX, &[]),
        "the length of the metadata is 18446744073709551615",
    );
    check(raw(3, 1000, 0, &[]), "in the middle of the tensor table");
    check(raw(3, 0, 1, &[&[0xff; 64]]), "the length of metadata key 0");
    let key = string("k");
    let array = |element: u32, len: u64| {
        [
            &9u32.to_le_bytes()[..],
            &element.to_le_bytes(),
            &len.to_le_bytes(),
        ]
        .concat()
    };
    check(
        raw(3, 0, 1, &[&key, &array(4, u64::MAX), &[0; 64]]),
        "the length of the value of key \"k\"",
    );
    check(
        raw(3, 0, 1, &[&key, &array(4, 1000), &[0; 64]]),
        "in the middle of the value of key \"k\"",
    );
    check(
        raw(3, 0, 1, &[&key, &array(8, 3), &[0xff; 64]]),
        "the length of the value of key \"k\"",
    );
    check(
        raw(3, 0, 1, &[&key, &array(77, 3), &[0; 64]]),
        "has unknown type 77",
    );
    check(
        raw(3, 0, 1, &[&key, &77u32.to_le_bytes(), &[0; 64]]),
        "has unknown type 77",
    );
    check(
        raw(3, 0, 1, &[&key, &7u32.to_le_bytes(), &[2; 64]]),
        "is a bool with value 2",
    );
    let nested: Vec<u8> = [9u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(vec![array(9, 1)[4..].to_vec(); 50])
        .flatten()
        .collect();
    check(
        raw(3, 0, 1, &[&key, &nested, &[0; 64]]),
        "nests arrays over 4 deep",
    );
    check(
        raw(3, 0, 1, &[&string(""), &0u32.to_le_bytes(), &[1; 64]]),
        "is empty",
    );
    check(
        raw(3, 0, 1, &[&2u64.to_le_bytes(), b"\xff\xff", &[1; 64]]),
        "is not UTF-8",
    );
    let pair = [&key[..], &0u32.to_le_bytes(), &[1]].concat();
    check(raw(3, 0, 2, &[&pair, &pair]), "key \"k\" occurs twice");
}

#[test]
fn a_header_without_end_stops_at_its_maximum() {
    /// Claims no size and never ends: string values of the largest size, one after the other.
    struct Endless(Vec<u8>);
    impl gguf::ByteSource for Endless {
        fn len(&self) -> std::io::Result<Option<u64>> {
            Ok(None)
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
            let head = gguf::ByteSource::read_at(&self.0, offset, buf)?;
            buf[head..].fill(b'x');
            Ok(buf.len())
        }
    }
    let count = limits::ARRAY_LEN_MAX;
    let array = [
        &9u32.to_le_bytes()[..],
        &10u32.to_le_bytes(),
        &count.to_le_bytes(),
    ]
    .concat();
    // Two full arrays of eight-byte numbers fill the header's maximum; the third passes it.
    let first = raw(3, 0, 3, &[&string("k"), &array]);
    let error = error_at_third(&Endless(first), count);
    assert!(error.contains("over the maximum of"), "{error}");

    fn error_at_third(source: &Endless, count: u64) -> String {
        let error = Header::read(source).unwrap_err().to_string();
        assert!(count * 8 * 2 >= limits::HEADER_BYTES_MAX);
        error
    }
}

#[test]
fn tensor_tables_that_make_no_sense_are_refused() {
    let check = |rows: &[Vec<u8>], wanted: &str| {
        let found = text_of(&table(rows));
        assert!(found.contains(wanted), "{found}");
    };
    let f32 = GgmlType::F32.id();
    check(
        &[row("a", &[8], f32, 0), row("a", &[8], f32, 32)],
        "tensor \"a\" occurs twice",
    );
    check(
        &[row("a", &[8], f32, 8)],
        "has an offset that is not aligned",
    );
    check(
        &[row("a", &[9], f32, 0), row("b", &[8], f32, 32)],
        "\"b\": overlaps the tensor before it",
    );
    check(
        &[row("a", &[8], f32, 32), row("b", &[8], f32, 0)],
        "\"b\": overlaps the tensor before it",
    );
    check(
        &[row("a", &[8], f32, 1 << 40)],
        "so 1099511623719 are missing",
    );
    check(
        &[row("a", &[8], f32, u64::MAX - 31)],
        "lies outside any file",
    );
    check(
        &[row("a", &[1 << 32, 1 << 32], f32, 0)],
        "has an impossible shape",
    );
    check(
        &[row("a", &[0, u64::MAX, u64::MAX], f32, 0)],
        "has an impossible shape",
    );
    check(&[row("a", &[1 << 62], f32, 0)], "has an impossible shape");
    check(
        &[row("a", &[1; 5], f32, 0)],
        "has 5 dimensions, over the maximum of 4",
    );
    check(
        &[row("a", &[33], GgmlType::Q8_0.id(), 0)],
        "not a multiple of 32",
    );
    check(
        &[row(&"n".repeat(256), &[1], f32, 0)],
        "the length of the name of tensor 0 is 256",
    );
}

#[test]
fn alignment_must_be_a_power_of_two() {
    let check = |pair: &[u8], wanted: &str| {
        let file = raw(3, 0, 1, &[&string("general.alignment"), pair, &[0; 8]]);
        let found = Header::read(&file)
            .map(|h| h.alignment)
            .map_err(|e| e.to_string());
        let found = found.map_or_else(|e| e, |a| a.to_string());
        assert!(found.contains(wanted), "{found}");
    };
    let u32_of = |v: u32| [4u32.to_le_bytes(), v.to_le_bytes()].concat();
    check(&u32_of(0), "is 0, not a power of two");
    check(&u32_of(48), "is 48, not a power of two");
    check(&u32_of(1 << 31), "not a power of two up to");
    check(
        &[8u32.to_le_bytes(), 0u32.to_le_bytes()].concat(),
        "is of type string, expected u32",
    );
    check(&u32_of(4096), "4096");
}

#[test]
fn the_writer_refuses_what_cannot_be_read() {
    let plan = || Plan::new(Metadata::new()).unwrap();
    let add = |name: &str, dims: &[u64], t| plan().add(name, dims, t).unwrap_err().to_string();
    assert!(add("", &[1], GgmlType::F32).contains("1 to 63 bytes"));
    assert!(add(&"n".repeat(64), &[1], GgmlType::F32).contains("1 to 63 bytes"));
    assert!(add("n", &[1; 5], GgmlType::F32).contains("5 dimensions"));
    assert!(add("n", &[7], GgmlType::Q4_K).contains("not a multiple of 256"));
    assert!(add("n", &[7], GgmlType::Unknown(9999)).contains("unknown type 9999"));
    let mut twice = plan();
    twice.add("n", &[1], GgmlType::F32).unwrap();
    twice.add("n", &[1], GgmlType::F32).unwrap();
    assert!(
        twice
            .header_bytes()
            .unwrap_err()
            .to_string()
            .contains("the name is taken")
    );
    let aligned = |v: u32| Plan::new([("general.alignment", v)].into_iter().collect());
    assert!(aligned(24).is_err() && aligned(64).is_ok());
    assert!(Plan::new([("", 1u32)].into_iter().collect()).is_err());
}

#[test]
fn the_writer_wants_every_tensor_whole_and_in_order() {
    let start = || {
        let mut plan = Plan::new(Metadata::new()).unwrap();
        plan.add("a", &[4], GgmlType::F32).unwrap();
        plan.add("b", &[4], GgmlType::F32).unwrap();
        plan.start(Vec::new()).unwrap()
    };
    let text = |e: gguf::WriteError| e.to_string();
    assert_eq!(
        text(start().tensor("b", &[0; 16]).unwrap_err()),
        "tensor \"b\" was written where \"a\" comes next"
    );
    assert_eq!(
        text(start().tensor("a", &[0; 15]).unwrap_err()),
        "tensor \"a\" takes 16 bytes and 15 were given"
    );
    assert_eq!(
        text(start().tensor("a", &[0; 17]).unwrap_err()),
        "tensor \"a\" takes 16 bytes and 17 were given"
    );
    assert_eq!(
        text(start().finish().unwrap_err()),
        "the file is not complete: the data of tensor \"a\" comes next"
    );
    assert!(
        text(start().copy("a", &vec![0u8; 20], 8).unwrap_err())
            .contains("cannot read the data of tensor \"a\"")
    );
    assert!(start().copy("a", &vec![0u8; 20], u64::MAX).is_err());
    let mut writer = start();
    writer.copy("a", &vec![7u8; 20], 4).unwrap();
    writer
        .stream("b", |out| (0..16).try_for_each(|i| out.write_all(&[i])))
        .unwrap();
    assert_eq!(
        text(writer.tensor("c", &[]).unwrap_err()),
        "tensor \"c\" was written where \"the end\" comes next"
    );
    let file = writer.finish().unwrap();
    assert!(
        file.ends_with(&[0; 16])
            && file[..file.len() - 16]
                .ends_with(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    );
}
