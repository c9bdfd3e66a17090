//! Whether another ring is so much better that going there pays. Pure.

use std::time::Duration;

/// A move must make tokens come so many percent faster: less is noise, or will be gone tomorrow.
const GAIN_PERCENT_MIN: f64 = 15.0;

/// Once it seemed to pay, it does so as long as the gain is at least this: a threshold alone flickers.
const GAIN_PERCENT_KEPT: f64 = 10.0;

/// How long a gain must last before it is believed.
const PERSISTENCE: Duration = Duration::from_secs(20);

/// Looks with tokens in between that must have seen it: one stall before a pause is no slowness.
const SIGHTS_MIN: u32 = 5;

/// A ring stays for about so long: the gain of that time is to be set against the cost.
const HORIZON: Duration = Duration::from_secs(600);

/// So many times its cost must a move save.
const RETURN: f64 = 2.0;

/// What is to be seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// Time of a token in the ring that runs, by what was measured, seconds.
    pub running_s: f64,
    /// Time of a token in the best ring that there could be, seconds.
    pub best_s: f64,
    /// How long streams would wait for the move.
    pub pause: Duration,
    /// Tokens came since the last look: what was measured is new.
    pub is_active: bool,
}

/// Remembers since when a move would pay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Advantage {
    since: Option<Duration>,
    sights: u32,
}

impl Advantage {
    /// Takes a look; true if a move pays, and has for long enough. `None`: there is no other ring.
    pub fn observe(&mut self, sight: Option<Sight>, now: Duration) -> bool {
        let needed = match self.since {
            Some(_) => GAIN_PERCENT_KEPT,
            None => GAIN_PERCENT_MIN,
        };
        let Some(sight) = sight.filter(|sight| sight.pays(needed)) else {
            *self = Self::default();
            return false;
        };
        let since = *self.since.get_or_insert(now);
        self.sights = self.sights.saturating_add(sight.is_active.into());
        self.sights >= SIGHTS_MIN && now.saturating_sub(since) >= PERSISTENCE
    }

    /// Forgets what it saw.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Sight {
    fn pays(&self, gain_percent: f64) -> bool {
        // False for NaN, too.
        let is_faster = self.running_s > self.best_s * (1.0 + gain_percent / 100.0);
        let saved_s = HORIZON.as_secs_f64() * (1.0 - self.best_s / self.running_s);
        is_faster && saved_s >= RETURN * self.pause.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(running_ms: f64, best_ms: f64, pause_s: u64, is_active: bool) -> Option<Sight> {
        Some(Sight {
            running_s: running_ms / 1e3,
            best_s: best_ms / 1e3,
            pause: Duration::from_secs(pause_s),
            is_active,
        })
    }

    /// Seconds until it pays, with a look each second.
    fn pays_after(looks: impl Fn(u64) -> Option<Sight>) -> Option<u64> {
        let mut advantage = Advantage::default();
        (0..200).find(|&second| advantage.observe(looks(second), Duration::from_secs(second)))
    }

    #[test]
    fn a_gain_must_be_large_and_last() {
        assert_eq!(pays_after(|_| sight(100.0, 50.0, 10, true)), Some(20));
        assert_eq!(pays_after(|_| sight(100.0, 90.0, 0, true)), None);
        // It has to earn its cost.
        assert_eq!(pays_after(|_| sight(100.0, 50.0, 200, true)), None);
        assert_eq!(pays_after(|_| sight(100.0, 80.0, 59, true)), Some(20));
        assert_eq!(pays_after(|_| sight(100.0, 80.0, 61, true)), None);
        for nonsense in [f64::NAN, f64::INFINITY, 0.0] {
            assert_eq!(
                pays_after(|_| sight(100.0, nonsense * 1e3, 1, true)),
                match nonsense {
                    0.0 => Some(20),
                    _ => None,
                }
            );
            assert_eq!(pays_after(|_| sight(nonsense, nonsense, 1, true)), None);
        }
        assert_eq!(pays_after(|_| None), None);
    }

    #[test]
    fn spikes_and_pauses_do_not_count() {
        // Slow for ten seconds, again and again.
        let spike = |second: u64| match second % 20 {
            0..10 => sight(100.0, 50.0, 1, true),
            _ => sight(51.0, 50.0, 1, true),
        };
        assert_eq!(pays_after(spike), None);
        // Slow in the last steps before a pause: nothing new is known.
        let last = |second: u64| sight(100.0, 50.0, 1, second < 4);
        assert_eq!(pays_after(last), None);
        // A gain that flickers a little lasts.
        let flicker =
            |second: u64| sight(112.0 + f64::from(second as u32 % 2) * 6.0, 100.0, 1, true);
        assert_eq!(pays_after(flicker), Some(21));
    }
}
