//! Fuzz target: see `mesh::fuzzing::answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(mesh::fuzzing::samples("answer")),
    |bytes: &[u8]| {
        mesh::fuzzing::answer(bytes);
    }
);
