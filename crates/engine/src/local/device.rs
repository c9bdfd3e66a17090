//! What this build can compute on beside the CPU, for showing.

use llama::DeviceKind;

/// The GPUs that models are put on, as people call them, each with its memory.
#[must_use]
pub fn gpus() -> Vec<String> {
    let devices = llama::devices().into_iter();
    let gpus =
        devices.filter(|device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu));
    gpus.map(|device| name(&device.description, device.total_bytes))
        .collect()
}

fn name(description: &str, total_bytes: u64) -> String {
    let gib = total_bytes as f64 / f64::from(1 << 30);
    match total_bytes {
        0 => description.trim().to_owned(),
        _ => format!("{} ({gib:.0} GiB)", description.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_told_with_its_memory_if_that_is_known() {
        assert_eq!(name("NVIDIA X ", 80 << 30), "NVIDIA X (80 GiB)");
        assert_eq!(name("Apple M9", 0), "Apple M9");
        // A build for the CPU has none.
        assert!(
            gpus().is_empty()
                || cfg!(any(
                    feature = "cuda",
                    feature = "metal",
                    feature = "vulkan",
                    feature = "rocm"
                ))
        );
    }
}
