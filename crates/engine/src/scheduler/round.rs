//! From one token of a stream to the next, where a model is in parts that compute at the same time: how
//! many steps to have in flight. Pure decisions.

use super::cost::StepCost;

/// More groups must promise so much more tokens per second: each costs the host a step, and estimates err.
const GAIN_MIN: f64 = 1.05;
/// So much more must a change promise, or noise would change the groups all the time.
const CHANGE_GAIN_MIN: f64 = 1.05;
/// Share of a step's time that does not depend on its rows, as long as nothing smaller was measured: reading
/// the weights. Rather too much is hoped for than too little: what is tried gets known.
const FIXED_SHARE: f64 = 0.3;

/// The parts that a step goes through, one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pipe {
    /// Parts that compute at the same time, on different steps.
    pub parts: usize,
    /// Most steps in flight.
    pub depth: usize,
    /// Time that a step spends between the parts, ms.
    pub link_ms: f64,
}

impl Pipe {
    /// A model in one piece.
    pub const WHOLE: Self = Self {
        parts: 1,
        depth: 1,
        link_ms: 0.0,
    };

    /// Time from one token of a stream to the next when `groups` steps are in flight, each of which takes
    /// `step_ms` to compute, ms: a step comes back after its own way, and no part can do more than work
    /// all the time.
    #[must_use]
    pub fn round_ms(&self, groups: usize, step_ms: f64) -> f64 {
        let own = step_ms + self.link_ms;
        own.max(groups as f64 * step_ms / self.parts.max(1) as f64)
    }

    /// Into how many steps to share out `jobs` decoding jobs, each with `rows` rows (drafts included).
    /// `current`: how many there are now.
    ///
    /// Few large steps cost less to compute, many small ones keep all parts at work.
    #[must_use]
    pub fn groups(&self, jobs: usize, rows: f64, costs: &Costs<'_>, current: usize) -> usize {
        let most = jobs.min(self.depth);
        if most < 2 {
            return 1;
        }
        let speed = |groups: usize| {
            let step_rows = (jobs.div_ceil(groups) as f64 * rows.max(1.0)).round();
            let step_ms = costs.step_ms(groups, step_rows as usize)?;
            Some(jobs as f64 / self.round_ms(groups, step_ms).max(1e-6))
        };
        let Some(one) = speed(1) else {
            return 1;
        };
        let mut best = (one, 1);
        for groups in 2..=most {
            if let Some(found) = speed(groups)
                && found > best.0 * GAIN_MIN
            {
                best = (found, groups);
            }
        }
        let is_possible = (1..=most).contains(&current);
        match is_possible.then(|| speed(current)).flatten() {
            Some(now) if best.0 < now * CHANGE_GAIN_MIN => current,
            _ => best.1,
        }
    }
}

/// What steps cost to compute, by whether others are in flight at the same time: parts may be on one machine,
/// and then they slow each other down.
#[derive(Debug, Clone, Copy)]
pub struct Costs<'a> {
    /// Of steps alone.
    pub alone: &'a StepCost,
    /// Of steps beside others.
    pub beside: &'a StepCost,
}

impl Costs<'_> {
    /// Time of a step when `groups` are in flight, ms: measured, or guessed from the next larger one. Until it was
    /// measured often the lower of two guesses counts, so that what may be better is tried. `None`: nothing is known.
    fn step_ms(&self, groups: usize, rows: usize) -> Option<f64> {
        let beside = self.beside.step_ms(rows).filter(|_| groups > 1);
        if beside.is_some() && self.beside.knows(rows) {
            return beside;
        }
        let alone = self.alone.step_ms(rows).or_else(|| {
            let (larger, ms) = self.alone.next_larger(rows)?;
            let share = rows as f64 / larger as f64;
            Some(ms * (FIXED_SHARE + (1.0 - FIXED_SHARE) * share))
        });
        match (beside, alone) {
            (Some(beside), Some(alone)) => Some(beside.min(alone)),
            (beside, alone) => beside.or(alone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `fixed` ms for the weights, and so much for each row; measured often.
    fn cost(fixed: f64, row: f64) -> StepCost {
        let mut cost = StepCost::default();
        for rows in [1, 2, 4, 8, 16, 32, 64].repeat(10) {
            cost.observe(rows, fixed + row * rows as f64);
        }
        cost
    }

    fn pipe(parts: usize, link_ms: f64) -> Pipe {
        Pipe {
            parts,
            depth: 2 * parts - 1,
            link_ms,
        }
    }

    #[test]
    fn a_round_is_a_trip_or_the_work_of_a_part() {
        let pipe = pipe(3, 20.0);
        assert_eq!(pipe.round_ms(1, 30.0), 50.0);
        assert_eq!(pipe.round_ms(3, 30.0), 50.0);
        assert_eq!(pipe.round_ms(6, 30.0), 60.0);
        assert_eq!(Pipe::WHOLE.round_ms(1, 30.0), 30.0);
    }

    /// Parts that do not disturb each other.
    fn apart(cost: &StepCost) -> Costs<'_> {
        Costs {
            alone: cost,
            beside: cost,
        }
    }

    #[track_caller]
    fn check(pipe: Pipe, jobs: usize, cost: &StepCost, groups: usize) {
        assert_eq!(
            pipe.groups(jobs, 1.0, &apart(cost), 0),
            groups,
            "{pipe:?}, {jobs} jobs"
        );
    }

    #[test]
    fn parts_are_kept_at_work_where_rows_cost_something() {
        // Rows cost nothing: one step for all, however long the way.
        check(pipe(3, 0.0), 4, &cost(30.0, 0.0), 1);
        check(pipe(3, 40.0), 8, &cost(30.0, 0.0), 1);
        // Rows are all there is to pay: one of each job.
        check(pipe(3, 0.0), 3, &cost(0.0, 10.0), 3);
        check(pipe(3, 40.0), 4, &cost(0.0, 10.0), 4);
        // As on a CPU: a row more costs a third of the weights.
        check(pipe(3, 0.0), 3, &cost(20.0, 7.0), 3);
        check(pipe(2, 20.0), 4, &cost(20.0, 7.0), 2);
        // One job, or one part: there is nothing to share out.
        check(pipe(3, 20.0), 1, &cost(0.0, 10.0), 1);
        check(Pipe::WHOLE, 8, &cost(0.0, 10.0), 1);
        check(pipe(3, 20.0), 0, &cost(0.0, 10.0), 1);
    }

    #[test]
    fn no_more_groups_than_may_be_in_flight() {
        for jobs in 1..40 {
            for parts in 1..6 {
                let pipe = pipe(parts, 50.0);
                let groups = pipe.groups(jobs, 1.0, &apart(&cost(1.0, 10.0)), 0);
                assert!((1..=pipe.depth.min(jobs)).contains(&groups));
            }
        }
    }

    #[test]
    fn small_gains_change_nothing() {
        let (pipe, cost) = (pipe(3, 0.0), cost(20.0, 7.0));
        let best = pipe.groups(6, 1.0, &apart(&cost), 0);
        assert!(best > 1);
        for current in 1..=5 {
            let kept = pipe.groups(6, 1.0, &apart(&cost), current);
            assert!(kept == best || kept == current);
            assert_eq!(pipe.groups(6, 1.0, &apart(&cost), kept), kept, "it flaps");
        }
        assert_eq!(
            pipe.groups(6, 1.0, &apart(&cost), 9),
            best,
            "what can't be is left"
        );
    }

    #[test]
    fn parts_on_one_machine_are_not_asked_to_work_at_once() {
        let (alone, beside) = (cost(10.0, 5.0), cost(30.0, 15.0));
        let pipe = pipe(3, 0.0);
        let costs = Costs {
            alone: &alone,
            beside: &beside,
        };
        assert!(pipe.groups(3, 1.0, &apart(&alone), 0) > 1);
        assert_eq!(pipe.groups(3, 1.0, &costs, 3), 1);
    }

    #[test]
    fn what_is_unknown_is_tried() {
        let pipe = pipe(3, 0.0);
        let mut cost = StepCost::default();
        assert_eq!(pipe.groups(4, 1.0, &apart(&cost), 0), 1);
        cost.observe(4, 40.0);
        let tried = pipe.groups(4, 1.0, &apart(&cost), 1);
        assert!(tried > 1);
        // It turns out that smaller steps are no cheaper.
        cost.observe(4usize.div_ceil(tried), 40.0);
        cost.observe(1, 40.0);
        assert_eq!(pipe.groups(4, 1.0, &apart(&cost), 0), 1);
    }

    #[test]
    fn one_bad_measurement_does_not_rule_a_number_of_groups_out() {
        let (alone, mut beside) = (cost(20.0, 15.0), StepCost::default());
        let pipe = pipe(2, 20.0);
        let groups = |beside: &StepCost, current| {
            let costs = Costs {
                alone: &alone,
                beside,
            };
            pipe.groups(2, 1.0, &costs, current)
        };
        // A prompt ran at the same time.
        beside.observe(1, 200.0);
        beside.observe(2, 200.0);
        assert_eq!(groups(&beside, 1), 2);
        // But it is slow each time.
        (0..10).for_each(|_| beside.observe(1, 200.0));
        assert_eq!(groups(&beside, 2), 1);
    }

    #[test]
    fn drafts_make_rows() {
        let pipe = pipe(2, 0.0);
        // Up to eight rows are free.
        let mut cost = StepCost::default();
        for (rows, ms) in [(1, 20.0), (8, 20.0), (16, 40.0), (32, 80.0)] {
            cost.observe(rows, ms);
        }
        assert_eq!(pipe.groups(2, 1.0, &apart(&cost), 0), 1);
        assert_eq!(pipe.groups(2, 8.0, &apart(&cost), 0), 2);
    }
}
