//! Fuzz target: see `node::fuzzing::call`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(node::fuzzing::samples("call")),
    |bytes: &[u8]| {
        node::fuzzing::call(bytes);
    }
);
