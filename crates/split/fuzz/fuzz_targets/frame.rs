//! Fuzz target: see `split::fuzzing::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    split::fuzzing::frame(bytes);
});
