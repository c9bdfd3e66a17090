//! How fast a ring is: what its stages count, and what follows from that. Pure.

use std::time::Duration;

use crate::plan::{Speed, SpeedError};

/// So many events ago an event counts half: some seconds of an answer.
const HALF_LIFE: f64 = 32.0;

/// Fewer are no measurement: the first ones read weights from a disk.
const COUNT_MIN: f64 = 16.0;

/// What a stage has computed since it began. Numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Batches with rows.
    pub batches: u64,
    /// Their rows.
    pub rows: u64,
    /// Time that it has computed, cache operations included.
    pub busy: Duration,
    /// Batches of one row: one stream decodes without speculation.
    pub singles: u64,
    /// Time of these.
    pub singles_busy: Duration,
}

impl Work {
    /// Counts one more batch.
    pub fn add(&mut self, rows: usize, busy: Duration) {
        self.busy = self.busy.saturating_add(busy);
        if rows == 0 {
            return;
        }
        self.batches = self.batches.saturating_add(1);
        self.rows = self.rows.saturating_add(rows as u64);
        if rows == 1 {
            self.singles = self.singles.saturating_add(1);
            self.singles_busy = self.singles_busy.saturating_add(busy);
        }
    }

    /// What came since `before`; `None` if that is not an earlier count of the same.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            batches: self.batches.checked_sub(before.batches)?,
            rows: self.rows.checked_sub(before.rows)?,
            busy: self.busy.checked_sub(before.busy)?,
            singles: self.singles.checked_sub(before.singles)?,
            singles_busy: self.singles_busy.checked_sub(before.singles_busy)?,
        })
    }
}

/// Steps in which one stream got one token, as the host saw them; speculation has others. Only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steps {
    /// How many.
    pub count: u64,
    /// From rows that are back to the next rows that leave: tail, head, sampling, the token's row.
    pub here: Duration,
    /// From rows that leave until they are back.
    pub away: Duration,
}

impl Steps {
    /// What came since `before`; `None` if that is not an earlier count of the same.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            count: self.count.checked_sub(before.count)?,
            here: self.here.checked_sub(before.here)?,
            away: self.away.checked_sub(before.away)?,
        })
    }
}

/// Mean time of the last events; older ones fade.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Mean {
    count: f64,
    total_s: f64,
}

impl Mean {
    /// Takes in so many events that took so long together.
    #[expect(clippy::cast_precision_loss, reason = "three digits are plenty")]
    pub fn add(&mut self, count: u64, total: Duration) {
        let count = count as f64;
        let kept = 0.5f64.powf(count / HALF_LIFE);
        // Of many new events the earlier ones have faded, too; together they count as one half-life.
        self.count = self.count * kept + count;
        self.total_s = self.total_s * kept + total.as_secs_f64();
    }

    /// Seconds of one event, once there were enough.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        (self.count >= COUNT_MIN).then(|| self.total_s / self.count)
    }
}

/// One stage as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stage {
    seen: Work,
    single: Mean,
    /// Rows beyond the first of each batch.
    further: Mean,
}

impl Stage {
    /// Takes in what the stage counts now. A stage that counts backwards has begun anew.
    pub fn observe(&mut self, work: &Work) {
        let new = work.since(&self.seen);
        self.seen = *work;
        let Some(new) = new else {
            return;
        };
        self.single.add(new.singles, new.singles_busy);
        // What batches of several rows took beyond their first rows.
        let several = |all: u64| all.saturating_sub(new.singles);
        let (batches, rows) = (several(new.batches), several(new.rows));
        if let Some(single_s) = self.single.seconds()
            && rows > batches
        {
            let busy_s = new.busy.saturating_sub(new.singles_busy).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "three digits are plenty")]
            let further_s = (busy_s - batches as f64 * single_s).max(0.0);
            let further = Duration::try_from_secs_f64(further_s).unwrap_or_default();
            self.further.add(rows - batches, further);
        }
    }

    /// The speed that follows, if the stage reads so many bytes for a token. Prompts go as `guess` says
    /// until some were measured.
    ///
    /// # Errors
    /// [`SpeedError`] when what was counted makes no sense.
    pub fn speed(&self, active_bytes: u64, guess: Speed) -> Option<Result<Speed, SpeedError>> {
        let single_s = self.single.seconds()?;
        let (decode, prefill) = guess.bytes_per_s();
        let further_s = self.further.seconds().filter(|s| *s > 0.0);
        let row_s = further_s.unwrap_or(single_s * decode / prefill);
        Some(Speed::from_times(active_bytes, single_s, row_s))
    }
}

/// Tells what came of a worker's counts apart from noise: how much slower than planned it is.
#[must_use]
pub fn slowness(work: &Work, active_bytes: u64, planned: Speed) -> Option<f64> {
    if work.batches == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are plenty")]
    let (batches, rows) = (work.batches as f64, work.rows as f64);
    let wanted_s = batches * planned.batch_s(active_bytes, rows / batches);
    (wanted_s > 0.0).then(|| work.busy.as_secs_f64() / wanted_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_mean_needs_some_events_and_forgets_old_ones() {
        let mut mean = Mean::default();
        mean.add(15, ms(150));
        assert_eq!(mean.seconds(), None);
        mean.add(2, ms(20));
        assert!((mean.seconds().unwrap() - 0.010).abs() < 1e-9);
        mean.add(320, ms(320 * 30));
        assert!((mean.seconds().unwrap() - 0.030).abs() < 1e-4);
        mean.add(0, ms(0));
        assert!((mean.seconds().unwrap() - 0.030).abs() < 1e-4);
    }

    #[test]
    fn a_stage_is_as_fast_as_it_was_of_late() {
        let (mut stage, mut work) = (Stage::default(), Work::default());
        let guess = Speed::from_bandwidth(1e9).unwrap();
        stage.observe(&work);
        for _ in 0..100 {
            work.add(1, ms(20));
        }
        work.add(0, ms(1));
        stage.observe(&work);
        assert!((stage.single.seconds().unwrap() - 0.020).abs() < 1e-9);
        let speed = stage.speed(200_000_000, guess).unwrap().unwrap();
        assert!((speed.bytes_per_s().0 - 10e9).abs() < 1e6);
        // Prompts in proportion, until there was one: 128 rows in 0.2 + 1.27 s.
        assert!((speed.bytes_per_s().1 - 40e9).abs() < 1e7);
        work.add(128, ms(20 + 1_270));
        stage.observe(&work);
        let speed = stage.speed(200_000_000, guess).unwrap().unwrap();
        assert!((speed.bytes_per_s().1 - 20e9).abs() < 1e8, "{speed:?}");
        // It begins anew, with the same speed.
        stage.observe(&Work::default());
        assert!(stage.single.seconds().is_some());
    }

    #[test]
    fn slowness_is_told_for_batches_of_any_size() {
        let planned = Speed::from_times(1_000, 0.010, 0.002).unwrap();
        let mut work = Work::default();
        assert_eq!(slowness(&work, 1_000, planned), None);
        work.add(1, ms(10));
        work.add(6, ms(20));
        assert!((slowness(&work, 1_000, planned).unwrap() - 1.0).abs() < 1e-9);
        work.add(1, ms(60));
        assert!((slowness(&work, 1_000, planned).unwrap() - 90.0 / 40.0).abs() < 1e-9);
    }
}
