//! Fuzz target: see `mesh::fuzzing::invitations`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("invitations")),
    |bytes: &[u8]| {
        mesh::fuzzing::invitations(bytes);
    }
);
