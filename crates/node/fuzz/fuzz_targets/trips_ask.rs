//! Fuzz target: see `node::fuzzing::trips_ask`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(node::fuzzing::samples("trips_ask")),
    |bytes: &[u8]| {
        node::fuzzing::trips_ask(bytes);
    }
);
