//! Fuzz target: see `mesh::fuzzing::join`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("join")),
    |bytes: &[u8]| {
        mesh::fuzzing::join(bytes);
    }
);
