//! Fuzz target: see `mesh::fuzzing::hello`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::hello(bytes);
});
