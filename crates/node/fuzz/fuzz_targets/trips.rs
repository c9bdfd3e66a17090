//! Fuzz target: see `node::fuzzing::trips`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(node::fuzzing::samples("trips")),
    |bytes: &[u8]| {
        node::fuzzing::trips(bytes);
    }
);
