//! Fuzz target: see `mesh::fuzzing::answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::answer(bytes);
});
