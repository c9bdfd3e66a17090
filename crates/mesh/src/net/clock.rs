//! Owns the time that membership runs on. It goes on while the machine is suspended, so that a laptop
//! that wakes up knows how long it was away: ages of what it was told, and its own place, depend on it.
//! The clock of timers stands still meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// Time since its start, which never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Reading,
}

/// What a clock of the system says.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// Since the machine was booted, suspension included.
    SinceBoot(Duration),
    /// Systems without such a clock: that of timers.
    Timers(Instant),
}

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self { start: read() }
    }

    /// Milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        let elapsed = match (self.start, read()) {
            (Reading::SinceBoot(start), Reading::SinceBoot(now)) => now.saturating_sub(start),
            (Reading::Timers(start), _) => start.elapsed(),
            // The system's clock was there at the start, so it is there now.
            (Reading::SinceBoot(_), Reading::Timers(_)) => Duration::ZERO,
        };
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// When a timer must fire for `at_ms`. Looked at anew after whatever wakes a task, because timers
    /// come late by the time of a suspension.
    pub(crate) fn timer(&self, at_ms: u64) -> Instant {
        timer(Instant::now(), self.now_ms(), at_ms)
    }
}

fn timer(now: Instant, now_ms: u64, at_ms: u64) -> Instant {
    now + Duration::from_millis(at_ms.saturating_sub(now_ms))
}

#[cfg(unix)]
fn read() -> Reading {
    use nix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    // Apple's goes on in sleep; that of other systems may stand still, and nothing is lost by it.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

    clock_gettime(CLOCK).map_or_else(
        |_| Reading::Timers(Instant::now()),
        |time| Reading::SinceBoot(time.into()),
    )
}

#[cfg(not(unix))]
fn read() -> Reading {
    Reading::Timers(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_boot_is_told_and_goes_on() {
        let clock = Clock::start();
        #[cfg(unix)]
        assert!(matches!(clock.start, Reading::SinceBoot(_)));
        let began = std::time::Instant::now();
        let first = clock.now_ms();
        while began.elapsed() < Duration::from_millis(20) {
            assert!(clock.now_ms() >= first);
        }
        assert!(clock.now_ms() >= 20);
    }

    #[test]
    fn a_suspended_machine_is_not_late_for_ever() {
        let now = Instant::now();
        let in_ms = |ms| now + Duration::from_millis(ms);
        assert_eq!(timer(now, 1_000, 1_400), in_ms(400));
        // An hour of suspension: what was due in it is due now, and what comes later is nearer.
        assert_eq!(timer(now, 3_601_000, 1_400), now);
        assert_eq!(timer(now, 3_601_000, 3_601_500), in_ms(500));
    }
}
