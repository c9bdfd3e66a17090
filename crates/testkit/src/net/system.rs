//! Owns the system calls for which no safe wrapper is at hand: TUN devices, real-time priority, and
//! a command that ends with the thread that started it. The only `unsafe` outside of `llama`.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Names of interfaces end with a zero byte.
const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

/// Opens a new TUN device in the calling thread's network namespace. Reads and writes never wait;
/// each moves one IP packet behind a `virtio_net_hdr`. The device goes with the file.
pub(super) fn open_tun(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags as libc::c_short,
        },
    };
    for (to, from) in request.ifr_name[..NAME_BYTES_MAX]
        .iter_mut()
        .zip(name.bytes())
    {
        *to = from as libc::c_char;
    }
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    checked(result)?;
    Ok(file)
}

/// Whether the kernel may hand over many segments of a stream as one packet, with its checksum
/// still to be made. Packets of that kind may be written to such a device in any case.
pub(super) fn set_offload(tun: &File, on: bool) -> io::Result<()> {
    let checksums = libc::TUN_F_CSUM;
    let tcp = checksums | libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN;
    let udp = tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    // Kernels before 6.2 know nothing of UDP here.
    let choices: &[_] = if on { &[udp, tcp] } else { &[0] };
    let mut outcome = Ok(());
    for flags in choices {
        // SAFETY: the descriptor is open, and TUNSETOFFLOAD takes its flags by value.
        let result = unsafe {
            libc::ioctl(
                tun.as_raw_fd(),
                libc::TUNSETOFFLOAD as _,
                libc::c_ulong::from(*flags),
            )
        };
        outcome = checked(result);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Lets the calling thread run before all ordinary ones, as soon as it has something to do.
pub(super) fn run_first() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread; the parameters are read during the call only.
    checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) })
}

/// The kernel will kill the command's process once the thread that spawns it ends, however it ends.
pub(super) fn end_with_spawning_thread(command: &mut Command) {
    let ask = || prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor locks.
    unsafe { command.pre_exec(ask) };
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
