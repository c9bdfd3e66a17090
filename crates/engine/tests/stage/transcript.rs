//! What a whole model answers to a fixed course of batches, to be compared with its parts.

use std::collections::{BTreeMap, BTreeSet};

/// Greedy tokens of each sequence after its prompt.
const STEPS: usize = 64;
/// Rows of a prompt that are evaluated at once.
const CHUNK: usize = 11;
/// KV cells that the course needs at most.
pub(crate) const KV_TOKENS: u32 = 1024;
/// Most rows of a batch.
pub(crate) const ROWS_MAX: u32 = 48;
/// Sequences.
pub(crate) const SEQUENCES: u32 = 5;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) token: i32,
    pub(crate) position: i32,
    pub(crate) sequence: i32,
    pub(crate) output: bool,
}

/// What happens to the KV cache between two batches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Copy { from: u32, to: u32, tokens: u32 },
    Cut { sequence: u32, from: u32 },
}

/// Whoever evaluates.
pub(crate) trait Subject {
    /// Evaluates the rows; gives the logits of those that have some.
    fn run(&mut self, rows: &[Row]) -> Vec<Vec<f32>>;
    fn apply(&mut self, op: Op);
}

/// A batch, the operations before it, and the logits.
#[derive(Debug, Default)]
pub(crate) struct Step {
    ops: Vec<Op>,
    rows: Vec<Row>,
    logits: Vec<Vec<f32>>,
}

/// Everything that was asked and answered.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    steps: Vec<Step>,
    /// Tokens drawn by each sequence.
    drawn: BTreeMap<i32, Vec<i32>>,
    lengths: BTreeMap<i32, i32>,
    due: Vec<Op>,
}

impl Transcript {
    /// Takes `whole` through the course: prompts in parts, several sequences in one batch, one that
    /// starts from a copy, one that goes back, one that joins late.
    pub(crate) fn of(whole: &mut dyn Subject, vocabulary: i32, can_cut: bool) -> Self {
        let mut course = Self::default();
        let prompt = |seed: i32, tokens: i32| -> Vec<i32> {
            (0..tokens)
                .map(|i| (i * 37 + seed * 101 + 11) % vocabulary)
                .collect()
        };
        course.prompts(
            whole,
            vec![(0, prompt(0, 40)), (1, prompt(1, 23)), (2, prompt(2, 5))],
        );
        for step in 0..STEPS {
            if step == 10 {
                let tokens = course.lengths[&2];
                course.op(
                    whole,
                    Op::Copy {
                        from: 2,
                        to: 3,
                        tokens: tokens as u32,
                    },
                );
                course.lengths.insert(3, tokens);
                course.drawn.insert(3, vec![7]);
            }
            if step == 20 && can_cut {
                let from = course.lengths[&1] - 9;
                course.op(
                    whole,
                    Op::Cut {
                        sequence: 1,
                        from: from as u32,
                    },
                );
                course.lengths.insert(1, from);
            }
            let late = if step == 30 {
                prompt(4, 17)
            } else {
                Vec::new()
            };
            course.decode(whole, step, &late);
        }
        course
    }

    /// Puts `split` to the same course, bit for bit.
    pub(crate) fn check(&self, split: &mut dyn Subject, what: &str) {
        for (number, step) in self.steps.iter().enumerate() {
            step.ops.iter().for_each(|op| split.apply(*op));
            let logits = split.run(&step.rows);
            assert_eq!(logits.len(), step.logits.len());
            for (row, (got, wanted)) in logits.iter().zip(&step.logits).enumerate() {
                let differs = got
                    .iter()
                    .zip(wanted)
                    .filter(|(a, b)| a.to_bits() != b.to_bits());
                let largest = got
                    .iter()
                    .zip(wanted)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                assert_eq!(
                    differs.count(),
                    0,
                    "{what}: step {number} of {}, output {row}: logits differ by up to {largest}",
                    self.steps.len(),
                );
            }
        }
    }

    /// Whether sequences say several tokens, and not the same ones: else errors in positions and
    /// caches would stay hidden.
    pub(crate) fn is_varied(&self) -> bool {
        let kinds = |drawn: &Vec<i32>| drawn.iter().collect::<BTreeSet<_>>().len();
        self.drawn.values().all(|drawn| kinds(drawn) >= 8) && self.drawn[&0] != self.drawn[&1]
    }

    /// Evaluates prompts in parts, mixed row by row.
    fn prompts(&mut self, whole: &mut dyn Subject, mut prompts: Vec<(i32, Vec<i32>)>) {
        while prompts.iter().any(|(_, tokens)| !tokens.is_empty()) {
            let mut rows = Vec::new();
            for _ in 0..CHUNK {
                for (sequence, tokens) in &mut prompts {
                    if !tokens.is_empty() {
                        let token = tokens.remove(0);
                        rows.push(self.row(token, *sequence, tokens.is_empty()));
                    }
                }
            }
            self.run(whole, rows);
        }
    }

    /// One token of each sequence, and the prompt of a new one.
    fn decode(&mut self, whole: &mut dyn Subject, step: usize, late: &[i32]) {
        let mut last: Vec<(i32, i32)> = (self.drawn.iter())
            .map(|(sequence, drawn)| (*sequence, *drawn.last().unwrap()))
            .collect();
        // Another order each time.
        let shift = step % last.len();
        last.rotate_left(shift);
        let mut rows = Vec::new();
        for (sequence, token) in last {
            rows.push(self.row(token, sequence, true));
        }
        for (i, token) in late.iter().enumerate() {
            rows.push(self.row(*token, 4, i + 1 == late.len()));
        }
        self.run(whole, rows);
    }

    fn row(&mut self, token: i32, sequence: i32, output: bool) -> Row {
        let length = self.lengths.entry(sequence).or_default();
        *length += 1;
        Row {
            token,
            position: *length - 1,
            sequence,
            output,
        }
    }

    fn op(&mut self, whole: &mut dyn Subject, op: Op) {
        whole.apply(op);
        self.due.push(op);
    }

    fn run(&mut self, whole: &mut dyn Subject, rows: Vec<Row>) {
        let logits = whole.run(&rows);
        for (row, logits) in rows.iter().filter(|r| r.output).zip(&logits) {
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            self.drawn
                .entry(row.sequence)
                .or_default()
                .push(best.unwrap() as i32);
        }
        let ops = std::mem::take(&mut self.due);
        self.steps.push(Step { ops, rows, logits });
    }
}
