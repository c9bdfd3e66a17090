//! What a valid file says, how much of it is fetched, and what the keys mean.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sample;

use std::cell::Cell;
use std::io;

use gguf::{
    Array, ByteSource, GgmlType, Header, KeyError, Metadata, Model, Pooling, Prefix, Value,
};

#[test]
fn reads_back_what_was_written() {
    let header = Header::read(&sample::file()).unwrap();
    assert_eq!(header.metadata, sample::metadata());
    assert_eq!((header.version, header.alignment), (3, 32));
    let found: Vec<_> = header
        .tensors
        .iter()
        .map(|t| (t.name.as_str(), t.dims.as_slice(), t.ggml_type))
        .collect();
    assert_eq!(found, sample::TENSORS);
}

#[test]
fn tensor_ranges_hold_the_data() {
    let file = sample::file();
    let header = Header::read(&file).unwrap();
    for (i, tensor) in header.tensors.iter().enumerate() {
        let range = header.file_range(tensor).unwrap();
        assert_eq!(range.start % 32, 0);
        let data = &file[range.start as usize..range.end as usize];
        assert_eq!(data.len() as u64, tensor.size_bytes().unwrap());
        assert!(data.iter().all(|&b| b == i as u8 + 1), "{}", tensor.name);
    }
    assert_eq!(header.tensors[2].layer(), Some(1));
    assert_eq!(header.tensors[0].layer(), None);
    assert_eq!(header.tensors[0].row_bytes().unwrap(), 68);
}

/// Counts what is fetched, and hands out at most 7 bytes at once.
struct Meter<'a> {
    bytes: &'a [u8],
    fetched: Cell<u64>,
    known: bool,
}

impl ByteSource for Meter<'_> {
    fn len(&self) -> io::Result<Option<u64>> {
        Ok(self.known.then_some(self.bytes.len() as u64))
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        assert!(buf.len() <= 512, "asked for {} bytes", buf.len());
        let n = buf.len().min(7);
        let n = self.bytes.read_at(offset, &mut buf[..n])?;
        self.fetched.set(self.fetched.get() + n as u64);
        Ok(n)
    }
    fn block_bytes(&self) -> usize {
        512
    }
}

#[test]
fn fetches_the_header_and_at_most_one_block_more() {
    let mut file = sample::file();
    file.resize(file.len() + 1_000_000, 0);
    for known in [true, false] {
        let meter = Meter {
            bytes: &file,
            fetched: Cell::new(0),
            known,
        };
        let header = Header::read(&meter).unwrap();
        assert_eq!(header.metadata, sample::metadata());
        assert!(
            meter.fetched.get() <= header.data_offset + 512,
            "{}",
            meter.fetched.get()
        );
    }
}

#[test]
fn a_prefix_is_enough_for_the_header() {
    let file = sample::file();
    let wanted = Header::read(&file).unwrap();
    let bytes = &file[..wanted.data_offset as usize];
    for total in [None, Some(file.len() as u64)] {
        assert_eq!(Header::read(&Prefix { bytes, total }).unwrap(), wanted);
    }
}

#[test]
fn metadata_answers_typed_questions() {
    let m = sample::metadata();
    assert_eq!(m.architecture().unwrap(), "qwen3");
    assert_eq!(m.name(), Some("sämple"));
    assert_eq!(m.block_count().unwrap(), 2);
    assert_eq!(m.context_length().unwrap(), 4096);
    assert_eq!(m.embedding_length().unwrap(), 64);
    assert_eq!(m.head_counts().unwrap(), [4, 8]);
    assert_eq!(m.kv_head_counts().unwrap(), [2, 4]);
    assert_eq!(m.quantization(), Some("Q8_0"));
    assert_eq!(m.pooling().unwrap(), None);
    assert_eq!(m.vocab_size().unwrap(), 4);
    assert_eq!(m.chat_template(), Some("{{ messages }}"));
    assert_eq!(
        m.strings("tokenizer.ggml.tokens").unwrap().bytes(2),
        Some(b"\xff\xfe".as_slice())
    );
    assert_eq!(m.f64("qwen3.rope.freq_base").unwrap(), 1e6);
    // Keys are 16 long, values the width over the heads: (16 + 16) * 2 and (16 + 8) * 4 elements.
    assert_eq!(
        m.kv_bytes_per_token().unwrap(),
        (2 * (16 + 16) + 4 * (16 + 8)) * 2
    );
    assert_eq!(
        m.kv_bytes_per_token_of_layers().unwrap(),
        [2 * (16 + 16) * 2, 4 * (16 + 8) * 2]
    );
}

#[test]
fn questions_that_have_no_answer_are_errors() {
    let check = |m: &Metadata, ask: fn(&Metadata) -> Result<u64, KeyError>, wanted: &str| {
        assert_eq!(ask(m).unwrap_err().to_string(), wanted);
    };
    let m = sample::metadata();
    let key = "the model's metadata key";
    check(
        &m,
        |m| m.u64("no.such"),
        "the model's metadata has no key \"no.such\"",
    );
    check(
        &m,
        |m| m.u64("t.i8"),
        &format!("{key} \"t.i8\" is of type i8, expected an unsigned integer"),
    );
    check(
        &m,
        |m| m.str("t.u8").map(|_| 0),
        &format!("{key} \"t.u8\" is of type u8, expected a string"),
    );
    let mut m = sample::metadata();
    m.set("qwen3.attention.head_count", vec![1u32]);
    check(
        &m,
        |m| m.kv_bytes_per_token(),
        &format!("{key} \"qwen3.attention.head_count\" has 1 values for 2 layers"),
    );
    m.set("qwen3.block_count", u32::MAX);
    check(
        &m,
        |m| m.kv_bytes_per_token(),
        &format!("{key} \"qwen3.block_count\" is 4294967295, over the maximum of 4096"),
    );
    m.set("qwen3.pooling_type", 9u32);
    check(
        &m,
        |m| m.pooling().map(|_| 0),
        &format!("{key} \"qwen3.pooling_type\" is unknown pooling type 9"),
    );
    m.set("qwen3.pooling_type", 3u32);
    assert_eq!(m.pooling().unwrap(), Some(Pooling::Last));
}

#[test]
fn zero_heads_and_huge_heads_do_not_upset_the_estimate() {
    let mut m = sample::metadata();
    m.remove("qwen3.attention.key_length");
    m.set("qwen3.attention.head_count", 0u32);
    assert_eq!(m.kv_bytes_per_token().unwrap(), 0);
    m.set("qwen3.attention.head_count_kv", u32::MAX);
    m.set("qwen3.attention.value_length", u32::MAX);
    m.set("qwen3.attention.key_length", u32::MAX);
    assert_eq!(m.kv_bytes_per_token().unwrap(), u64::MAX);
}

#[test]
fn metadata_keeps_order_when_changed() {
    let mut m: Metadata = [("a", 1u32), ("b", 2), ("c", 3)].into_iter().collect();
    assert_eq!(m.remove("a"), Some(Value::U32(1)));
    assert_eq!(m.set("b", 5u8), Some(Value::U32(2)));
    m.set("a", 7u8);
    let keys: Vec<_> = m.iter().map(|(k, v)| (k, v.to_u64().unwrap())).collect();
    assert_eq!(keys, [("b", 5), ("c", 3), ("a", 7)]);
    assert!(m.iter().all(|(k, v)| m.get(k) == Some(v)));
}

#[test]
fn arrays_are_cut_to_a_range() {
    let m = sample::metadata();
    let tokens = m.array("tokenizer.ggml.tokens").unwrap();
    let cut = tokens.slice(2..4).unwrap();
    let Array::String(strings) = &cut else {
        panic!("{cut:?}")
    };
    assert_eq!(
        strings.iter().collect::<Vec<_>>(),
        [b"\xff\xfe".as_slice(), "ü".as_bytes()]
    );
    assert_eq!(tokens.slice(2..5), None);
    assert_eq!(
        m.array("a.f32").unwrap().slice(1..3),
        Some(Array::F32(vec![0.5; 2]))
    );
    assert_eq!(m.array("a.f32").unwrap().slice(9..9).unwrap().len(), 0);
}

#[test]
fn unknown_types_leave_the_header_readable() {
    let mut file = sample::file();
    let name = b"blk.0.attn_norm.weight";
    let at = file.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8;
    file[at..at + 4].copy_from_slice(&777u32.to_le_bytes());
    let header = Header::read(&file).unwrap();
    let tensor = header.tensor("blk.0.attn_norm.weight").unwrap();
    assert_eq!(tensor.ggml_type, GgmlType::Unknown(777));
    let error = header.file_range(tensor).unwrap_err();
    assert_eq!(
        error,
        KeyError::UnknownTensorType {
            tensor: tensor.name.clone(),
            id: 777
        }
    );
    let model = Model::read([("m".into(), file.as_slice())]).unwrap();
    assert_eq!(model.tensor_bytes().unwrap_err(), error);
}

#[test]
fn a_model_sums_its_tensors() {
    let file = sample::file();
    let model = Model::read([("m".into(), file.as_slice())]).unwrap();
    assert_eq!(model.parameter_count(), 256 + 3 + 30 + 1);
    assert_eq!(model.tensor_bytes().unwrap(), 8 * 34 + 12 + 60 + 1);
    assert_eq!(model.file_bytes(), Some(file.len() as u64));
    assert_eq!(model.quantization(), "Q8_0");
}

#[test]
fn the_fingerprint_is_that_of_the_content() {
    let print = |file: &[u8]| Model::read([("m".into(), file)]).unwrap().fingerprint();
    let wanted = print(&sample::file());
    // A change of these digits means that nodes of different versions disagree.
    assert_eq!(wanted.short(), "f5104aa1017f");
    assert_eq!(wanted.to_string().parse(), Ok(wanted));
    let mut reordered: Vec<_> = sample::TENSORS.to_vec();
    reordered.reverse();
    assert_eq!(
        print(&sample::write(sample::metadata(), &reordered)),
        wanted
    );
    assert_ne!(
        print(&sample::write(sample::metadata(), &reordered[1..])),
        wanted
    );
    let mut m = sample::metadata();
    m.set("t.u8", 9u8);
    assert_ne!(print(&sample::write(m, sample::TENSORS)), wanted);
    assert_eq!(
        "12".parse::<gguf::Fingerprint>(),
        Err(gguf::FingerprintParseError)
    );
    assert!("g".repeat(64).parse::<gguf::Fingerprint>().is_err());
}
