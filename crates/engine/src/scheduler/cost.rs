//! What a step costs on this machine, learned from the steps themselves.

/// Weight of a new measurement in the running mean.
const LEARNING_RATE: f64 = 0.2;
/// Row counts with a measurement of their own.
const SMALL_ROWS: usize = 64;
/// Steps with at least so many rows teach the price of a prompt row.
const LARGE_ROWS_MIN: usize = 32;
/// Price of a row before anything was measured, ms.
const ROW_MS_DEFAULT: f64 = 2.0;

/// Weight of a new time on links when the step may have waited for others.
const CREEP_RATE: f64 = 0.002;

/// Running means of step times.
#[derive(Debug, Clone)]
pub struct StepCost {
    small_ms: [Option<f64>; SMALL_ROWS + 1],
    row_ms: Option<f64>,
}

impl Default for StepCost {
    fn default() -> Self {
        Self {
            small_ms: [None; SMALL_ROWS + 1],
            row_ms: None,
        }
    }
}

impl StepCost {
    /// Learns that a step of `rows` rows took `time_ms`.
    pub fn observe(&mut self, rows: usize, time_ms: f64) {
        let blend = |old: &mut Option<f64>, new: f64| {
            *old = Some(old.map_or(new, |old| old + LEARNING_RATE * (new - old)));
        };
        if (1..=SMALL_ROWS).contains(&rows) {
            blend(&mut self.small_ms[rows], time_ms);
        }
        if rows >= LARGE_ROWS_MIN {
            blend(&mut self.row_ms, time_ms / rows as f64);
        }
    }

    /// Rows of prompt that take about `time_ms`.
    #[must_use]
    pub fn rows_within(&self, time_ms: f64) -> usize {
        (time_ms / self.row_ms.unwrap_or(ROW_MS_DEFAULT).max(1e-6)) as usize
    }

    /// Whether the price of a prompt row was measured.
    #[must_use]
    pub fn knows_rows(&self) -> bool {
        self.row_ms.is_some()
    }

    /// The next larger number of rows that was measured, and its time, ms.
    #[must_use]
    pub fn next_larger(&self, rows: usize) -> Option<(usize, f64)> {
        let larger = rows + 1..=SMALL_ROWS;
        larger
            .into_iter()
            .find_map(|r| Some((r, self.small_ms[r]?)))
    }

    /// Time of a step of `rows` rows, ms: measured, or drawn as a line between the nearest
    /// measured neighbours. `None` until a step of one row and a larger one were seen.
    #[must_use]
    pub fn step_ms(&self, rows: usize) -> Option<f64> {
        let rows = rows.clamp(1, SMALL_ROWS);
        if let Some(ms) = self.small_ms[rows] {
            return Some(ms);
        }
        let known = |r: usize| self.small_ms[r].map(|ms| (r as f64, ms));
        let below = (1..rows).rev().find_map(known)?;
        let above = (rows + 1..=SMALL_ROWS).find_map(known).or_else(|| {
            self.row_ms
                .map(|ms| (SMALL_ROWS as f64, ms * SMALL_ROWS as f64))
        })?;
        let t = (rows as f64 - below.0) / (above.0 - below.0).max(1.0);
        Some(below.1 + t * (above.1 - below.1))
    }
}

/// What steps spend on their way between the parts of a model, beside being computed.
#[derive(Debug, Clone, Default)]
pub struct LinkCost {
    ms: Option<f64>,
}

impl LinkCost {
    /// Learns that a step was under way for `time_ms` more than it was computed. Unless it was `alone` it
    /// may have waited for others, so that only a shorter time says much.
    pub fn observe(&mut self, time_ms: f64, alone: bool) {
        let old = *self.ms.get_or_insert(time_ms);
        let rate = match alone || time_ms < old {
            true => LEARNING_RATE,
            false => CREEP_RATE,
        };
        self.ms = Some(old + rate * (time_ms - old));
    }

    /// Time that a step spends so, ms; 0 until measured.
    #[must_use]
    pub fn ms(&self) -> f64 {
        self.ms.unwrap_or(0.0)
    }
}
