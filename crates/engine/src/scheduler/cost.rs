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

/// So many steps of one size make its time known: a single one may have met anything.
const KNOWN_COUNT: u32 = 6;

/// Running means of step times.
#[derive(Debug, Clone)]
pub struct StepCost {
    small: [Mean; SMALL_ROWS + 1],
    row: Mean,
}

/// A running mean: of all values at first, then more and more of the last ones.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    value: f64,
    count: u32,
}

impl Mean {
    fn observe(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let rate = LEARNING_RATE.max(1.0 / f64::from(self.count));
        self.value += rate * (value - self.value);
    }

    fn get(&self) -> Option<f64> {
        (self.count > 0).then_some(self.value)
    }
}

impl Default for StepCost {
    fn default() -> Self {
        Self {
            small: [Mean::default(); SMALL_ROWS + 1],
            row: Mean::default(),
        }
    }
}

impl StepCost {
    /// Learns that a step of `rows` rows took `time_ms`.
    pub fn observe(&mut self, rows: usize, time_ms: f64) {
        if (1..=SMALL_ROWS).contains(&rows) {
            self.small[rows].observe(time_ms);
        }
        if rows >= LARGE_ROWS_MIN {
            self.row.observe(time_ms / rows as f64);
        }
    }

    /// Rows of prompt that take about `time_ms`.
    #[must_use]
    pub fn rows_within(&self, time_ms: f64) -> usize {
        (time_ms / self.row.get().unwrap_or(ROW_MS_DEFAULT).max(1e-6)) as usize
    }

    /// Whether the price of a prompt row was measured.
    #[must_use]
    pub fn knows_rows(&self) -> bool {
        self.row.get().is_some()
    }

    /// Whether steps of so many rows were measured often enough to go by.
    #[must_use]
    pub fn knows(&self, rows: usize) -> bool {
        self.small[rows.clamp(1, SMALL_ROWS)].count >= KNOWN_COUNT
    }

    /// Whether a step of so many rows was ever measured.
    #[must_use]
    pub fn is_measured(&self, rows: usize) -> bool {
        self.small[rows.clamp(1, SMALL_ROWS)].get().is_some()
    }

    /// The next larger number of rows that was measured, and its time, ms.
    #[must_use]
    pub fn next_larger(&self, rows: usize) -> Option<(usize, f64)> {
        let larger = rows + 1..=SMALL_ROWS;
        larger
            .into_iter()
            .find_map(|r| Some((r, self.small[r].get()?)))
    }

    /// Time of a step of `rows` rows, ms: measured, or drawn as a line between the nearest
    /// measured neighbours. `None` until a step of one row and a larger one were seen.
    #[must_use]
    pub fn step_ms(&self, rows: usize) -> Option<f64> {
        let rows = rows.clamp(1, SMALL_ROWS);
        if let Some(ms) = self.small[rows].get() {
            return Some(ms);
        }
        let known = |r: usize| self.small[r].get().map(|ms| (r as f64, ms));
        let below = (1..rows).rev().find_map(known)?;
        let above = (rows + 1..=SMALL_ROWS).find_map(known).or_else(|| {
            let row_ms = self.row.get();
            row_ms.map(|ms| (SMALL_ROWS as f64, ms * SMALL_ROWS as f64))
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
