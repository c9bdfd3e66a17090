//! Fuzz target: see `split::fuzzing::from_holder`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("from_holder")),
    |bytes: &[u8]| {
        split::fuzzing::from_holder(bytes);
    }
);
