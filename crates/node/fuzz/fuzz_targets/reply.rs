//! Fuzz target: see `node::fuzzing::reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    node::fuzzing::reply(bytes);
});
