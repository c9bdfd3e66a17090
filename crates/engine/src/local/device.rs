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

/// Memory that is free on each GPU that layers are shared out among, in llama.cpp's order, bytes: on all with memory
/// of their own, or on the one of this name. `None` if there is none, or if one does not tell. Asks drivers.
pub(super) fn free_of_each(name: Option<&str>) -> Option<Vec<u64>> {
    each_free(&llama::devices(), name)
}

fn each_free(devices: &[Device], name: Option<&str>) -> Option<Vec<u64>> {
    let is_meant = |device: &&Device| {
        device.kind == DeviceKind::Gpu
            && name.is_none_or(|name| device.name.eq_ignore_ascii_case(name))
    };
    let told = devices.iter().filter(is_meant).map(|gpu| {
        let is_known = gpu.total_bytes > 0;
        is_known.then_some(gpu.free_bytes)
    });
    let free: Option<Vec<u64>> = told.collect();
    free.filter(|free| !free.is_empty())
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

    fn device(kind: DeviceKind, free_bytes: u64, total_bytes: u64) -> Device {
        Device {
            name: String::new(),
            description: String::new(),
            kind,
            free_bytes,
            total_bytes,
        }
    }

    #[test]
    fn layers_are_shared_among_gpus_with_memory_of_their_own() {
        let cpu = device(DeviceKind::Cpu, 90, 100);
        let shared = device(DeviceKind::IntegratedGpu, 9, 16);
        let mut devices = vec![cpu, shared];
        assert_eq!(each_free(&devices, None), None);
        for (name, free_bytes) in [("CUDA0", 7), ("CUDA1", 0)] {
            devices.push(Device {
                name: name.into(),
                ..device(DeviceKind::Gpu, free_bytes, 8)
            });
        }
        assert_eq!(each_free(&devices, None), Some(vec![7, 0]));
        assert_eq!(each_free(&devices, Some("cuda1")), Some(vec![0]));
        assert_eq!(each_free(&devices, Some("cuda7")), None);
        devices.push(device(DeviceKind::Gpu, 0, 0));
        assert_eq!(each_free(&devices, None), None);
        assert_eq!(each_free(&devices, Some("cuda0")), Some(vec![7]));
    }

    #[test]
    fn gpus_are_free_together_if_all_of_them_tell() {
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
