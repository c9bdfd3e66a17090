//! Fuzz target: see `mesh::fuzzing::revocation`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("revocation")),
    |bytes: &[u8]| {
        mesh::fuzzing::revocation(bytes);
    }
);
