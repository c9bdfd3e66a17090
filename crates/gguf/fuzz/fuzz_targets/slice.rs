//! Fuzz target: slices of any bytes as a GGUF file.
#![no_main]

mod slicing;
#[path = "../../tests/whole/mod.rs"]
mod whole;

/// Layers of the models to begin with: enough for every period of layers to be cut.
const LAYERS: u32 = 8;

libfuzzer_sys::fuzz_target!(
    init: testkit::corpus::plant(gguf::SplitArchitecture::all().iter().map(|architecture| {
        whole::file(whole::metadata(architecture.name, LAYERS), &whole::rows(LAYERS))
    })),
    |bytes: &[u8]| {
        slicing::check(bytes);
    }
);
