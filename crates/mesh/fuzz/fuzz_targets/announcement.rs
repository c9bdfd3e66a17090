//! Fuzz target: see `mesh::fuzzing::announcement`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::announcement(bytes);
});
