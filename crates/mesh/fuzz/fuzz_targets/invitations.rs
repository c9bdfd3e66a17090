//! Fuzz target: see `mesh::fuzzing::invitations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::invitations(bytes);
});
