//! Fuzz target: see `mesh::fuzzing::joined`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::joined(bytes);
});
