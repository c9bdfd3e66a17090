//! What this build can compute on beside the CPU.

use llama::{Device, DeviceKind};

/// The GPUs that models are put on, as people call them, each with its memory.
#[must_use]
pub fn gpus() -> Vec<String> {
    let devices = llama::devices();
    let gpus = devices.iter().filter(|device| is_gpu(device));
    gpus.map(|device| name(&device.description, device.total_bytes))
        .collect()
}

/// Memory that is free on all GPUs together, or on the one of this name, bytes; `None` if one of them does not
/// tell, or has this name. GPUs that use the machine's main memory have none of their own. Asks drivers, which may
/// take long.
#[must_use]
pub fn gpu_bytes_free(name: Option<&str>) -> Option<u64> {
    free_on(&llama::devices(), name)
}

fn free_on(devices: &[Device], name: Option<&str>) -> Option<u64> {
    // As llama.cpp is given them.
    let is_meant =
        |device: &&Device| name.is_none_or(|name| device.name.eq_ignore_ascii_case(name));
    let mut meant = devices.iter().filter(is_meant).peekable();
    if name.is_some() {
        meant.peek()?;
    }
    let mut gpus = meant.filter(|d| d.kind == DeviceKind::Gpu);
    gpus.try_fold(0_u64, |sum, gpu| {
        let is_known = gpu.total_bytes > 0;
        is_known.then(|| sum.saturating_add(gpu.free_bytes))
    })
}

fn is_gpu(device: &Device) -> bool {
    matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu)
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
    fn gpus_are_free_together_if_all_of_them_tell() {
        let device = |kind, free_bytes, total_bytes| Device {
            name: String::new(),
            description: String::new(),
            kind,
            free_bytes,
            total_bytes,
        };
        let cpu = device(DeviceKind::Cpu, 90, 100);
        assert_eq!(free_on(std::slice::from_ref(&cpu), None), Some(0));
        let gpu = device(DeviceKind::Gpu, 7, 8);
        let shared = device(DeviceKind::IntegratedGpu, 9, 16);
        let mut devices = vec![cpu, gpu.clone(), shared, gpu];
        assert_eq!(free_on(&devices, None), Some(14));
        devices[1].name = "CUDA0".into();
        assert_eq!(free_on(&devices, Some("cuda0")), Some(7));
        assert_eq!(free_on(&devices, Some("cuda7")), None);
        devices.push(device(DeviceKind::Gpu, u64::MAX, u64::MAX));
        assert_eq!(free_on(&devices, None), Some(u64::MAX));
        devices.push(device(DeviceKind::Gpu, 0, 0));
        assert_eq!(free_on(&devices, None), None);
    }

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
