//! ggml's own compute threads.
//!
//! Without a pool of its own, a context starts and ends threads for every graph. OpenMP is not
//! compiled in: its threads spin against each other when two contexts are busy.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

/// Threads that compute graphs; one of them is the thread that calls decode.
#[derive(Debug)]
pub struct Threadpool {
    raw: NonNull<sys::ggml_threadpool>,
    threads: u32,
}

// SAFETY: the pool is an opaque heap object with its own locks; nothing in it is bound to the
// thread that made it. It is used by one context at a time, which `Context` guarantees.
unsafe impl Send for Threadpool {}

impl Threadpool {
    /// A pool of `threads` (at least 1) threads that poll for work for a while before they sleep:
    /// `poll` from 0 (sleep at once) to 100.
    ///
    /// Returns `None` when the system gives no threads.
    #[must_use]
    pub fn new(threads: u32, poll: u32) -> Option<Self> {
        let threads = threads.clamp(1, 512);
        // SAFETY: returns plain data.
        let mut params = unsafe { sys::ggml_threadpool_params_default(threads as i32) };
        params.poll = poll.min(100);
        // SAFETY: `params` is valid for the call and copied by it.
        let raw = unsafe { sys::ggml_threadpool_new(&mut params) };
        NonNull::new(raw).map(|raw| Self { raw, threads })
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.threads
    }

    pub(crate) fn raw(&self) -> *mut sys::ggml_threadpool {
        self.raw.as_ptr()
    }
}

impl Drop for Threadpool {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_threadpool_new`, freed once; the context that used it has been
        // detached or freed first (`Context` drops its own pointer before its pool).
        unsafe { sys::ggml_threadpool_free(self.raw.as_ptr()) };
    }
}
