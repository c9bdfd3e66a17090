//! Owns how much may be on its way to a peer: Cubic, but never less than a floor.
//!
//! What members send each other in a hurry is small and comes now and then: a hidden state of 16 to 32 KiB for each
//! token, for instance. Cubic does not widen the window of a sender that leaves it unused, so each loss by chance makes it
//! smaller for good, until one hidden state takes two flights instead of one. With the floor it always takes one.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use iroh::endpoint::{Controller, ControllerFactory, ControllerMetrics, RttEstimator};
use noq_proto::congestion::CubicConfig;

/// Bytes of the floor: the hidden states of eight streams of a large model, at 32 KiB each. It is also what one connection
/// keeps on its way over a link that can't take it, so it is no larger.
const FLOOR_BYTES: u64 = 256 * 1_024;

/// First congestion window in bytes. QUIC's own 12,000 would make every larger message of a fresh
/// connection wait for a second round trip.
const FIRST_WINDOW_BYTES: u64 = 512 * 1_024;

const _: () = assert!(FLOOR_BYTES <= FIRST_WINDOW_BYTES);

/// Makes the controllers of all connections but those for bulk.
#[derive(Debug)]
pub(super) struct FlooredCubic;

impl ControllerFactory for FlooredCubic {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(FIRST_WINDOW_BYTES);
        Box::new(Floored(Arc::new(cubic).build(now, mtu)))
    }
}

/// Everything but the window is Cubic's own.
#[derive(Debug)]
struct Floored(Box<dyn Controller>);

impl Controller for Floored {
    fn window(&self) -> u64 {
        self.0.window().max(FLOOR_BYTES)
    }

    /// The pace follows from this one, so it must not tell of less.
    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.0.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window()
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, largest: u64) {
        self.0.on_sent(now, bytes, largest);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, packet: u64) {
        self.0.on_packet_sent(now, bytes, packet);
    }

    fn on_cwnd_limited(&mut self) {
        self.0.on_cwnd_limited();
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        packet: u64,
        app_limited: bool,
        round_trip: &RttEstimator,
    ) {
        self.0
            .on_ack(now, sent, bytes, packet, app_limited, round_trip);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest: Option<u64>,
    ) {
        self.0.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent: bool,
        is_ecn: bool,
        lost_bytes: u64,
        largest_lost: u64,
    ) {
        self.0
            .on_congestion_event(now, sent, is_persistent, is_ecn, lost_bytes, largest_lost);
    }

    fn on_packet_lost(&mut self, bytes: u16, packet: u64, now: Instant) {
        self.0.on_packet_lost(bytes, packet, now);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.0.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.0.on_mtu_update(mtu);
    }

    fn on_ack_frequency_update(&mut self, threshold: u64, delay: std::time::Duration) {
        self.0.on_ack_frequency_update(threshold, delay);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn losses_never_take_a_hidden_state_its_window() {
        let now = Instant::now();
        let mut controller = Arc::new(FlooredCubic).build(now, 1_200);
        assert_eq!(controller.window(), FIRST_WINDOW_BYTES);
        for number in 0..100 {
            let lost_at = now + Duration::from_secs(number);
            controller.on_congestion_event(lost_at, lost_at, true, false, 1_200, number);
        }
        assert_eq!(controller.window(), FLOOR_BYTES);
        assert_eq!(controller.metrics().congestion_window, FLOOR_BYTES);
        assert_eq!(controller.clone_box().window(), FLOOR_BYTES);
    }
}
