//! Process-wide state of llama.cpp: initialisation, log, devices, CPU features.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard};

use llama_cpp_sys_2 as sys;

static INIT: Once = Once::new();
static CONTEXT_MADE: Once = Once::new();

/// Held by every computation, and for ever by the end of the process.
static COMPUTING: RwLock<()> = RwLock::new(());
static ENDING: AtomicBool = AtomicBool::new(false);

/// Longest tail of llama.cpp's error log kept for error messages, bytes.
const ERROR_TAIL_BYTES_MAX: usize = 2048;

thread_local! {
    /// Error lines that llama.cpp logged on this thread since [`take_errors`].
    static ERRORS: RefCell<String> = const { RefCell::new(String::new()) };
    /// A line that llama.cpp has begun and not ended.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Initialises llama.cpp once per process and sends its log to `tracing` (target `llama_cpp`).
pub fn init() {
    INIT.call_once(|| {
        // SAFETY: `log` is a plain function that lives as long as the process and takes no state.
        unsafe { sys::llama_log_set(Some(log), std::ptr::null_mut()) };
        // SAFETY: called once, before any other use of llama.cpp.
        unsafe { sys::llama_backend_init() };
        guard_end();
    });
}

/// Registers [`wait_for_computations`] to run before the destructors of everything made so far.
fn guard_end() {
    // SAFETY: the function lives as long as the process and takes no state. A refusal (no memory)
    // leaves things as they are without it.
    unsafe { libc::atexit(wait_for_computations) };
}

/// To be called when a context has been made: by then llama.cpp has made all its global objects.
pub(crate) fn context_made() {
    CONTEXT_MADE.call_once(guard_end);
}

/// While the process ends, the C++ runtime destroys ggml's global objects: a thread that computes
/// then would crash. So the end waits for the computations that run, a step each, and keeps others
/// from starting.
extern "C" fn wait_for_computations() {
    if ENDING.swap(true, Ordering::AcqRel) {
        // Registered twice; the first call holds the lock for good.
        return;
    }
    std::mem::forget(COMPUTING.write().unwrap_or_else(PoisonError::into_inner));
}

/// Whether the process is ending.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::Acquire)
}

/// To be held while llama.cpp computes or loads.
pub(crate) fn computing() -> RwLockReadGuard<'static, ()> {
    COMPUTING.read().unwrap_or_else(PoisonError::into_inner)
}

/// The error lines logged on this thread since the last call, and forgets them.
pub(crate) fn take_errors() -> String {
    ERRORS.with_borrow_mut(|e| std::mem::take(e).trim().replace('\n', "; "))
}

/// Receives llama.cpp's log: text may come in parts, a part with level CONT continues a line.
unsafe extern "C" fn log(level: sys::ggml_log_level, text: *const c_char, _state: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    if level == sys::GGML_LOG_LEVEL_ERROR {
        ERRORS.with_borrow_mut(|e| {
            if e.len() + text.len() <= ERROR_TAIL_BYTES_MAX {
                e.push_str(&text);
            }
        });
    }
    LINE.with_borrow_mut(|line| {
        line.push_str(&text);
        if !line.ends_with('\n') && line.len() < ERROR_TAIL_BYTES_MAX {
            return;
        }
        let message = line.trim_end();
        if !message.is_empty() {
            match level {
                sys::GGML_LOG_LEVEL_ERROR => tracing::warn!(target: "llama_cpp", "{message}"),
                sys::GGML_LOG_LEVEL_WARN => tracing::debug!(target: "llama_cpp", "{message}"),
                _ => tracing::trace!(target: "llama_cpp", "{message}"),
            }
        }
        line.clear();
    });
}

/// What kind of hardware a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU and main memory.
    Cpu,
    /// A GPU with its own memory.
    Gpu,
    /// A GPU that shares main memory.
    IntegratedGpu,
    /// Anything else (for example a matrix unit of the CPU).
    Accelerator,
}

/// One device that ggml can compute on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name for `--device` (for example `CPU`, `CUDA0`, `Metal`).
    pub name: String,
    /// What the driver calls it.
    pub description: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Free memory, bytes; 0 when unknown.
    pub free_bytes: u64,
    /// Memory in all, bytes; 0 when unknown.
    pub total_bytes: u64,
}

/// The devices of this build, the CPU included.
#[must_use]
pub fn devices() -> Vec<Device> {
    raw_devices()
        .into_iter()
        .map(|(_, device)| device)
        .collect()
}

pub(crate) fn raw_devices() -> Vec<(sys::ggml_backend_dev_t, Device)> {
    init();
    // SAFETY: the registry is initialised; the call has no other precondition.
    let count = unsafe { sys::ggml_backend_dev_count() };
    (0..count)
        .map(|index| {
            // SAFETY: `index` is below the count; devices live as long as the process.
            let device = unsafe { sys::ggml_backend_dev_get(index) };
            (device, describe(device))
        })
        .collect()
}

fn describe(device: sys::ggml_backend_dev_t) -> Device {
    let (mut free, mut total) = (0usize, 0usize);
    // SAFETY: `device` comes from the registry and the two out-pointers are valid.
    unsafe { sys::ggml_backend_dev_memory(device, &mut free, &mut total) };
    // SAFETY: `device` comes from the registry.
    let kind = match unsafe { sys::ggml_backend_dev_type(device) } {
        sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
        sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
        sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
        _ => DeviceKind::Accelerator,
    };
    Device {
        // SAFETY: both functions return static strings of the device.
        name: unsafe { text(sys::ggml_backend_dev_name(device)) },
        // SAFETY: as above.
        description: unsafe { text(sys::ggml_backend_dev_description(device)) },
        kind,
        free_bytes: free as u64,
        total_bytes: total as u64,
    }
}

/// # Safety
/// `pointer` is null or a NUL-terminated string that lives for the call.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

/// Rows of a batch that cost as much as one more or one fewer, where the weights are multiplied on
/// the CPU: the tiles of matrix units have 32 rows, vector kernels take four at a time.
#[must_use]
pub fn row_group() -> usize {
    // SAFETY: takes nothing, and returns a string that lives as long as the process.
    let features = unsafe { text(sys::llama_print_system_info()) };
    if features.contains("AMX_INT8 = 1") {
        32
    } else {
        4
    }
}

/// Instruction sets that this CPU has, that llama.cpp has kernels for, and that this build lacks.
///
/// Not empty means that the build is much slower than it could be, without AVX or matrix units many
/// times: it was compiled without `-C target-cpu=native`, or for another machine.
#[must_use]
pub fn cpu_features_missing() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        // (name, the CPU has it, the build uses it)
        // SAFETY: the `ggml_cpu_has_*` functions return constants of the build.
        let table = unsafe {
            [
                (
                    "avx",
                    std::is_x86_feature_detected!("avx"),
                    sys::ggml_cpu_has_avx(),
                ),
                (
                    "avx2",
                    std::is_x86_feature_detected!("avx2"),
                    sys::ggml_cpu_has_avx2(),
                ),
                (
                    "fma",
                    std::is_x86_feature_detected!("fma"),
                    sys::ggml_cpu_has_fma(),
                ),
                (
                    "f16c",
                    std::is_x86_feature_detected!("f16c"),
                    sys::ggml_cpu_has_f16c(),
                ),
                (
                    "bmi2",
                    std::is_x86_feature_detected!("bmi2"),
                    sys::ggml_cpu_has_bmi2(),
                ),
                (
                    "avx512f",
                    std::is_x86_feature_detected!("avx512f"),
                    sys::ggml_cpu_has_avx512(),
                ),
                (
                    "avx512vnni",
                    std::is_x86_feature_detected!("avx512vnni"),
                    sys::ggml_cpu_has_avx512_vnni(),
                ),
                (
                    "avxvnni",
                    // Its kernels stand in where those of AVX-512 can't be had.
                    std::is_x86_feature_detected!("avxvnni")
                        && !std::is_x86_feature_detected!("avx512vnni"),
                    sys::ggml_cpu_has_avx_vnni(),
                ),
                (
                    "avx512bf16",
                    std::is_x86_feature_detected!("avx512bf16"),
                    sys::ggml_cpu_has_avx512_bf16(),
                ),
                ("amx-int8", has_amx(), sys::ggml_cpu_has_amx_int8()),
            ]
        };
        table
            .into_iter()
            .filter(|(_, cpu, build)| *cpu && *build == 0)
            .map(|(n, _, _)| n)
            .collect()
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: the `ggml_cpu_has_*` functions return constants of the build.
        let table = unsafe {
            [
                (
                    "dotprod",
                    std::arch::is_aarch64_feature_detected!("dotprod"),
                    sys::ggml_cpu_has_dotprod(),
                ),
                (
                    "i8mm",
                    std::arch::is_aarch64_feature_detected!("i8mm"),
                    sys::ggml_cpu_has_matmul_int8(),
                ),
            ]
        };
        table
            .into_iter()
            .filter(|(_, cpu, build)| *cpu && *build == 0)
            .map(|(n, _, _)| n)
            .collect()
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    Vec::new()
}

/// Whether there are matrix units for 8-bit integers, and the system lets programs use them. The
/// standard library can't tell yet.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    let cpus = std::fs::read_to_string("/proc/cpuinfo");
    cpus.is_ok_and(|cpus| has_flag(&cpus, "amx_int8"))
}

/// Whether the first CPU in the text of `/proc/cpuinfo` has `flag`.
#[cfg(any(target_arch = "x86_64", test))]
fn has_flag(cpus: &str, flag: &str) -> bool {
    let flags = cpus.lines().find_map(|line| line.strip_prefix("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|word| word == flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_cpu_are_whole_words() {
        let cpus = "processor\t: 0\nflags\t\t: fpu amx_tile amx_int8 avx512f\n\n\
            processor\t: 1\nflags\t\t: fpu avx2\n";
        assert!(has_flag(cpus, "amx_int8") && has_flag(cpus, "avx512f"));
        // Neither a part of a word nor the second CPU's.
        assert!(!has_flag(cpus, "amx") && !has_flag(cpus, "avx2"));
        assert!(!has_flag("", "amx_int8"));
    }
}
