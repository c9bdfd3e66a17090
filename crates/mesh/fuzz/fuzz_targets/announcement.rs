//! Fuzz target: see `mesh::fuzzing::announcement`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("announcement")),
    |bytes: &[u8]| {
        mesh::fuzzing::announcement(bytes);
    }
);
