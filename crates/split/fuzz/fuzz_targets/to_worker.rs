//! Fuzz target: see `split::fuzzing::to_worker`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("to_worker")),
    |bytes: &[u8]| {
        split::fuzzing::to_worker(bytes);
    }
);
