//! Fuzz target: see `mesh::fuzzing::revocation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::revocation(bytes);
});
