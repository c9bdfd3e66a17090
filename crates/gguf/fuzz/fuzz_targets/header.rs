//! Fuzz target: any bytes as a GGUF file.
#![no_main]

mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    entry::check(bytes);
});
