//! Owns rate limits: a bucket of tokens that refills with time. Pure.

/// Allows `burst` at once and `per_second` on average.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_second: u64,
    burst: u64,
    /// In thousandths, so that slow refills are not lost to rounding.
    millis: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, burst: u32, now_ms: u64) -> Self {
        let burst = u64::from(burst);
        Self {
            per_second: u64::from(per_second),
            burst,
            millis: burst * 1_000,
            at_ms: now_ms,
        }
    }

    /// Takes `count` tokens, or none and false if there are not as many.
    pub(crate) fn take(&mut self, count: u64, now_ms: u64) -> bool {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let refill = passed_ms.saturating_mul(self.per_second);
        self.millis = self.millis.saturating_add(refill).min(self.burst * 1_000);
        let wanted = count.saturating_mul(1_000);
        let enough = wanted <= self.millis;
        if enough {
            self.millis -= wanted;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_the_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(10, 3, 0);
        assert!((0..3).all(|_| bucket.take(1, 0)));
        assert!(!bucket.take(1, 0));
        assert!(!bucket.take(1, 99));
        assert!(bucket.take(1, 100));
        assert!(!bucket.take(4, 1_000_000), "more than the burst never fits");
        assert!(bucket.take(3, 1_000_000));
        assert!(!bucket.take(1, 0), "a clock that goes back gives nothing");
    }
}
