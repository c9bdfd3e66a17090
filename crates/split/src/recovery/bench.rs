//! Machines that a ring does without for a while. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a machine is left out the first time: longer than a restart, shorter than a coffee.
const FIRST: Duration = Duration::from_secs(30);

/// How long at most, however often: within the patience of streams, which may have nobody else.
const MOST: Duration = Duration::from_secs(120);

/// A ring that stood for so long shows that those in it are sound again.
const SOUND: Duration = Duration::from_secs(600);

/// An accuser is left out itself from its second accusation on.
const ACCUSATIONS_MAX: u32 = 1;

/// How often a machine may be let in early because it was started anew.
const RETURNS_MAX: u32 = 2;

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    suspected: u32,
    accusations: u32,
    until: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct Bench<I> {
    records: BTreeMap<I, Record>,
    stands_since: Option<Duration>,
}

impl<I> Default for Bench<I> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            stands_since: None,
        }
    }
}

impl<I: Copy + Ord> Bench<I> {
    /// A ring has begun to stand.
    pub(super) fn stands(&mut self, now: Duration) {
        self.stands_since = Some(now);
    }

    /// A ring, or an attempt, is lost. True if somebody is left out for it.
    pub(super) fn blame(&mut self, suspect: Option<I>, accuser: Option<I>, now: Duration) -> bool {
        let stood = self.stands_since.take();
        if stood.is_some_and(|since| now.saturating_sub(since) >= SOUND) {
            self.records.clear();
        }
        self.suspect(suspect, accuser, now)
    }

    /// The same for a ring that did not come to be beside one that stands.
    pub(super) fn suspect(
        &mut self,
        suspect: Option<I>,
        accuser: Option<I>,
        now: Duration,
    ) -> bool {
        if let Some(suspect) = suspect {
            self.leave_out(suspect, now);
        }
        if let Some(accuser) = accuser {
            let record = self.records.entry(accuser).or_default();
            record.accusations += 1;
            // Whoever accuses this host can't be right twice either, but the host can't be left out.
            if suspect.is_none() || record.accusations > ACCUSATIONS_MAX {
                self.leave_out(accuser, now);
            }
        }
        suspect.is_some() || accuser.is_some()
    }

    fn leave_out(&mut self, node: I, now: Duration) {
        let record = self.records.entry(node).or_default();
        let doublings = record.suspected.min(6);
        record.suspected += 1;
        record.until = now + FIRST.saturating_mul(1 << doublings).min(MOST);
    }

    /// A machine was started anew, and is let in at once unless that happens all the time.
    pub(super) fn returned(&mut self, node: I) {
        if let Some(record) = self.records.get_mut(&node)
            && record.suspected <= RETURNS_MAX
        {
            record.until = Duration::ZERO;
        }
    }

    pub(super) fn left_out(&self, now: Duration) -> BTreeSet<I> {
        let out = self.records.iter().filter(|(_, r)| r.until > now);
        out.map(|(node, _)| *node).collect()
    }

    pub(super) fn next_pardon(&self, now: Duration) -> Option<Duration> {
        let ends = self.records.values().map(|record| record.until);
        ends.filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn suspects_stay_out_longer_each_time() {
        let mut bench = Bench::default();
        let mut now = seconds(0);
        for wanted in [30, 60, 120, 120, 120] {
            assert!(bench.blame(Some(1), None, now));
            assert_eq!(bench.next_pardon(now), Some(now + seconds(wanted)));
            now += seconds(wanted);
            assert!(bench.left_out(now).is_empty());
        }
        bench.stands(now);
        assert!(!bench.blame(None, None, now + SOUND));
        assert!(bench.blame(Some(1), None, now));
        assert_eq!(bench.next_pardon(now), Some(now + seconds(30)));
    }

    #[test]
    fn whoever_accuses_twice_is_left_out_too() {
        let mut bench = Bench::default();
        bench.blame(Some(1), Some(9), seconds(0));
        assert_eq!(bench.left_out(seconds(0)), [1].into());
        bench.blame(Some(2), Some(9), seconds(0));
        assert_eq!(bench.left_out(seconds(0)), [1, 2, 9].into());
        // Nobody but the host is accused.
        bench.blame(None, Some(8), seconds(0));
        assert_eq!(bench.left_out(seconds(0)), [1, 2, 8, 9].into());
        bench.returned(1);
        assert_eq!(bench.left_out(seconds(0)), [2, 8, 9].into());
    }
}
