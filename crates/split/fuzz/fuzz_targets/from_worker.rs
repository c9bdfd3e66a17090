//! Fuzz target: see `split::fuzzing::from_worker`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    split::fuzzing::from_worker(bytes);
});
