//! Fuzz target: slices of any bytes as a GGUF file.
#![no_main]

mod slicing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    slicing::check(bytes);
});
