//! How long a machine takes for a layer: measured on one layer of the model, or guessed from the
//! bandwidth of its memory. Layers of other sizes take time in proportion to the bytes that a token reads.

use thiserror::Error;

/// The unit of all times in the planner: whole numbers, so that equal plans compare as equal.
pub(super) const ATTOSECONDS_PER_SECOND: f64 = 1e18;

/// Slowest machine, in attoseconds a byte: a kilobyte a second. Slower is a broken measurement.
const RATE_MAX: f64 = 1e15;

/// Prompt rows that a machine of unknown kind evaluates in the time of one decoded token. CPUs were measured
/// at 3.2 to 4.3; GPUs do many more, so this promises too little rather than too much.
const PREFILL_ROWS_PER_DECODE: f64 = 4.0;

/// Time of a machine for each byte that a token reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed {
    decode: u64,
    prefill: u64,
}

/// Why numbers are no speed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SpeedError {
    /// Zero, negative, infinite or not a number.
    #[error("{what} of {value} makes no sense")]
    Value {
        /// What was measured.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A layer without weights tells nothing.
    #[error("a layer that reads no bytes was measured")]
    NothingRead,
}

impl Speed {
    /// From a run on layers that read so many bytes for a token: seconds for one decoded token, and for one row
    /// of a prompt.
    ///
    /// # Errors
    /// [`SpeedError`] when a time is not a positive number, or the layers read nothing.
    pub fn from_times(
        active_bytes: u64,
        decode_s: f64,
        prefill_row_s: f64,
    ) -> Result<Self, SpeedError> {
        if active_bytes == 0 {
            return Err(SpeedError::NothingRead);
        }
        #[expect(clippy::cast_precision_loss, reason = "three digits are plenty")]
        let bytes = active_bytes as f64;
        Ok(Self {
            decode: rate("a layer's time", decode_s, bytes)?,
            prefill: rate("a prompt row's time", prefill_row_s, bytes)?,
        })
    }

    /// From the bandwidth of memory, bytes a second: weights are read once for each token.
    ///
    /// # Errors
    /// [`SpeedError::Value`] when the bandwidth is not a positive number.
    pub fn from_bandwidth(bytes_per_s: f64) -> Result<Self, SpeedError> {
        let what = "a memory bandwidth";
        Ok(Self {
            decode: rate(what, 1.0, bytes_per_s)?,
            prefill: rate(what, 1.0 / PREFILL_ROWS_PER_DECODE, bytes_per_s)?,
        })
    }

    /// Bytes a second when tokens are decoded, and when a prompt is evaluated.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "sixteen digits are plenty")]
    pub fn bytes_per_s(self) -> (f64, f64) {
        let of = |rate: u64| ATTOSECONDS_PER_SECOND / rate as f64;
        (of(self.decode), of(self.prefill))
    }

    /// The speed of a machine that decodes `decode_bytes_per_s`, and evaluates prompts in the same
    /// proportion as this one.
    ///
    /// # Errors
    /// [`SpeedError::Value`] when that is not a positive number.
    pub fn with_decode(self, decode_bytes_per_s: f64) -> Result<Self, SpeedError> {
        let (decode, prefill) = self.bytes_per_s();
        let prefill = prefill / decode * decode_bytes_per_s;
        Ok(Self {
            decode: rate("a memory bandwidth", 1.0, decode_bytes_per_s)?,
            prefill: rate("a memory bandwidth", 1.0, prefill)?,
        })
    }

    /// Seconds for a batch of so many rows whose layers read `active_bytes` for a token: the first row
    /// as a decoded token, the others as rows of a prompt.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "sixteen digits are plenty")]
    pub fn batch_s(self, active_bytes: u64, rows: f64) -> f64 {
        let rate = self.decode as f64 + self.prefill as f64 * (rows - 1.0).max(0.0);
        active_bytes as f64 * rate / ATTOSECONDS_PER_SECOND
    }

    /// Attoseconds a byte for one decoded token.
    pub(super) fn decode(self) -> u128 {
        self.decode.into()
    }

    /// Attoseconds a byte for one row of a prompt.
    pub(super) fn prefill(self) -> u128 {
        self.prefill.into()
    }
}

fn rate(what: &'static str, seconds: f64, bytes: f64) -> Result<u64, SpeedError> {
    let rate = seconds / bytes * ATTOSECONDS_PER_SECOND;
    // Also refuses NaN.
    if !(seconds > 0.0 && bytes > 0.0 && bytes.is_finite() && rate <= RATE_MAX) {
        let value = if what == "a memory bandwidth" {
            bytes
        } else {
            seconds
        };
        return Err(SpeedError::Value { what, value });
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and RATE_MAX"
    )]
    Ok(rate.round().max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_speed() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-9] {
            assert!(Speed::from_bandwidth(value).is_err(), "{value}");
        }
        for (decode, prefill) in [
            (0.0, 1.0),
            (1.0, f64::NAN),
            (f64::INFINITY, 1.0),
            (1e9, 1.0),
        ] {
            assert!(Speed::from_times(100, decode, prefill).is_err());
        }
        let read_nothing = Speed::from_times(0, 1.0, 1.0);
        assert_eq!(read_nothing, Err(SpeedError::NothingRead));
    }

    #[test]
    fn speeds_are_told_in_bytes_a_second() {
        let speed = Speed::from_times(100_000_000, 0.001, 0.000_25).unwrap();
        let (decode, prefill) = speed.bytes_per_s();
        assert!((decode - 100e9).abs() < 1e3 && (prefill - 400e9).abs() < 1e4);
        let half = speed.with_decode(50e9).unwrap();
        assert_eq!(half, Speed::from_bandwidth(50e9).unwrap());
        assert!(half.with_decode(f64::NAN).is_err());
        // Five rows: one decoded, four of a prompt.
        let batch_s = speed.batch_s(100_000_000, 5.0);
        assert!((batch_s - 0.002).abs() < 1e-9, "{batch_s}");
    }

    #[test]
    fn a_measured_layer_and_its_bandwidth_say_the_same() {
        let measured = Speed::from_times(100_000_000, 0.001, 0.00025).unwrap();
        assert_eq!(measured, Speed::from_bandwidth(100e9).unwrap());
    }
}
