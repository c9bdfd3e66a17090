//! Fuzz target: see `mesh::fuzzing::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("certificate")),
    |bytes: &[u8]| {
        mesh::fuzzing::certificate(bytes);
    }
);
