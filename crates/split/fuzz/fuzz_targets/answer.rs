//! Fuzz target: see `split::fuzzing::answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(split::fuzzing::samples("answer")),
    |bytes: &[u8]| {
        split::fuzzing::answer(bytes);
    }
);
