//! Fuzz target: see `mesh::fuzzing::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mesh::fuzzing::message(bytes);
});
