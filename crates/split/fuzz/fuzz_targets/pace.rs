//! Fuzz target: see `split::fuzzing::pace`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("pace")),
    |bytes: &[u8]| {
        split::fuzzing::pace(bytes);
    }
);
