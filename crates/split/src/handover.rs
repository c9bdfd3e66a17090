//! Hands a frame from one thread to the next on the core of the first.
//!
//! The token of a single stream passes through some threads, of which only one has anything to do at a time: the
//! runtime's reads a frame, the next computes, the runtime's sends what came of it. Linux wakes a sleeping thread on a
//! core that idles. Such a core must be interrupted, wakes slowly (in a virtual machine, through the hypervisor) and
//! has other things in its caches, while the giver's goes idle at the same time: a quarter of a millisecond, twice a hop,
//! where the same core would need a switch. So who is about to sleep lets the taker run on its own core,
//! and the taker is free again as soon as it runs.
//!
//! Nothing depends on it: where the system can't do this, or cores are of several kinds, nothing happens.

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use none as system;

use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Frames with more rows take so long that the way to them does not count.
pub(crate) const ROWS_MAX: usize = 16;

/// A thread that frames are handed to.
#[derive(Debug, Default)]
pub struct Seat {
    /// As the system counts threads.
    thread: AtomicI32,
    /// It sleeps, or is about to.
    is_waiting: AtomicBool,
    /// It was called to one core.
    called: Mutex<Option<system::Called>>,
}

/// As long as it lives, the thread that made it can be called.
#[derive(Debug)]
pub struct Waiting<'a>(&'a Seat);

impl Seat {
    /// The calling thread is about to wait for a frame, and does nothing else until what this gives is dropped.
    pub fn wait(&self) -> Waiting<'_> {
        self.begin();
        Waiting(self)
    }

    fn begin(&self) {
        self.thread.store(system::this_thread(), Ordering::Relaxed);
        self.is_waiting.store(true, Ordering::Release);
    }

    /// Whether the thread had been called.
    fn end(&self) -> bool {
        self.is_waiting.store(false, Ordering::Relaxed);
        let called = self.lock().take();
        if let Some(called) = &called {
            system::free(system::this_thread(), called);
        }
        called.is_some()
    }

    /// Lets the thread that waits wake up on this core. The caller wakes it next, and then has nothing more to do.
    pub(crate) fn call(&self) {
        // Held until it is known where the thread ran before, so that it can't miss that when it wakes up meanwhile.
        let mut called = self.lock();
        if self.is_waiting.load(Ordering::Acquire) {
            system::call(self.thread.load(Ordering::Relaxed), &mut called);
        }
    }

    /// Another one was woken instead.
    fn release(&self) {
        // The thread can't end meanwhile, for it would have to take this lock before.
        let mut called = self.lock();
        if self.is_waiting.load(Ordering::Acquire)
            && let Some(called) = called.take()
        {
            system::free(self.thread.load(Ordering::Relaxed), &called);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<system::Called>> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The runtime's threads.
static RUNTIME: Mutex<Vec<Weak<Seat>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: OnceCell<Arc<Seat>> = const { OnceCell::new() };
}

/// To be called by each thread of the runtime before it sleeps: see `tokio::runtime::Builder::on_thread_park`. A
/// runtime that does not call this is never handed anything in this way.
pub fn runtime_thread_parks() {
    // Fails only in a thread that is ending.
    let _ = OWN.try_with(|own| own.get_or_init(register).begin());
}

/// To be called by each thread of the runtime after it slept: see `tokio::runtime::Builder::on_thread_unpark`.
pub fn runtime_thread_unparks() {
    let was_called = OWN.try_with(|own| own.get().is_some_and(|seat| seat.end()));
    if was_called.unwrap_or(false) {
        // All that slept were, and one of them was meant.
        each_of_runtime(Seat::release);
    }
}

fn register() -> Arc<Seat> {
    let seat = Arc::new(Seat::default());
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    runtime.retain(|seat| seat.strong_count() > 0);
    runtime.push(Arc::downgrade(&seat));
    seat
}

/// Lets the runtime's threads that sleep wake up on this core, as [`Seat::call`].
pub(crate) fn call_runtime() {
    each_of_runtime(Seat::call);
}

fn each_of_runtime(what: impl Fn(&Seat)) {
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let seats = runtime.iter().filter_map(Weak::upgrade);
    seats.for_each(|seat| what(&seat));
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::Path;
    use std::sync::OnceLock;

    use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
    use nix::unistd::{Pid, gettid};

    /// Where a thread was called to, and where it might run before.
    #[derive(Debug)]
    pub(super) struct Called {
        core: usize,
        before: CpuSet,
    }

    pub(super) fn this_thread() -> i32 {
        gettid().as_raw()
    }

    /// Lets a thread run on this core only, if it might run there. Where the system forbids it, nothing changes.
    pub(super) fn call(thread: i32, called: &mut Option<Called>) {
        if are_alike() {
            let _ = try_to_call(Pid::from_raw(thread), called);
        }
    }

    fn try_to_call(thread: Pid, called: &mut Option<Called>) -> nix::Result<()> {
        let core = sched_getcpu()?;
        let before = match called {
            Some(called) if called.core == core => return Ok(()),
            Some(called) => called.before,
            None => sched_getaffinity(thread)?,
        };
        let mut here = CpuSet::new();
        here.set(core)?;
        if here != before && before.is_set(core)? {
            sched_setaffinity(thread, &here)?;
            *called = Some(Called { core, before });
        }
        Ok(())
    }

    /// Lets a thread run again where it might before.
    pub(super) fn free(thread: i32, called: &Called) {
        // Fails only if those cores were taken from the process meanwhile.
        let _ = sched_setaffinity(Pid::from_raw(thread), &called.before);
    }

    /// Where cores are of several kinds, the one that reads from the network may be a slow one.
    pub(super) fn are_alike() -> bool {
        static ALIKE: OnceLock<bool> = OnceLock::new();
        *ALIKE.get_or_init(|| {
            let hybrid = Path::new("/sys/devices/cpu_atom").exists();
            !hybrid && capacities().is_none_or(|all| all.windows(2).all(|two| two[0] == two[1]))
        })
    }

    /// What each core can do, where the system tells.
    fn capacities() -> Option<Vec<String>> {
        let cores = fs::read_dir("/sys/devices/system/cpu").ok()?;
        let capacity = |core: fs::DirEntry| fs::read_to_string(core.path().join("cpu_capacity"));
        let told = cores.flatten().filter_map(|core| capacity(core).ok());
        Some(told.collect())
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    /// Nobody is called anywhere.
    #[derive(Debug)]
    pub(super) enum Called {}

    pub(super) fn this_thread() -> i32 {
        0
    }

    pub(super) fn call(_: i32, _: &mut Option<Called>) {}

    pub(super) fn free(_: i32, _: &Called) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::{Pid, gettid};

    use super::*;

    fn cores(thread: i32) -> usize {
        let set = sched_getaffinity(Pid::from_raw(thread)).unwrap();
        let cores = 0..CpuSet::count();
        cores.filter(|core| set.is_set(*core).unwrap()).count()
    }

    /// Who waits is called to one core, and has all of them back when it goes on.
    #[test]
    fn who_is_called_is_free_again_when_it_runs() {
        let all = cores(0);
        let narrowed = if system::are_alike() { 1 } else { all };
        let seat = Arc::new(Seat::default());
        seat.call();
        assert!(seat.lock().is_none(), "nobody waits");
        let (wake, woken) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let there = Arc::clone(&seat);
        let taker = thread::spawn(move || {
            {
                let _waiting = there.wait();
                tell.send(gettid().as_raw()).unwrap();
                woken.recv_timeout(Duration::from_secs(20)).unwrap();
            }
            cores(0)
        });
        let thread = told.recv_timeout(Duration::from_secs(20)).unwrap();
        seat.call();
        assert_eq!(cores(thread), narrowed);
        // Another is woken instead.
        seat.release();
        assert_eq!(cores(thread), all);
        // A second time, from elsewhere perhaps, changes nothing about where it goes back to.
        seat.call();
        let there = Arc::clone(&seat);
        thread::spawn(move || there.call()).join().unwrap();
        assert_eq!(cores(thread), narrowed);
        wake.send(()).unwrap();
        assert_eq!(taker.join().unwrap(), all);
        seat.call();
        assert!(seat.lock().is_none(), "nobody waits any more");
    }
}
