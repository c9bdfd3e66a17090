//! Fuzz target: see `mesh::fuzzing::ticket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::ticket(bytes);
});
