//! Fuzz target: see `mesh::fuzzing::hello`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("hello")),
    |bytes: &[u8]| {
        mesh::fuzzing::hello(bytes);
    }
);
