//! How long a host waits for a frame, by how long frames took before. Pure.

use std::time::Duration;

/// Before anything is known: a first step reads all weights from a slow disk.
pub(super) const FIRST: Duration = Duration::from_secs(120);

/// However fast frames are, a machine may be busy with something else for a moment.
const LEAST: Duration = Duration::from_secs(5);

/// However slow frames are.
const MOST: Duration = Duration::from_secs(300);

/// So many times the usual time is too long.
const FACTOR: u32 = 8;

/// How much one frame changes what is usual: an eighth.
const WEIGHT: u32 = 8;

/// What is usual.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    frame: Option<Duration>,
    row: Option<Duration>,
}

impl Patience {
    /// A frame with so many rows took so long.
    pub(super) fn observe(&mut self, rows: u32, took: Duration) {
        if rows == 0 {
            return;
        }
        let average = |old: Option<Duration>, new: Duration| match old {
            Some(old) => old - old / WEIGHT + new / WEIGHT,
            None => new,
        };
        self.frame = Some(average(self.frame, took));
        self.row = Some(average(self.row, took / rows));
    }

    /// How long a frame with so many rows may take.
    pub(super) fn limit(&self, rows: u32) -> Duration {
        let (Some(frame), Some(row)) = (self.frame, self.row) else {
            return FIRST;
        };
        let usual = frame.max(row.saturating_mul(rows));
        (LEAST + usual.saturating_mul(FACTOR)).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_long_at_first_and_then_as_long_as_is_usual() {
        let mut patience = Patience::default();
        assert_eq!(patience.limit(1), FIRST);
        patience.observe(0, Duration::from_millis(1));
        assert_eq!(patience.limit(1), FIRST);
        patience.observe(1, Duration::from_secs(2));
        assert_eq!(patience.limit(1), Duration::from_secs(21));
        for _ in 0..100 {
            patience.observe(1, Duration::from_millis(100));
        }
        let limit = patience.limit(1);
        assert!(limit < Duration::from_millis(5_900), "{limit:?}");
        // A prompt takes longer than one row.
        assert!(patience.limit(512) > Duration::from_secs(200));
        assert_eq!(patience.limit(u32::MAX), MOST);
    }
}
