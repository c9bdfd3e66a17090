//! From the queue into a slot: which sequence a job gets and what it finds there.

use super::job::{Job, Phase, Sequence};
use super::prefix::Match;
use super::store::Store;
use super::{CacheOp, JobKey, Scheduler, SequenceId, Stall};

/// Cells kept free per running job, so that an admission does not push others out at once.
const GROWTH_RESERVE_TOKENS: usize = 16;

impl Scheduler {
    /// Moves jobs from the queue into free slots, first come, first served, while their prompts
    /// fit. Jobs whose consumers read nothing are passed over, and make way if they run. Returns the
    /// admitted ones whose prefix is settled, with the tokens found in the cache.
    pub(super) fn admit(&mut self, ops: &mut Vec<CacheOp>) -> Vec<(JobKey, usize)> {
        let mut settled = Vec::new();
        if self.running.iter().all(|j| j.is_stalled()) {
            self.admission_paused = false;
        }
        while !self.admission_paused {
            let Some(index) = self.waiting.iter().position(|j| !j.is_stalled()) else {
                break;
            };
            let has_slot = self.running.len() < self.limits.slots;
            let job = &self.waiting[index];
            if !has_slot || !self.fits(job) {
                // Nobody makes way in vain.
                if !self.could_fit(job) {
                    break;
                }
                let Some(cut) = self.give_way() else {
                    break;
                };
                ops.extend(cut);
                continue;
            }
            let Some(mut job) = self.waiting.remove(index) else {
                break;
            };
            let have = if job.reuse {
                self.known_tokens(&job.tokens)
            } else {
                0
            };
            let leader = if job.reuse {
                self.leader(&job.tokens, have)
            } else {
                None
            };
            if let Some((leader, tokens)) = leader {
                let Some(sequence) = self.take_sequence(None, ops) else {
                    self.waiting.push_front(job);
                    break;
                };
                job.sequence = sequence;
                job.phase = Phase::Follow { leader, tokens };
            } else if self.settle(&mut job, None, ops) {
                settled.push((job.key, job.note_cached()));
            } else {
                self.waiting.push_front(job);
                break;
            }
            self.sequences[job.sequence].owner = Some(job.key);
            self.running.push(job);
        }
        settled
    }

    /// Lets followers go on whose leader has evaluated enough, or is gone.
    pub(super) fn release_followers(&mut self, ops: &mut Vec<CacheOp>) -> Vec<(JobKey, usize)> {
        let mut settled = Vec::new();
        for index in 0..self.running.len() {
            let Phase::Follow { leader, tokens } = self.running[index].phase else {
                continue;
            };
            let waits = self
                .running
                .iter()
                .any(|j| j.key == leader && j.confirmed < tokens && j.leads() && !j.is_stalled());
            // Whoever does not read has no room for a token, which it may get at once.
            if waits || self.running[index].is_stalled() {
                continue;
            }
            // The job is out of the list while its prefix is settled, so that it can't match itself.
            let mut job = self.running.remove(index);
            let own = job.sequence;
            self.settle(&mut job, Some(own), ops);
            settled.push((job.key, job.note_cached()));
            self.running.insert(index, job);
        }
        settled
    }

    /// Gives the job a sequence that holds the longest known prefix of its tokens. With `own`, the
    /// job has an empty sequence already. Returns false if no sequence is to be had.
    fn settle(&mut self, job: &mut Job, own: Option<SequenceId>, ops: &mut Vec<CacheOp>) -> bool {
        let found = if job.reuse {
            self.best_match(&job.tokens)
        } else {
            None
        };
        job.phase = Phase::Run;
        let mut own = own;
        if job.reuse && self.settle_stored(job, &mut own, found, ops) {
            return true;
        }
        if let Some(m) = found {
            self.sequences[m.sequence].used_at = self.clock;
            // Take over what mostly serves only this prompt; copy what others may want again.
            let take_over = own.is_none()
                && !m.running
                && (m.tokens * 2 > m.held || self.unowned_besides(m.sequence).is_none());
            if take_over {
                if m.tokens < m.held {
                    ops.push(CacheOp::Cut {
                        sequence: m.sequence,
                        from: m.tokens,
                    });
                }
                let shared = self.sequences[m.sequence].shared.min(m.tokens);
                self.sequences[m.sequence].tokens.clear();
                job.begin(m.sequence, m.tokens, shared);
                return true;
            }
            if let Some(target) = own.or_else(|| self.take_sequence(Some(m.sequence), ops)) {
                ops.push(CacheOp::Copy {
                    from: m.sequence,
                    to: target,
                    tokens: m.tokens,
                });
                job.begin(target, m.tokens, m.tokens);
                return true;
            }
        }
        match own.or_else(|| self.take_sequence(None, ops)) {
            Some(sequence) => {
                job.begin(sequence, 0, 0);
                true
            }
            None => false,
        }
    }

    /// Copies a stored prefix back if it is longer than `here`, what the cache itself has for the job.
    /// False: there is none; `own` may be set by then.
    fn settle_stored(
        &mut self,
        job: &mut Job,
        own: &mut Option<SequenceId>,
        here: Option<Match>,
        ops: &mut Vec<CacheOp>,
    ) -> bool {
        let wanted = self.reusable(&job.tokens);
        let known = here.map_or(0, |m| m.tokens);
        let keep = here.map(|m| m.sequence);
        let find = |store: &Store| store.find(wanted).filter(|found| found.tokens > known);
        let Some(found) = find(&self.store) else {
            return false;
        };
        while self.kv_used() + found.held > self.limits.kv_tokens {
            if !self.forget_oldest(keep, ops) {
                return false;
            }
        }
        *own = own.or_else(|| self.take_sequence(keep, ops));
        // Making room may have moved another prefix out, and this one with it.
        let (Some(sequence), Some(found)) = (*own, find(&self.store)) else {
            return false;
        };
        if self.kv_used() + found.held > self.limits.kv_tokens {
            return false;
        }
        self.store.touch(found.id, self.clock);
        ops.push(CacheOp::Load {
            from: found.id,
            to: sequence,
        });
        if found.tokens < found.held {
            ops.push(CacheOp::Cut {
                sequence,
                from: found.tokens,
            });
        }
        job.begin(sequence, found.tokens, 0);
        true
    }

    /// An empty sequence without owner; the one used longest ago is emptied if need be.
    fn take_sequence(
        &mut self,
        keep: Option<SequenceId>,
        ops: &mut Vec<CacheOp>,
    ) -> Option<SequenceId> {
        let empty = |s: &Sequence| s.owner.is_none() && s.tokens.is_empty();
        let find = |list: &[Sequence]| {
            list.iter()
                .enumerate()
                .find(|(id, s)| empty(s) && Some(*id) != keep)
                .map(|(id, _)| id)
        };
        if find(&self.sequences).is_none() {
            self.forget_oldest(keep, ops);
        }
        find(&self.sequences)
    }

    fn unowned_besides(&self, keep: SequenceId) -> Option<SequenceId> {
        self.sequences
            .iter()
            .enumerate()
            .find(|(id, s)| s.owner.is_none() && *id != keep)
            .map(|(id, _)| id)
    }

    /// Whether the prompt fits beside what runs, kept prefixes not counted: they can go.
    fn fits(&self, job: &Job) -> bool {
        self.fits_beside(job, &self.running.iter().collect::<Vec<_>>())
    }

    /// Whether it would, were the jobs that are stalled for long gone.
    fn could_fit(&self, job: &Job) -> bool {
        let others = self.running.iter().filter(|j| j.stall != Stall::Long);
        self.fits_beside(job, &others.collect::<Vec<_>>())
    }

    fn fits_beside(&self, job: &Job, running: &[&Job]) -> bool {
        if running.is_empty() {
            return true;
        }
        let shared_with = |job: &Job, others: &[&Job]| {
            let shared = others
                .iter()
                .map(|other| super::prefix::common_prefix(&job.tokens, &other.tokens));
            shared.max().unwrap_or(0)
        };
        // Shared cells count once, but only as long as the other job that holds them runs.
        let own = |(index, job): (usize, &&Job)| {
            let shared = if job.shared == 0 {
                0
            } else {
                shared_with(job, &running[..index]).min(job.shared)
            };
            job.tokens.len() - shared + GROWTH_RESERVE_TOKENS
        };
        let used: usize = running.iter().enumerate().map(own).sum();
        let shared = if job.reuse {
            shared_with(job, running)
        } else {
            0
        };
        used + job.tokens.len() - shared + GROWTH_RESERVE_TOKENS <= self.limits.kv_tokens
    }
}

impl Job {
    /// The cached tokens to report: those of the first admission.
    fn note_cached(&mut self) -> usize {
        *self.cached.get_or_insert(self.evaluated)
    }
}
