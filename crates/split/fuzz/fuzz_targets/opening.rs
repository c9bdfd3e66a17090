//! Fuzz target: see `split::fuzzing::opening`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("opening")),
    |bytes: &[u8]| {
        split::fuzzing::opening(bytes);
    }
);
