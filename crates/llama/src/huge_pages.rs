//! Asks the system to keep weights in large pages, where it keeps them in small ones unless asked.
//!
//! A token reads all weights, page after page. With pages of 4 KiB a third of the time goes into finding out where each
//! page is, and more when a pause of some milliseconds has driven that knowledge out of the caches, as between two
//! tokens of a part of a model: 411 MB were read in 43 ms, and in 57 after a pause of 20 ms; with large pages in 30.

/// Shortest area that is asked for, bytes. Weights of a model that is worth it take more; stacks of threads, which hardly
/// use their areas, take less.
const AREA_BYTES_MIN: usize = 32 << 20;

/// Looks for large areas of memory that belong to no file, and asks for large pages there. To be called when the areas
/// have been claimed and before anything is written to them: then they come in large pages from the beginning, which
/// costs less than small ones. Areas that are in use stay as they are until the system has time for them.
#[cfg(target_os = "linux")]
pub(crate) fn ask() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for (start, bytes) in areas(&maps) {
        // SAFETY: this advice changes no content, whatever is at the address by now. An error means that the system can't
        // or won't, and pages stay as they are.
        unsafe { libc::madvise(start as *mut libc::c_void, bytes, libc::MADV_HUGEPAGE) };
    }
}

/// Elsewhere the system decides by itself.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ask() {}

/// Where large areas without a file begin, and how many bytes they have, from the text of `proc_pid_maps(5)`.
#[cfg(any(target_os = "linux", test))]
fn areas(maps: &str) -> Vec<(usize, usize)> {
    let area = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let is_ours = fields.next()? == "rw-p" && fields.nth(2)? == "0" && fields.next().is_none();
        let start = usize::from_str_radix(start, 16).ok()?;
        let bytes = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
        (is_ours && bytes >= AREA_BYTES_MIN).then_some((start, bytes))
    };
    maps.lines().filter_map(area).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_areas_without_a_file_are_asked_for() {
        let maps = "\
            7f0000000000-7f0004000000 rw-p 00000000 00:00 0 \n\
            7f1000000000-7f1000800000 rw-p 00000000 00:00 0 \n\
            7f2000000000-7f2004000000 r--p 00000000 fe:00 4711                       /models/one.gguf\n\
            7f3000000000-7f3004000000 rw-p 00000000 fe:00 4711                       /models/one.gguf\n\
            7f4000000000-7f4004000000 ---p 00000000 00:00 0 \n\
            55000000000-55004000000 rw-p 00000000 00:00 0                          [heap]\n\
            nonsense\n";
        assert_eq!(areas(maps), [(0x7f00_0000_0000, 64 << 20)]);
    }
}
