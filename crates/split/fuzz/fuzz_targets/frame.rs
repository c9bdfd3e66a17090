//! Fuzz target: see `split::fuzzing::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("frame")),
    |bytes: &[u8]| {
        split::fuzzing::frame(bytes);
    }
);
