//! Fuzz target: see `mesh::fuzzing::joined`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("joined")),
    |bytes: &[u8]| {
        mesh::fuzzing::joined(bytes);
    }
);
