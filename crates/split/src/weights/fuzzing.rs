//! Owns what reads foreign bytes here, for `crate::fuzzing`.

use gguf::{Fingerprint, GgmlType, Metadata, Plan, SliceRole};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue};

use super::chunk::{ChunkId, SliceKey};
use super::headers::Headers;
use super::http::range::content_range;
use super::wire::{Answer, Ask, Refusal};

/// Has one form only: what is read is written as it came.
pub(crate) fn ask(bytes: &[u8]) -> bool {
    let Ok(read) = Ask::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(read.to_bytes(), bytes);
    true
}

pub(crate) fn answer(bytes: &[u8]) -> bool {
    let Ok(read) = Answer::from_bytes(bytes.to_vec()) else {
        return false;
    };
    assert_eq!(Answer::from_bytes(read.to_bytes()), Ok(read));
    true
}

/// The headers as bytes, and the models that they may describe.
pub(crate) fn headers(bytes: &[u8]) -> bool {
    let Ok(read) = Headers::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(read.to_bytes(), bytes);
    let _ = read.model(Fingerprint([0; 32]));
    true
}

pub(crate) fn range(bytes: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return false;
    };
    let headers = HeaderMap::from_iter([(CONTENT_RANGE, value)]);
    let Some(range) = content_range(&headers) else {
        return false;
    };
    assert!(range.start < range.end && range.end <= range.total);
    true
}

pub(crate) fn asks() -> Vec<Vec<u8>> {
    let model = Fingerprint([3; 32]);
    let slice = SliceKey {
        model,
        layers: 4..9,
        role: SliceRole::Tail,
    };
    let chunks = (0..3).map(|number| ChunkId { tensor: 7, number });
    [
        Ask::Headers(model),
        Ask::Holdings(model),
        Ask::Manifest(slice),
        Ask::Chunks(model, chunks.collect()),
    ]
    .map(|ask| ask.to_bytes())
    .into()
}

pub(crate) fn answers() -> Vec<Vec<u8>> {
    [
        Answer::Refused(Refusal::Busy),
        Answer::Alive,
        Answer::Body(1 << 20),
        Answer::Data(vec![1, 2, 3]),
    ]
    .map(|answer| answer.to_bytes())
    .into()
}

/// Of a small model in one file, and of the same twice.
pub(crate) fn headers_of_a_model() -> Vec<Vec<u8>> {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "qwen3");
    metadata.set("qwen3.block_count", 2u32);
    metadata.set("qwen3.embedding_length", 32u32);
    let header = Plan::new(metadata).and_then(|mut plan| {
        plan.add("token_embd.weight", &[32, 4], GgmlType::Q8_0)?;
        plan.add("blk.0.attn_norm.weight", &[32], GgmlType::F32)?;
        plan.header_bytes()
    });
    let header = header.unwrap_or_default();
    let part = || (1 << 20, header.clone());
    [vec![part()], vec![part(), part()]]
        .map(|parts| Headers::from_parts(parts).to_bytes())
        .into()
}
