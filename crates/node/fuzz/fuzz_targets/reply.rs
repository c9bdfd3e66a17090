//! Fuzz target: see `node::fuzzing::reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(node::fuzzing::samples("reply")),
    |bytes: &[u8]| {
        node::fuzzing::reply(bytes);
    }
);
