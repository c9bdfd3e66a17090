//! What the thread that evaluates tells everyone else: counters, read without asking it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::Load;

/// Written by the thread of a model (and, for the queue, by submitters), read by anyone.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Requests submitted and not yet in a slot.
    pub(super) waiting: AtomicU32,
    /// No request is taken any more.
    pub(super) closed: AtomicBool,
    pub(super) running: AtomicU32,
    pub(super) kv_used: AtomicU32,
    pub(super) kv_total: AtomicU32,
    pub(super) requests: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) cached_tokens: AtomicU64,
    pub(super) generated_tokens: AtomicU64,
    pub(super) drafted_tokens: AtomicU64,
    pub(super) accepted_tokens: AtomicU64,
    pub(super) steps: AtomicU64,
    /// Recent time of a whole request, ms: what `Retry-After` is made of.
    pub(super) request_ms: AtomicU32,
}

impl Shared {
    pub(super) fn load(&self) -> Load {
        Load {
            running: self.running.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            kv_used_tokens: self.kv_used.load(Relaxed),
            kv_total_tokens: self.kv_total.load(Relaxed),
            requests_total: self.requests.load(Relaxed),
            cancelled_total: self.cancelled.load(Relaxed),
            prompt_tokens_total: self.prompt_tokens.load(Relaxed),
            cached_tokens_total: self.cached_tokens.load(Relaxed),
            generated_tokens_total: self.generated_tokens.load(Relaxed),
            drafted_tokens_total: self.drafted_tokens.load(Relaxed),
            accepted_tokens_total: self.accepted_tokens.load(Relaxed),
            steps_total: self.steps.load(Relaxed),
        }
    }
}
