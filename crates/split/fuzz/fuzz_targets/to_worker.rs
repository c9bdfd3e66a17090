//! Fuzz target: see `split::fuzzing::to_worker`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    split::fuzzing::to_worker(bytes);
});
