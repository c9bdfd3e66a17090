//! Fuzz target: see `mesh::fuzzing::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("message")),
    |bytes: &[u8]| {
        mesh::fuzzing::message(bytes);
    }
);
