//! Fuzz target: see `split::fuzzing::opening`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    split::fuzzing::opening(bytes);
});
