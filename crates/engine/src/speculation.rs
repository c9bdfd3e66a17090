//! Drafting without a second model, and how many tokens to draft: pure decisions.

use crate::TokenId;
use crate::scheduler::cost::StepCost;
use crate::scheduler::round::Pipe;

/// Drafted where it is not known what drafts cost.
const DRAFT_TOKENS_FIRST: usize = 3;
/// Most tokens drafted for one step: beyond it an early wrong token wastes too much.
pub const DRAFT_TOKENS_MAX: usize = 15;
/// Shortest repeat that counts as one, tokens.
const MATCH_TOKENS_MIN: usize = 3;
/// Repeats are compared up to this length, tokens.
const MATCH_TOKENS_MAX: usize = 24;
/// How far back repeats are looked for, tokens: bounds the search to some tens of microseconds.
const LOOKBACK_TOKENS_MAX: usize = 16 << 10;
/// Weight of a new step in the running acceptance.
const LEARNING_RATE: f64 = 0.15;
/// Acceptance assumed of a job that has drafted nothing yet.
const ACCEPTANCE_START: f64 = 0.6;
/// A drafted step must promise so much more tokens per second than a plain one: estimates err.
const GAIN_MIN: f64 = 1.05;

/// Prompt lookup: what followed the last earlier occurrence of the longest repeated ending of
/// `tokens`, `count` tokens. Where the text ends meanwhile, it is in a loop, and goes round in it. Empty if
/// nothing repeats.
#[must_use]
pub fn lookup(tokens: &[TokenId], count: usize) -> Vec<TokenId> {
    let end = tokens.len();
    let start = end.saturating_sub(LOOKBACK_TOKENS_MAX);
    let mut best = (MATCH_TOKENS_MIN - 1, 0);
    for at in (start + MATCH_TOKENS_MIN..end).rev() {
        // `at` is where the continuation would begin.
        let length = (1..=MATCH_TOKENS_MAX.min(at - start))
            .take_while(|n| tokens[at - n] == tokens[end - n])
            .count();
        if length > best.0 {
            best = (length, at);
            if length == MATCH_TOKENS_MAX {
                break;
            }
        }
    }
    if best.0 < MATCH_TOKENS_MIN {
        return Vec::new();
    }
    tokens[best.1..]
        .iter()
        .copied()
        .cycle()
        .take(count)
        .collect()
}

/// How often drafted tokens of one job were right.
#[derive(Debug, Clone, Copy)]
pub struct Acceptance {
    rate: f64,
}

impl Default for Acceptance {
    fn default() -> Self {
        Self {
            rate: ACCEPTANCE_START,
        }
    }
}

impl Acceptance {
    /// Learns that `accepted` of `drafted` tokens were right.
    pub fn observe(&mut self, drafted: usize, accepted: usize) {
        if drafted > 0 {
            // A draft is judged up to its first wrong token only.
            let judged = drafted.min(accepted + 1);
            let rate = accepted as f64 / judged as f64;
            self.rate += LEARNING_RATE * (rate - self.rate);
        }
    }

    /// The running rate, 0 to 1.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }
}

/// The steps that drafts are evaluated in.
#[derive(Debug, Clone, Copy)]
pub struct Steps<'a> {
    /// Decoding jobs in one step, all drafting alike.
    pub jobs: usize,
    /// Steps in flight.
    pub groups: usize,
    /// Where they go through.
    pub pipe: Pipe,
    /// What they cost to compute.
    pub cost: &'a StepCost,
    /// What a drafted token costs, ms.
    pub draft_ms: f64,
}

/// How many tokens to draft for one job.
///
/// Maximises expected tokens per second: with acceptance `p`, `k` drafts yield
/// `(1 - p^(k+1)) / (1 - p)` tokens (Leviathan et al., 2023, arXiv:2211.17192) for the time until the
/// next step, which has `jobs * (1 + k)` rows and may spend most of its time on links, plus `draft_ms`
/// per drafted token. While the times are unknown it drafts three, so that they get known: a line from the first
/// prompt, which may have read weights from a disk, would say that rows are dear.
#[must_use]
pub fn draft_tokens(p: f64, steps: &Steps<'_>) -> usize {
    let jobs = steps.jobs.max(1);
    let p = p.clamp(0.0, 0.99);
    let round_ms = |rows: usize| {
        let step_ms = steps.cost.step_ms(rows)?;
        Some(steps.pipe.round_ms(steps.groups, step_ms))
    };
    let is_timed = steps.cost.is_measured(jobs * (1 + DRAFT_TOKENS_FIRST));
    let Some(plain_ms) = round_ms(jobs).filter(|_| is_timed) else {
        return DRAFT_TOKENS_FIRST;
    };
    let mut best = (1.0 / plain_ms * GAIN_MIN, 0);
    for k in 1..=DRAFT_TOKENS_MAX {
        let Some(round_ms) = round_ms(jobs * (1 + k)) else {
            return DRAFT_TOKENS_FIRST;
        };
        let tokens = (1.0 - p.powi(k as i32 + 1)) / (1.0 - p);
        let speed = tokens / (round_ms + steps.draft_ms * k as f64);
        if speed > best.0 {
            best = (speed, k);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_continues_the_longest_and_latest_repeat() {
        assert_eq!(lookup(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2), [4, 5]);
        assert_eq!(lookup(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 1), [5]);
        // A longer match wins over a later one.
        assert_eq!(lookup(&[8, 1, 2, 3, 4, 7, 1, 2, 3, 5, 8, 1, 2, 3], 1), [4]);
        // A loop continues into itself.
        assert_eq!(lookup(&[6, 6, 6, 6, 6], 3), [6, 6, 6]);
        assert_eq!(lookup(&[1, 2, 3, 1, 2, 3], 7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn lookup_is_silent_when_nothing_repeats() {
        assert!(lookup(&[1, 2, 3, 4, 5, 6], 4).is_empty());
        assert!(lookup(&[1, 2, 9, 1, 2], 4).is_empty());
        assert!(lookup(&[], 4).is_empty());
    }

    fn cost() -> StepCost {
        // Step times of a 0.5B model on two cores, see the bench's figures.
        let mut cost = StepCost::default();
        for (rows, ms) in [
            (1, 18.0),
            (2, 33.0),
            (4, 37.0),
            (8, 57.0),
            (16, 90.0),
            (64, 250.0),
        ] {
            cost.observe(rows, ms);
        }
        cost
    }

    fn whole(cost: &StepCost) -> Steps<'_> {
        Steps {
            jobs: 1,
            groups: 1,
            pipe: Pipe::WHOLE,
            cost,
            draft_ms: 0.0,
        }
    }

    #[test]
    fn good_drafts_are_long_and_bad_ones_are_left_out() {
        let cost = cost();
        let steps = whole(&cost);
        assert_eq!(draft_tokens(0.05, &steps), 0);
        assert_eq!(draft_tokens(0.7, &steps), 3);
        assert!(draft_tokens(0.98, &steps) > 6);
        let draft_ms = 30.0;
        let slow = Steps { draft_ms, ..steps };
        assert_eq!(
            draft_tokens(0.5, &slow),
            0,
            "a slow draft model does not pay"
        );
    }

    #[test]
    fn unknown_costs_are_explored() {
        assert_eq!(draft_tokens(0.5, &whole(&StepCost::default())), 3);
    }

    #[test]
    fn a_cold_first_prompt_does_not_rule_drafts_out() {
        let mut cost = StepCost::default();
        cost.observe(50, 10_000.0);
        cost.observe(1, 18.0);
        assert_eq!(draft_tokens(0.5, &whole(&cost)), 3);
        cost.observe(4, 37.0);
        assert!(draft_tokens(0.7, &whole(&cost)) > 0);
        assert_eq!(draft_tokens(0.05, &whole(&cost)), 0);
    }

    #[test]
    fn a_long_way_is_worth_more_tokens() {
        let cost = cost();
        let drafted = |p: f64, link_ms: f64| {
            let pipe = Pipe {
                parts: 3,
                depth: 5,
                link_ms,
            };
            let steps = whole(&cost);
            draft_tokens(p, &Steps { pipe, ..steps })
        };
        for p in [0.1, 0.3, 0.5, 0.7, 0.9, 0.99] {
            let counts = [0.0, 10.0, 30.0, 100.0, 300.0].map(|link_ms| drafted(p, link_ms));
            assert!(counts.is_sorted(), "{p}: {counts:?}");
            assert_eq!(counts[0], draft_tokens(p, &whole(&cost)));
        }
        // Three machines, 20 ms from one to the other and back.
        assert!(drafted(0.5, 30.0) > drafted(0.5, 0.0));
        assert_eq!(drafted(0.99, 30.0), DRAFT_TOKENS_MAX);
        // Other steps fill the time on the links, so that rows cost what they cost.
        let pipe = Pipe {
            parts: 1,
            depth: 5,
            link_ms: 30.0,
        };
        let steps = whole(&cost);
        let busy = Steps {
            pipe,
            groups: 5,
            ..steps
        };
        assert_eq!(draft_tokens(0.3, &busy), draft_tokens(0.3, &steps));
    }

    #[test]
    fn acceptance_follows_what_is_judged() {
        let mut acceptance = Acceptance::default();
        (0..60).for_each(|_| acceptance.observe(8, 0));
        assert!(acceptance.rate() < 0.01);
        (0..60).for_each(|_| acceptance.observe(3, 3));
        assert!(acceptance.rate() > 0.99);
    }
}
