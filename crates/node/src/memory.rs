//! How much memory this machine can still give.

use std::fmt;

use std::path::Path;

use sysinfo::{DiskRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

/// Memory that can be used without swapping, bytes: the system's own estimate, or what the
/// process's control group leaves when that is less.
///
/// On a system that does not tell, `u64::MAX`: better to try than to refuse without a reason.
#[must_use]
pub fn available_bytes() -> u64 {
    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let Ok(system) = System::new_with_specifics(ram) else {
        return u64::MAX;
    };
    let machine = system.available_memory();
    match system.cgroup_limits() {
        // A group without a limit reports the machine's total; its "free" is then meaningless,
        // as page cache counts as used there.
        Some(group) if group.total_memory < system.total_memory() => {
            machine.min(group.total_memory.saturating_sub(group.rss))
        }
        _ => machine,
    }
}

/// Bytes, shown in GiB or MiB with one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = 1024.0 * 1024.0;
        #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let mib = self.0 as f64 / MIB;
        if mib < 1024.0 {
            write!(formatter, "{mib:.1} MiB")
        } else {
            write!(formatter, "{:.1} GiB", mib / 1024.0)
        }
    }
}

/// Room on the disk that holds `folder`, bytes; `None` if that can't be told.
#[must_use]
pub fn disk_free_bytes(folder: &Path) -> Option<u64> {
    let folder = folder.canonicalize().ok()?;
    let looked = DiskRefreshKind::nothing().with_storage();
    let disks = Disks::new_with_refreshed_list_specifics(looked).ok()?;
    let holding = disks
        .iter()
        .filter(|disk| folder.starts_with(disk.mount_point()));
    // The innermost of nested mounts.
    holding
        .max_by_key(|disk| disk.mount_point().components().count())
        .map(sysinfo::Disk::available_space)
}

#[cfg(test)]
mod tests {
    use super::{ByteSize, available_bytes};

    #[test]
    fn some_memory_is_available() {
        assert!(available_bytes() > 1 << 20);
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0.0 MiB"),
            (8 << 20, "8.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "17179869184.0 GiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), shown);
        }
    }
}
