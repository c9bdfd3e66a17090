//! Fuzz target: see `node::fuzzing::call`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    node::fuzzing::call(bytes);
});
