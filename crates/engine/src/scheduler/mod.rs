//! What the next step computes: pure decisions, no llama.cpp, no clock, no threads.
//!
//! Owns the waiting queue, the running jobs, and what each KV sequence holds. A step goes:
//! [`Scheduler::plan`] → the caller applies the [`CacheOp`]s and evaluates the rows →
//! [`Scheduler::commit`] → [`Scheduler::advance`] or [`Scheduler::finish`] per sampled job. If the
//! KV cache turns out to be full, [`Scheduler::take_back`], [`Scheduler::relieve`] and plan again.
//!
//! Several steps may be in flight: planned, and not committed yet. They are evaluated and committed in
//! the order in which they were planned, their operations and rows in that order too, so that plans
//! are made over the cache as it will be after all of them. Only what is committed is shared with
//! others, because rows in flight may find no room. A job whose next token is in flight gets no rows, one
//! whose prompt is goes on with it. Ended jobs leave their sequence at once: the cut follows their rows.
//!
//! Does not sample, does not know text, and never waits.

mod admission;
mod batch;
pub mod cost;
mod job;
mod prefix;
mod recall;
pub mod round;
mod store;

use std::collections::VecDeque;

use crate::TokenId;
pub use batch::{Row, Step};
use job::{Job, Phase, Sequence};
use recall::Recall;
pub use recall::{Keep, RecallId};
pub use store::StoreId;
use store::{Put, Store};

/// Prefixes too long for the store keep this part of the cache while several jobs run: 1000 idle
/// cells make a prompt a fifth slower (0.5B model, two cores).
const KEPT_SHARE_BUSY: usize = 16;

/// Identity of a job, chosen by the caller; never reused.
pub type JobKey = u64;
/// A KV sequence.
pub type SequenceId = usize;

/// What the scheduler may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that run at the same time.
    pub slots: usize,
    /// KV sequences, at least `slots`; the rest keep prefixes of finished jobs.
    pub sequences: usize,
    /// KV cells, shared by all sequences.
    pub kv_tokens: usize,
    /// Rows of one step.
    pub batch_tokens: usize,
    /// Whether a sequence can be cut back to any earlier position.
    pub can_cut: bool,
    /// Rows that cost as much as one more or one fewer, when there are many.
    pub row_group: usize,
    /// Tokens whose KV the host's memory has room for; 0: nothing is moved out.
    pub stored_tokens: usize,
    /// Prompts whose last logits the host's memory has room for; 0: none are kept.
    pub logits_kept: usize,
}

/// How large the next step may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Jobs that it decodes.
    pub jobs: usize,
    /// Rows of prompts while other jobs decode: their next token waits for this.
    pub beside_decoding: usize,
    /// Rows of prompts while none does.
    pub alone: usize,
}

/// Whether a job's consumer keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stall {
    /// It does.
    #[default]
    None,
    /// It does not: the job gets no rows.
    Short,
    /// For so long that the job also makes way for others.
    Long,
}

/// A change of the KV cache, to be applied in order before the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOp {
    /// Positions `0..tokens` of `from` are now also those of the empty sequence `to`.
    Copy {
        /// Source.
        from: SequenceId,
        /// Target.
        to: SequenceId,
        /// Length.
        tokens: usize,
    },
    /// Positions from `from` on are forgotten.
    Cut {
        /// Which sequence.
        sequence: SequenceId,
        /// First position to go.
        from: usize,
    },
    /// All positions of `from` are copied to the host's memory.
    Save {
        /// Source.
        from: SequenceId,
        /// Target.
        to: StoreId,
    },
    /// What was saved is copied into the empty sequence `to`. If that fails for lack of cells, the
    /// step is given up: see [`Scheduler::load_failed`].
    Load {
        /// Source.
        from: StoreId,
        /// Target.
        to: SequenceId,
    },
    /// What was saved is not needed any more.
    Drop {
        /// Which.
        store: StoreId,
    },
}

/// Queue, running jobs and KV sequences of one model.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    waiting: VecDeque<Job>,
    /// In order of admission, oldest first.
    running: Vec<Job>,
    sequences: Vec<Sequence>,
    store: Store,
    recall: Recall,
    /// Counts plans; orders uses of sequences.
    clock: u64,
    /// Counts what gives up cells.
    releases: u64,
    /// A job was sent back for lack of cells: nobody is admitted until another one has finished, or
    /// the same job would come and go for ever.
    admission_paused: bool,
}

impl Scheduler {
    /// An idle scheduler.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            slots: limits.slots.max(1),
            sequences: limits.sequences.max(limits.slots).max(1),
            batch_tokens: limits.batch_tokens.max(limits.slots).max(1),
            ..limits
        };
        let sequences = (0..limits.sequences).map(|_| Sequence::default()).collect();
        Self {
            limits,
            waiting: VecDeque::new(),
            running: Vec::new(),
            sequences,
            store: Store::new(if limits.can_cut {
                limits.stored_tokens
            } else {
                0
            }),
            recall: Recall::new(limits.logits_kept),
            clock: 0,
            releases: 0,
            admission_paused: false,
        }
    }

    /// Puts a job with a prompt (at least one token, fewer than KV cells) at the end of the queue.
    /// `reuse`: whether KV of other jobs may serve it.
    pub fn submit(&mut self, key: JobKey, prompt: Vec<TokenId>, reuse: bool) {
        debug_assert!(!prompt.is_empty() && prompt.len() < self.limits.kv_tokens.max(2));
        self.waiting.push_back(Job::new(key, prompt, reuse));
    }

    /// How often cells were given up so far. If it was more often than when a step was planned that found
    /// no room, there may be room now.
    #[must_use]
    pub fn releases(&self) -> u64 {
        self.releases
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Jobs that hold a slot.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Jobs that had a slot and wait for another one: they were told that they run.
    #[must_use]
    pub fn parked(&self) -> usize {
        let waiting = self.waiting.iter();
        waiting.filter(|job| job.cached.is_some()).count()
    }

    /// Jobs that wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// KV cells in use, shared ones counted once where that is known.
    #[must_use]
    pub fn kv_used(&self) -> usize {
        let cached = self
            .sequences
            .iter()
            .filter(|s| s.owner.is_none())
            .map(Sequence::own_cells);
        let running = self
            .running
            .iter()
            .map(|j| j.evaluated.saturating_sub(j.shared));
        cached
            .chain(running)
            .sum::<usize>()
            .min(self.limits.kv_tokens)
    }

    /// All tokens of a running job: prompt, then what was generated.
    #[must_use]
    pub fn tokens(&self, key: JobKey) -> Option<&[TokenId]> {
        self.running
            .iter()
            .find(|j| j.key == key)
            .map(|j| j.tokens.as_slice())
    }

    /// The running jobs that decode, those in flight among them.
    pub fn decoding(&self) -> impl Iterator<Item = JobKey> + '_ {
        self.running
            .iter()
            .filter(|j| j.is_decoding() && !j.is_stalled())
            .map(|j| j.key)
    }

    /// The jobs that a step decodes if it may decode `jobs`, so that drafts make sense for them: those
    /// that have waited longest, in the order of admission.
    #[must_use]
    pub fn due(&self, jobs: usize) -> Vec<JobKey> {
        let mut due: Vec<&Job> = self.running.iter().filter(|j| j.is_due()).collect();
        if due.len() > jobs {
            let mut waited: Vec<u64> = due.iter().map(|j| j.planned_at).collect();
            waited.sort_unstable();
            // Of those that got their last rows in one step, the first ones fill what is left.
            let latest = waited[..jobs].last().copied();
            let earlier = waited[..jobs].iter().filter(|at| Some(**at) < latest);
            let mut left = jobs - earlier.count();
            due.retain(|j| {
                let is_latest = Some(j.planned_at) == latest;
                let taken = Some(j.planned_at) < latest || is_latest && left > 0;
                left -= usize::from(is_latest && taken);
                taken
            });
        }
        due.iter().map(|j| j.key).collect()
    }

    /// Whether any running job still evaluates its prompt.
    #[must_use]
    pub fn is_prefilling(&self) -> bool {
        self.running
            .iter()
            .any(|j| !j.is_decoding() && !j.is_stalled())
    }

    /// The longest prompt that is being evaluated, or would be in the next step, its cached part left out, tokens.
    #[must_use]
    pub fn longest_prefill(&self) -> usize {
        let prefilling = self
            .running
            .iter()
            .filter(|j| !j.is_decoding() && !j.is_stalled());
        let slots_free = self.limits.slots.saturating_sub(self.running.len());
        prefilling
            .chain(self.waiting.iter().take(slots_free))
            .map(|j| j.tokens.len() - j.cached.unwrap_or(0).min(j.tokens.len()))
            .max()
            .unwrap_or(0)
    }

    /// Proposes tokens that may follow; they are evaluated with the next step of `key`.
    pub fn set_draft(&mut self, key: JobKey, draft: Vec<TokenId>) {
        if let Some(job) = self.running.iter_mut().find(|j| j.key == key)
            && job.is_due()
            && self.limits.can_cut
        {
            job.draft = draft;
        }
    }

    /// Takes a job out of the steps while its consumer can't keep up.
    pub fn set_stall(&mut self, key: JobKey, stall: Stall) {
        // A job that was sent back keeps the mark, and must be able to lose it.
        let jobs = self.running.iter_mut().chain(&mut self.waiting);
        for job in jobs.filter(|j| j.key == key) {
            job.stall = stall;
        }
    }

    /// Records that the rows of `step`, the oldest in flight, were evaluated.
    pub fn commit(&mut self, step: &Step) {
        for rows in step.jobs() {
            let (Some(job), Some(last)) = (self.in_flight(rows), rows.last()) else {
                continue;
            };
            job.confirmed = job.confirmed.max(last.position + 1).min(job.evaluated);
            job.in_flight = job.in_flight.saturating_sub(1);
            job.awaited &= !last.output;
        }
    }

    /// Records that the rows of `step`, the oldest in flight, found no room, and neither will rows that
    /// follow them in later steps, which are to be taken back too. The returned operations forget what
    /// was evaluated of them nevertheless.
    pub fn take_back(&mut self, step: &Step) -> Vec<CacheOp> {
        let mut ops = Vec::new();
        for rows in step.jobs() {
            let (Some(job), [first, .., last] | [first @ last]) = (self.in_flight(rows), rows)
            else {
                continue;
            };
            job.evaluated = job.evaluated.min(first.position).max(job.confirmed);
            job.in_flight = job.in_flight.saturating_sub(1);
            job.awaited &= !last.output;
            ops.push(CacheOp::Cut {
                sequence: job.sequence,
                from: job.evaluated,
            });
        }
        ops
    }

    /// The job that has these rows in flight, unless it has ended.
    fn in_flight(&mut self, rows: &[Row]) -> Option<&mut Job> {
        let key = rows.first()?.key;
        self.running.iter_mut().find(|j| j.key == key)
    }

    /// Records the tokens sampled for `key` after a commit: accepted drafts, then one more.
    /// The returned operation forgets rejected drafts.
    pub fn advance(&mut self, key: JobKey, sampled: &[TokenId]) -> Option<CacheOp> {
        let job = self.running.iter_mut().find(|j| j.key == key)?;
        (job.is_fresh, job.awaited) = (false, false);
        let evaluated = job.evaluated;
        let accepted = job.accept(sampled);
        (accepted < evaluated).then_some(CacheOp::Cut {
            sequence: job.sequence,
            from: job.evaluated,
        })
    }

    /// Ends a job, running or waiting. What it evaluated stays in the KV cache for later prompts.
    /// The returned operation forgets drafts that were evaluated and never judged, and rows in flight.
    pub fn finish(&mut self, key: JobKey) -> Option<CacheOp> {
        if let Some(index) = self.running.iter().position(|j| j.key == key) {
            let mut job = self.running.remove(index);
            self.admission_paused = false;
            self.releases += 1;
            let mut held = job.held().len();
            if held < job.evaluated && !self.limits.can_cut {
                held = 0;
            }
            let cut = (job.evaluated > held).then_some(CacheOp::Cut {
                sequence: job.sequence,
                from: held,
            });
            job.tokens.truncate(held);
            if let Some(sequence) = self.sequences.get_mut(job.sequence) {
                sequence.owner = None;
                sequence.used_at = self.clock;
                sequence.shared = job.shared.min(job.tokens.len());
                sequence.tokens = job.tokens;
            }
            cut
        } else {
            self.waiting.retain(|j| j.key != key);
            None
        }
    }

    /// Makes room in a full KV cache when nothing is in flight: moves the prefix out that was used
    /// longest ago or, if there is none, sends a running job back to the queue, a stalled one before the
    /// youngest (its tokens are kept and evaluated again later). Nothing to be done: there is nothing to
    /// give up.
    pub fn relieve(&mut self) -> Vec<CacheOp> {
        debug_assert!(self.running.iter().all(|j| j.in_flight == 0));
        let mut ops = Vec::new();
        if self.forget_oldest(None, &mut ops) || self.running.len() < 2 {
            return ops;
        }
        let stalled = self.running.iter().rposition(|j| j.is_stalled());
        // A stalled job does not come back before its consumer reads.
        self.admission_paused |= stalled.is_none();
        let mut job = self
            .running
            .remove(stalled.unwrap_or(self.running.len() - 1));
        let sequence = job.sequence;
        if let Some(s) = self.sequences.get_mut(sequence) {
            *s = Sequence::default();
        }
        job.reset();
        self.waiting.push_front(job);
        ops.push(CacheOp::Cut { sequence, from: 0 });
        ops
    }

    /// A [`CacheOp::Load`] found no cells. What was planned after it was not done: clear the KV cache and
    /// drop all that is saved; every running job is back in the queue.
    pub fn load_failed(&mut self) {
        self.store.clear();
        self.forget_all();
    }

    /// Sends the youngest job that is stalled for long back to the queue, because another one could run
    /// in its place. What it evaluated is kept as a prefix for as long as there is room. `None`: there
    /// is no such job; else the operation that forgets its drafts, if it has any.
    fn give_way(&mut self) -> Option<Option<CacheOp>> {
        // Rows in flight would come back to a job that has begun anew.
        let gives_way = |j: &Job| j.stall == Stall::Long && j.in_flight == 0;
        let index = self.running.iter().rposition(gives_way)?;
        let mut job = self.running.remove(index);
        let held = job.held().len();
        let cut = (job.evaluated > held).then_some(CacheOp::Cut {
            sequence: job.sequence,
            from: held,
        });
        if let Some(sequence) = self.sequences.get_mut(job.sequence) {
            *sequence = Sequence {
                owner: None,
                tokens: job.tokens[..held].to_vec(),
                shared: job.shared.min(held),
                used_at: self.clock,
            };
        }
        job.reset();
        // It was here first, and is the next once its consumer reads.
        self.waiting.push_front(job);
        Some(cut)
    }

    /// Forgets every kept prefix and sends every running job back to the queue, oldest first. Steps in
    /// flight are forgotten: they are neither committed nor taken back. For use after the KV cache
    /// itself was cleared.
    pub fn forget_all(&mut self) {
        self.sequences.fill_with(Sequence::default);
        while let Some(mut job) = self.running.pop() {
            job.reset();
            self.waiting.push_front(job);
        }
    }

    /// Positions of each sequence that a running job has there for certain.
    #[must_use]
    pub fn held(&self) -> Vec<u32> {
        let mut held = vec![0; self.sequences.len()];
        for job in &self.running {
            if let Some(held) = held.get_mut(job.sequence) {
                *held = u32::try_from(job.held().len()).unwrap_or(u32::MAX);
            }
        }
        held
    }

    /// As [`forget_all`](Self::forget_all), but each sequence still holds the first `held` positions of what its job
    /// had: the job goes on from there. For use after the KV cache itself was cut.
    pub fn forget_but(&mut self, held: &[u32]) {
        let mut kept: Vec<_> = (self.sequences.iter())
            .map(|_| Sequence::default())
            .collect();
        for job in &self.running {
            let tokens = held.get(job.sequence).map_or(0, |held| *held as usize);
            if let Some(sequence) = kept.get_mut(job.sequence) {
                sequence.tokens = job.held()[..job.held().len().min(tokens)].to_vec();
                sequence.shared = job.shared.min(sequence.tokens.len());
                sequence.used_at = self.clock;
            }
        }
        self.forget_all();
        self.sequences = kept;
    }

    /// Attention looks at every cell in use, whosever it is, so that kept prefixes slow down all that
    /// runs: they are moved out. Those that are too long for that may keep a small part of the cache
    /// while several jobs run.
    fn forget_surplus(&mut self, ops: &mut Vec<CacheOp>) {
        if self.running.is_empty() {
            return;
        }
        for sequence in 0..self.sequences.len() {
            let kept = &self.sequences[sequence];
            let is_kept = kept.owner.is_none() && !kept.tokens.is_empty();
            if is_kept && kept.tokens.len() <= self.limits.stored_tokens && self.limits.can_cut {
                self.move_out(sequence, ops);
            }
        }
        let kept_max = self.limits.kv_tokens / KEPT_SHARE_BUSY;
        while self.running.len() > 1 {
            let kept = self.sequences.iter().filter(|s| s.owner.is_none());
            let cells = kept.map(Sequence::own_cells).sum::<usize>();
            if cells <= kept_max || !self.forget_oldest(None, ops) {
                break;
            }
        }
    }

    /// Moves the kept prefix out that was used longest ago, except `keep`. False: there is none.
    fn forget_oldest(&mut self, keep: Option<SequenceId>, ops: &mut Vec<CacheOp>) -> bool {
        let oldest = self
            .sequences
            .iter()
            .enumerate()
            .filter(|(id, s)| s.owner.is_none() && !s.tokens.is_empty() && Some(*id) != keep)
            .min_by_key(|(_, s)| s.used_at)
            .map(|(id, _)| id);
        if let Some(oldest) = oldest {
            self.move_out(oldest, ops);
        }
        oldest.is_some()
    }

    /// Empties a sequence without owner; what it holds goes to the store, unless a running job holds
    /// it too.
    fn move_out(&mut self, sequence: SequenceId, ops: &mut Vec<CacheOp>) {
        self.releases += 1;
        let kept = std::mem::take(&mut self.sequences[sequence]);
        let runs = self
            .running
            .iter()
            .any(|job| prefix::common_prefix(&kept.tokens, job.held()) == kept.tokens.len());
        if !runs && let Put::As(id, gone) = self.store.put(&kept.tokens, kept.used_at) {
            ops.extend(gone.into_iter().map(|store| CacheOp::Drop { store }));
            ops.push(CacheOp::Save {
                from: sequence,
                to: id,
            });
        }
        ops.push(CacheOp::Cut { sequence, from: 0 });
    }
}

#[cfg(test)]
mod tests;
