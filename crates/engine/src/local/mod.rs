//! Models in this process, on llama.cpp.
//!
//! [`Engine`] is the handle; one decode thread per model owns context, scheduler and samplers.
//! Requests go to it over a bounded channel, and each request's events come back over a bounded
//! channel of its own. Templates, tokenisation and parsing happen outside that thread.

mod choice;
mod decode;
mod device;
mod drafter;
mod embedder;
mod forward;
mod generation;
mod handle;
mod launch;
pub(crate) mod load;
mod offload;
mod pace;
mod placement;
mod purpose;
mod sample;
mod sampler;
mod shared;
mod step;
mod tokens;
mod vacancy;

pub use device::{gpu_bytes_free, gpus};
pub(crate) use forward::{Forward, ForwardError};
pub use handle::Engine;
pub use load::{Draft, LoadOptions, ModelSource, memory_needed, stage_options, threads_default};
pub use offload::Placement;
pub use placement::place;
pub use vacancy::Vacancy;

/// Checks that this build uses what the CPU has.
///
/// # Errors
/// Names the instruction sets that the build lacks; it is then many times slower than it could be.
pub fn native_kernels() -> Result<(), String> {
    let missing = llama::cpu_features_missing();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this build lacks {}, which the CPU has: it is much slower than it could be; \
         hint: build on this machine with RUSTFLAGS=\"-C target-cpu=native\" (`./dev build` does)",
        missing.join(", ")
    ))
}
