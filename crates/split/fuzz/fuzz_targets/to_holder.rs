//! Fuzz target: see `split::fuzzing::to_holder`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("to_holder")),
    |bytes: &[u8]| {
        split::fuzzing::to_holder(bytes);
    }
);
