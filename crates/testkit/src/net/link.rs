//! Owns what can be set about one direction between two hosts, and what is counted there.

use std::time::Duration;

/// How much may wait in front of a link with a rate unless set otherwise, as time: what a home router holds.
const QUEUE_DEFAULT: Duration = Duration::from_millis(100);

/// How packets travel from one host to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// How long a packet is on its way, at least.
    pub delay: Duration,
    /// By up to how much longer, drawn evenly for each packet. Packets never overtake each other.
    pub jitter: Duration,
    /// Which share of the packets is lost, from 0 to 1; drawn for each packet.
    pub loss: f64,
    /// Bits per second that fit through, IP headers included. `None` is as fast as this machine can.
    pub rate_bits: Option<u64>,
    /// How much may wait in front of a link with a rate, as time. Further packets are dropped.
    pub queue: Duration,
    /// What loss and jitter are drawn from: the same packets in the same order share the same fate.
    pub seed: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate_bits: None,
            queue: QUEUE_DEFAULT,
            seed: 1,
        }
    }
}

impl Link {
    /// Half of `ms` in each direction; nothing is lost, and nothing bounds the rate.
    #[must_use]
    pub fn round_trip_ms(ms: u64) -> Self {
        Self {
            delay: Duration::from_micros(ms * 500),
            ..Self::default()
        }
    }

    /// The same, but `loss` of the packets (0.01 is one in a hundred) get lost.
    #[must_use]
    pub fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// The same, but each packet takes up to `ms` longer.
    #[must_use]
    pub fn with_jitter_ms(self, ms: u64) -> Self {
        Self {
            jitter: Duration::from_millis(ms),
            ..self
        }
    }

    /// The same, but no faster than this many megabits per second.
    #[must_use]
    pub fn with_rate_mbit(self, mbit: u64) -> Self {
        Self {
            rate_bits: Some(mbit * 1_000_000),
            ..self
        }
    }

    /// The same, but what waits in front of it may take this long; 100 ms if not set.
    #[must_use]
    pub fn with_queue_ms(self, ms: u64) -> Self {
        Self {
            queue: Duration::from_millis(ms),
            ..self
        }
    }

    /// The same with other dice.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Whether each packet has a fate of its own. Where none has, the kernel may hand over many
    /// segments as one, which saves most of the work.
    pub(super) fn needs_single_packets(&self) -> bool {
        self.loss > 0.0 || self.rate_bits.is_some()
    }
}

/// What happened to the packets of one direction since the lab began. Where nothing is lost and
/// nothing bounds the rate, many segments of one stream may count as one packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets handed to the other host, or on their way to it.
    pub passed: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets that came while the link was cut, or were on their way when it was.
    pub cut: u64,
    /// Packets for which a queue had no room.
    pub overflowed: u64,
    /// By how much the latest packet so far was later than set: the emulator's own error, which grows
    /// when it does not get a processor in time.
    pub late_max: Duration,
}
