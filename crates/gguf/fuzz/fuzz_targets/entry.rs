//! What every run of the fuzzer does with its bytes. A plain test runs the same function.

use gguf::{Header, Model, Plan, Prefix};

/// Reads the bytes as a file and as the start of a larger one, asks every question, and writes
/// the header again. Says whether they were a readable file.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let _ = Header::read(&Prefix { bytes, total: None });
    let _ = Header::read(&Prefix {
        bytes,
        total: Some(u64::MAX),
    });
    let Ok(model) = Model::read([("fuzz".into(), bytes)]) else {
        return false;
    };
    ask(&model);
    let header = &model.parts()[0].header;
    if let Ok(plan) = Plan::of(header) {
        let written = plan.header_bytes().unwrap_or_default();
        if !written.is_empty() {
            let again = Header::read(&Prefix {
                bytes: &written,
                total: None,
            });
            // NaN is not equal to itself, so compare the bytes that both give.
            let again = again
                .ok()
                .and_then(|h| Plan::of(&h).ok())
                .and_then(|p| p.header_bytes().ok());
            assert!(
                again == Some(written),
                "a header changed on its way through the writer"
            );
        }
    }
    true
}

fn ask(model: &Model) {
    let m = model.metadata();
    let _ = (
        m.architecture(),
        m.name(),
        m.quantization(),
        m.chat_template(),
    );
    let _ = (
        m.block_count(),
        m.context_length(),
        m.embedding_length(),
        m.vocab_size(),
    );
    let _ = (
        m.head_counts(),
        m.kv_head_counts(),
        m.kv_bytes_per_token(),
        m.pooling(),
    );
    let _ = (
        model.parameter_count(),
        model.tensor_bytes(),
        model.file_bytes(),
        model.quantization(),
    );
    let _ = model.fingerprint().short();
    for tensor in model.tensors() {
        if let Ok(range) = tensor.file_range() {
            assert!(range.start <= range.end);
            let size = model.parts()[0].size.unwrap_or(u64::MAX);
            assert!(
                range.is_empty() || range.end <= size,
                "a tensor lies outside the file"
            );
        }
        let _ = (tensor.info.layer(), tensor.info.row_bytes());
    }
}
