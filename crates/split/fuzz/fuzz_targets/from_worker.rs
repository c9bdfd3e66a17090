//! Fuzz target: see `split::fuzzing::from_worker`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("from_worker")),
    |bytes: &[u8]| {
        split::fuzzing::from_worker(bytes);
    }
);
