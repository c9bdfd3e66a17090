//! Fuzz target: see `split::fuzzing::content_range`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("content_range")),
    |bytes: &[u8]| {
        split::fuzzing::content_range(bytes);
    }
);
