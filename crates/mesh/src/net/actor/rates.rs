//! Owns how often strangers may make this node work and talk. Pure.

use crate::admission::Refusal;
use crate::bucket::Bucket;

/// Tickets that are redeemed in a second, averaged, and at once: each costs signatures and maybe a
/// write to disk.
const JOINS_PER_SECOND: u32 = 20;
const JOINS_BURST: u32 = 100;

/// Warnings about those who were not let in: enough to see what goes on, and too few to fill a disk
/// with. The rest is for debugging.
const COMPLAINTS_PER_SECOND: u32 = 1;
const COMPLAINTS_BURST: u32 = 30;

/// How often tickets are redeemed.
pub(super) struct Joins(Bucket);

impl Joins {
    pub(super) fn new() -> Self {
        Self(Bucket::new(JOINS_PER_SECOND, JOINS_BURST, 0))
    }

    /// Counts one that is about to be redeemed.
    ///
    /// # Errors
    /// [`Refusal::TooOften`].
    pub(super) fn count(&mut self, now_ms: u64) -> Result<(), Refusal> {
        if self.0.take(1, now_ms) {
            Ok(())
        } else {
            Err(Refusal::TooOften)
        }
    }
}

/// How often this node warns of those who were not let in.
pub(super) struct Complaints {
    bucket: Bucket,
    /// Since the last warning.
    unsaid: u64,
}

impl Complaints {
    pub(super) fn new() -> Self {
        Self {
            bucket: Bucket::new(COMPLAINTS_PER_SECOND, COMPLAINTS_BURST, 0),
            unsaid: 0,
        }
    }

    /// Whether there may be a warning now; if so, how many there were not since the last one.
    pub(super) fn voice(&mut self, now_ms: u64) -> Option<u64> {
        if self.bucket.take(1, now_ms) {
            Some(std::mem::take(&mut self.unsaid))
        } else {
            self.unsaid += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_joins_than_the_rate_are_too_often() {
        let mut joins = Joins::new();
        for _ in 0..JOINS_BURST {
            assert_eq!(joins.count(0), Ok(()));
        }
        assert_eq!(joins.count(0), Err(Refusal::TooOften));
        // From then on as many as the rate allows, and no more.
        let interval_ms = 1_000 / u64::from(JOINS_PER_SECOND);
        assert_eq!(joins.count(interval_ms - 1), Err(Refusal::TooOften));
        let asked = (1..=1_000).map(|step| joins.count(step * interval_ms / 2));
        assert_eq!(asked.filter(Result::is_ok).count(), 500);
        // A joiner may be told so by one member and be let in by another.
        assert!(!Refusal::TooOften.is_final());
    }

    #[test]
    fn warnings_are_counted_while_they_are_held_back() {
        let mut complaints = Complaints::new();
        for _ in 0..COMPLAINTS_BURST {
            assert_eq!(complaints.voice(0), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(complaints.voice(0), None);
        }
        let later_ms = 1_000 / u64::from(COMPLAINTS_PER_SECOND);
        assert_eq!(complaints.voice(later_ms), Some(7));
        assert_eq!(complaints.voice(later_ms), None);
        assert_eq!(complaints.voice(2 * later_ms), Some(1));
    }
}
