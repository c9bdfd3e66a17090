//! Fuzz target: see `mesh::fuzzing::ticket`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("ticket")),
    |bytes: &[u8]| {
        mesh::fuzzing::ticket(bytes);
    }
);
