//! Which rows go into the next step.

use super::job::Job;
use super::{Budget, CacheOp, JobKey, Phase, RecallId, Scheduler, SequenceId};
use crate::TokenId;

/// Rows that cost as much as one more or fewer, when there are few: vector kernels work on four
/// rows at a time.
const SMALL_GROUP: usize = 4;

/// One part in so many may be added to a stall, so that a step fills its rows.
const STALL_SLACK: usize = 4;

/// One row of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub key: JobKey,
    /// Its KV sequence.
    pub sequence: SequenceId,
    /// The token.
    pub token: TokenId,
    /// Its position.
    pub position: usize,
    /// Whether its logits are wanted.
    pub output: bool,
}

/// One step: cache changes first, then the rows in one batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// To be applied in order.
    pub ops: Vec<CacheOp>,
    /// To be evaluated; empty if there is nothing to do.
    pub rows: Vec<Row>,
    /// Jobs whose evaluation begins, with the tokens found in the cache.
    pub started: Vec<(JobKey, usize)>,
    /// Of these, the ones whose first token is drawn from kept logits, without a row.
    pub recalled: Vec<(JobKey, RecallId)>,
    /// Of the rows, how many belong to prompts.
    pub prefill_rows: usize,
}

impl Step {
    /// The rows of each job.
    pub fn jobs(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|a, b| a.key == b.key)
    }

    /// Rows of jobs that decode.
    #[must_use]
    pub fn decode_rows(&self) -> usize {
        self.rows.len() - self.prefill_rows
    }
}

impl Scheduler {
    /// Admits what fits and fills one batch: a row (and its drafts) of decoding jobs, then parts of
    /// the prompts, shared evenly, up to the budget. The rows are in flight until the step is committed
    /// or taken back.
    ///
    /// Cache changes in the result must be applied even if the rows can't be evaluated.
    pub fn plan(&mut self, budget: Budget) -> Step {
        self.clock += 1;
        let mut step = Step::default();
        step.started = self.release_followers(&mut step.ops);
        let admitted = self.admit(&mut step.ops);
        step.started.extend(admitted);
        step.recalled = self.recalled(&step.started);

        self.forget_surplus(&mut step.ops);
        self.decode_rows(&mut step, budget.jobs);
        let decoding = self.decoding().next().is_some();
        let wanted = if decoding {
            budget.beside_decoding
        } else {
            budget.alone
        };
        let room = self.limits.batch_tokens.saturating_sub(step.rows.len());
        let left = self.prefill_left();
        let (part, most) = if decoding {
            (equal_part(left, wanted), wanted + wanted / STALL_SLACK)
        } else {
            (wanted, wanted)
        };
        let prefill = if wanted == 0 {
            0
        } else if part >= left {
            // All that is left, also where it begins a group: another step would cost more.
            left
        } else {
            fill_group(step.rows.len(), part, most, self.limits.row_group)
        };
        let prefill = prefill.min(room);
        self.prefill_rows(&mut step, prefill);
        for rows in step.jobs() {
            let job = self.running.iter_mut().find(|j| j.key == rows[0].key);
            if let (Some(job), Some(last)) = (job, rows.last()) {
                job.plan(last.position + 1, last.output, self.clock);
            }
        }
        step
    }

    /// Rows of prompts that are left.
    fn prefill_left(&self) -> usize {
        self.prefilling().map(Job::remaining).sum()
    }

    /// Jobs that evaluate their prompts.
    fn prefilling(&self) -> impl Iterator<Item = &Job> {
        self.running
            .iter()
            .filter(|j| j.phase == Phase::Run && !j.is_decoding() && !j.is_stalled())
    }

    fn decode_rows(&self, step: &mut Step, jobs: usize) {
        let due = self.due(jobs);
        // Every one of them gets its row; drafts share what is left of the batch.
        let mut draft_room = self.limits.batch_tokens.saturating_sub(due.len());
        // Both lists are in the order of admission.
        let mut due = due.into_iter().peekable();
        for job in &self.running {
            if due.next_if_eq(&job.key).is_none() {
                continue;
            }
            let Some(token) = job.tokens.last() else {
                continue;
            };
            let position = job.tokens.len() - 1;
            let drafted = job.draft.len().min(draft_room);
            draft_room -= drafted;
            let tokens = std::iter::once(token).chain(&job.draft[..drafted]);
            step.rows
                .extend(tokens.enumerate().map(|(offset, token)| Row {
                    key: job.key,
                    sequence: job.sequence,
                    token: *token,
                    position: position + offset,
                    output: true,
                }));
        }
    }

    fn prefill_rows(&self, step: &mut Step, budget: usize) {
        let jobs: Vec<_> = self.prefilling().collect();
        let shares = share(
            &jobs.iter().map(|j| j.remaining()).collect::<Vec<_>>(),
            budget,
        );
        for (job, rows) in jobs.into_iter().zip(shares) {
            step.prefill_rows += rows;
            let end = job.evaluated + rows;
            step.rows.extend((job.evaluated..end).map(|position| Row {
                key: job.key,
                sequence: job.sequence,
                token: job.tokens[position],
                position,
                output: position + 1 == job.tokens.len(),
            }));
        }
    }
}

/// The largest of as few parts of equal size as keep within `part_max` rows: a short last part
/// would stall the others once more for little.
fn equal_part(left: usize, part_max: usize) -> usize {
    let parts = left.div_ceil(part_max.max(1));
    left.div_ceil(parts.max(1))
}

/// Rounds a prefill budget so that the whole batch fills its last group of rows, because a begun one costs
/// as much as a full one: up if that is at most `most`, since what is left out of each step is one more step
/// in the end, else down. Small groups are always filled: they fit in anyway.
fn fill_group(decode_rows: usize, wanted: usize, most: usize, large_group: usize) -> usize {
    let rows = decode_rows + wanted;
    let large_group = large_group.max(1);
    let (down, up) = (
        rows / large_group * large_group,
        rows.next_multiple_of(large_group),
    );
    let filled = match large_group > SMALL_GROUP {
        true if up - decode_rows <= most => up,
        // Never down to nothing: many decoding jobs may fill the last whole group by themselves.
        true if down > decode_rows => down,
        _ => rows.next_multiple_of(SMALL_GROUP),
    };
    filled.saturating_sub(decode_rows)
}

/// Shares `budget` rows evenly among prompts with `remaining` rows each; what a short one does
/// not need goes to the others, earlier ones first.
pub(super) fn share(remaining: &[usize], budget: usize) -> Vec<usize> {
    let mut shares = vec![0; remaining.len()];
    let mut left = budget;
    loop {
        let open: Vec<usize> = (0..remaining.len())
            .filter(|i| shares[*i] < remaining[*i])
            .collect();
        if open.is_empty() || left == 0 {
            return shares;
        }
        let part = (left / open.len()).max(1);
        for index in open {
            let rows = part.min(remaining[index] - shares[index]).min(left);
            shares[index] += rows;
            left -= rows;
        }
    }
}
