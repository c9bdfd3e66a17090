//! Fuzz target: see `mesh::fuzzing::membership`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::membership(bytes);
});
