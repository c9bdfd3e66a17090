//! Fuzz target: any bytes as a GGUF file.
#![no_main]

mod entry;
#[path = "../../tests/sample/mod.rs"]
mod sample;

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant([
        sample::file(),
        sample::write(sample::metadata(), &[]),
        sample::write(gguf::Metadata::new(), sample::TENSORS),
    ]),
    |bytes: &[u8]| {
        entry::check(bytes);
    }
);
