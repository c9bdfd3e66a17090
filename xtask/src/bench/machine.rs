//! What the machine does meanwhile: load, processor time, memory, and where things are kept.
//!
//! Reads `/proc`; where there is none, the values are unknown and nothing depends on them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// Below this nothing else of weight is running.
const QUIET_LOAD: f64 = 0.7;

/// A machine that is not quiet by then will not become so; the table says what it was like.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(180);

/// The load average itself moves every five seconds.
const QUIET_POLL: Duration = Duration::from_secs(3);

/// Linux counts processor time in hundredths of a second for every program (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// More than this by others, in cores, is worth a remark.
const FOREIGN_CORES_NOTED: f64 = 0.05;

/// Where the bench keeps its model, its llama-server and its logs.
pub(super) fn cache_folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("there is no home folder; hint: set XDG_CACHE_HOME")?;
    let folder = base.join("mesh-llm").join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

/// A binary of the same build as this one.
pub(super) fn built_binary(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.is_file() {
        bail!("{} does not exist; hint: ./dev build", path.display());
    }
    Ok(path)
}

/// cmake for llama.cpp. GCC 12 miscompiles its kernels for matrix units unless it finds the repaired header first; cargo
/// tells it where, but not a program that runs by itself.
pub(super) fn cmake() -> Command {
    const VARIABLE: &str = "CPLUS_INCLUDE_PATH";
    let mut cmake = Command::new("cmake");
    if std::env::var_os(VARIABLE).is_none() {
        let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cargo/include");
        cmake.env(VARIABLE, headers);
    }
    cmake
}

pub(super) fn core_count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The processor's name, where known.
pub(super) fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit that is measured, where git knows one.
pub(super) fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Reads the file once, so that no server pays for the disk.
pub(super) fn warm_file_cache(path: &Path) -> Result<()> {
    let mut file =
        fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    io::copy(&mut file, &mut io::sink())?;
    Ok(())
}

/// Waits until nothing else runs, for a bounded time; returns the load it went on with.
pub(super) fn wait_until_quiet() -> Option<f64> {
    let start = Instant::now();
    loop {
        let load = load_average()?;
        if load < QUIET_LOAD {
            return Some(load);
        }
        if start.elapsed() >= QUIET_WAIT_MAX {
            eprintln!("bench: warning: the load is still {load:.2}; the numbers will be off");
            return Some(load);
        }
        eprintln!("bench: waiting for a quiet machine, the load is {load:.2}");
        thread::sleep(QUIET_POLL);
    }
}

/// Mean number of running threads over the last minute.
pub(super) fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg")
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Highest resident memory of a process so far, in bytes.
pub(super) fn peak_resident_bytes(pid: u32) -> Option<u64> {
    peak_from_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn peak_from_status(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Processor time of a process, by its number or `self`.
pub(super) fn process_cpu_seconds(pid: &str) -> Option<f64> {
    cpu_from_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// User and system time, fields 14 and 15 of `proc_pid_stat(5)`; the name before may hold spaces.
fn cpu_from_stat(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

/// Processor time of the whole machine, what the host took away included.
fn machine_cpu_seconds() -> Option<f64> {
    busy_from_stat(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `proc_stat(5)` without the fields 4 (idle) and 5 (waiting for disks), and
/// without the guests' at the end, which are part of the first.
fn busy_from_stat(stat: &str) -> Option<f64> {
    let fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8);
    let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(
        ticks
            .iter()
            .enumerate()
            .filter(|(index, _)| !matches!(index, 3 | 4))
            .map(|(_, ticks)| ticks)
            .sum::<f64>()
            / TICKS_PER_SECOND,
    )
}

/// Who used the processors while a server was measured, in cores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct CpuShare {
    pub(super) server: f64,
    pub(super) client: f64,
    /// Everybody else.
    pub(super) foreign: f64,
}

impl CpuShare {
    /// A remark for the progress line when others were busy too.
    pub(super) fn remark(self) -> String {
        if self.foreign > FOREIGN_CORES_NOTED {
            format!(", disturbed by others ({:.2} cores)", self.foreign)
        } else {
            String::new()
        }
    }
}

/// Measures who uses the processors from its start to its end.
pub(super) struct CpuClock {
    start: Instant,
    machine: Option<f64>,
    client: Option<f64>,
}

impl CpuClock {
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
            machine: machine_cpu_seconds(),
            client: process_cpu_seconds("self"),
        }
    }

    /// `server_seconds` is the time of a server that was started since.
    pub(super) fn stop(self, server_seconds: Option<f64>) -> Option<CpuShare> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let machine = machine_cpu_seconds()? - self.machine?;
        let client = process_cpu_seconds("self")? - self.client?;
        let server = server_seconds?;
        let foreign = (machine - client - server).max(0.0);
        Some(CpuShare {
            server: server / elapsed,
            client: client / elapsed,
            foreign: foreign / elapsed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_peak() {
        assert_eq!(
            peak_from_status("Name:\tx\nVmHWM:\t  1234 kB\nVmRSS:\t 1 kB\n"),
            Some(1234 * 1024)
        );
        assert_eq!(peak_from_status("Name:\tx\n"), None);
    }

    #[test]
    fn reads_processor_time_behind_an_odd_name() {
        let stat = "42 (a) b c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(cpu_from_stat(stat), Some(2.0));
        assert_eq!(cpu_from_stat("42 (a) S 1"), None);
    }

    #[test]
    fn does_not_count_idle_time_or_guests_twice() {
        assert_eq!(
            busy_from_stat("cpu  100 10 20 9999 9999 30 40 50 777 777\ncpu0 1\n"),
            Some(2.5)
        );
        assert_eq!(busy_from_stat("intr 1\n"), None);
    }
}
