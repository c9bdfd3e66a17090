//! Fuzz target: see `mesh::fuzzing::membership`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("membership")),
    |bytes: &[u8]| {
        mesh::fuzzing::membership(bytes);
    }
);
