//! Fuzz target: see `split::fuzzing::answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    split::fuzzing::answer(bytes);
});
