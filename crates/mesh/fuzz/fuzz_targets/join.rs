//! Fuzz target: see `mesh::fuzzing::join`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::join(bytes);
});
