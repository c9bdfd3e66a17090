//! Fuzz target: see `split::fuzzing::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("headers")),
    |bytes: &[u8]| {
        split::fuzzing::headers(bytes);
    }
);
