//! Threads for work that recurses deeply, and for work that may have no end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Stack for compiling and rendering (and for reading schemas, which may refer to each other
/// 10,000 deep at 12 kB a level), bytes of address space. A source as long as allowed can
/// be a chain of 60,000 operators, and fuel buys lists nested 200,000 deep; both are walked, and
/// dropped, by recursion with under 1 kB a level.
const STACK_BYTES: usize = 256 << 20;
/// Parts in which time is counted: a process that was stopped for a while loses only one.
const PARTS: u32 = 10;

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// It was not done in time.
    Late,
    /// There is no thread to be had, or it has failed.
    NoThread,
}

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Runs work of one kind, and counts what was given up and still runs.
#[derive(Debug, Default)]
pub(super) struct Watch {
    stuck: Arc<AtomicU32>,
}

impl Watch {
    /// Work that was given up and still runs.
    pub(super) fn stuck(&self) -> u32 {
        self.stuck.load(SeqCst)
    }

    /// Runs `work` on a thread with a large stack. A thread can't be stopped: one that takes
    /// longer than `time_max` is left alone.
    pub(super) fn run<T: Send + 'static>(
        &self,
        time_max: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unfinished> {
        let (sender, receiver) = sync_channel(1);
        let state = Arc::new(AtomicU8::new(RUNNING));
        let (stuck, seen) = (Arc::clone(&self.stuck), Arc::clone(&state));
        let thread = std::thread::Builder::new()
            .name("template".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let result = work();
                if seen.swap(DONE, SeqCst) == GIVEN_UP {
                    stuck.fetch_sub(1, SeqCst);
                } else {
                    // The receiver waits: it has not given up.
                    let _ = sender.send(result);
                }
            });
        if thread.is_err() {
            return Err(Unfinished::NoThread);
        }
        for _ in 0..PARTS {
            match receiver.recv_timeout(time_max / PARTS) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Unfinished::NoThread),
            }
        }
        self.stuck.fetch_add(1, SeqCst);
        if state.swap(GIVEN_UP, SeqCst) == DONE {
            self.stuck.fetch_sub(1, SeqCst);
            // It was done at the last moment; the result is on its way.
            return receiver.recv().map_err(|_| Unfinished::NoThread);
        }
        Err(Unfinished::Late)
    }
}

/// Runs `work` on a thread with a large stack; `None` if there is none to be had.
pub(in crate::text) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}
