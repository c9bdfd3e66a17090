//! What is measured: names, units, which way is better, and the target of each.

use std::collections::BTreeMap;

/// Names of the values, as they stand in the JSON.
pub(super) const READY_MS: &str = "ready_ms";
pub(super) const DECODE_TPS: &str = "decode_tps";
pub(super) const FIRST_TOKEN_SHORT_MS: &str = "first_token_32_ms";
pub(super) const FIRST_TOKEN_COLD_MS: &str = "first_token_512_cold_ms";
pub(super) const FIRST_TOKEN_REPEAT_MS: &str = "first_token_512_repeat_ms";
pub(super) const FIRST_TOKEN_PREFIX_MS: &str = "first_token_512_shared_prefix_ms";
pub(super) const TOTAL_1_TPS: &str = "total_1_tps";
pub(super) const TOTAL_4_TPS: &str = "total_4_tps";
pub(super) const TOTAL_8_TPS: &str = "total_8_tps";
pub(super) const SHARED_8_TPS: &str = "shared_prefix_8_tps";
pub(super) const SHARED_8_FIRST_TOKEN_MS: &str = "shared_prefix_8_first_token_ms";
pub(super) const JOIN_GAP_MS: &str = "join_longest_gap_ms";
pub(super) const JOIN_FIRST_TOKEN_MS: &str = "join_first_token_ms";
pub(super) const PEAK_MB: &str = "peak_mb";

/// What our value divided by the better of llama-server's two must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    Over(f64),
    Under(f64),
    AtMost(f64),
    /// Neither less than the first nor more than the second.
    Within(f64, f64),
}

impl Target {
    /// Whether a ratio reaches it.
    pub(super) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::Over(bound) => ratio > bound,
            Self::Under(bound) => ratio < bound,
            Self::AtMost(bound) => ratio <= bound,
            Self::Within(least, most) => ratio >= least && ratio <= most,
        }
    }

    /// As it stands in the table.
    pub(super) fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound:.2}"),
            Self::Over(bound) => format!("> {bound:.2}"),
            Self::Under(bound) => format!("< {bound:.2}"),
            Self::AtMost(bound) => format!("≤ {bound:.2}"),
            Self::Within(least, most) => format!("{least:.2} to {most:.2}"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) key: &'static str,
    pub(super) label: &'static str,
    pub(super) more_is_better: bool,
    pub(super) target: Option<Target>,
}

impl Metric {
    /// The better of several values; `None` of an empty list.
    pub(super) fn best(&self, values: impl IntoIterator<Item = f64>) -> Option<f64> {
        values.into_iter().reduce(|a, b| {
            if self.more_is_better {
                a.max(b)
            } else {
                a.min(b)
            }
        })
    }
}

const fn more(key: &'static str, label: &'static str, target: Option<Target>) -> Metric {
    Metric {
        key,
        label,
        more_is_better: true,
        target,
    }
}

const fn less(key: &'static str, label: &'static str, target: Option<Target>) -> Metric {
    Metric {
        key,
        label,
        more_is_better: false,
        target,
    }
}

/// All lines in the table's order.
pub(super) const METRICS: [Metric; 14] = [
    more(
        DECODE_TPS,
        "one stream, decode, tok/s",
        Some(Target::AtLeast(1.0)),
    ),
    less(
        FIRST_TOKEN_SHORT_MS,
        "first token, 32-token prompt, ms",
        None,
    ),
    less(
        FIRST_TOKEN_COLD_MS,
        "first token, 512 tokens cold, ms",
        None,
    ),
    less(
        FIRST_TOKEN_REPEAT_MS,
        "first token, the same 512 again, ms",
        Some(Target::Under(1.0)),
    ),
    less(
        FIRST_TOKEN_PREFIX_MS,
        "first token, 448 of 512 known from another request, ms",
        Some(Target::Under(1.0)),
    ),
    more(TOTAL_1_TPS, "1 stream, total tok/s", None),
    more(TOTAL_4_TPS, "4 streams, total tok/s", None),
    more(
        TOTAL_8_TPS,
        "8 streams, total tok/s",
        Some(Target::Over(1.0)),
    ),
    more(
        SHARED_8_TPS,
        "8 streams with a shared 256-token prefix, total tok/s",
        Some(Target::Over(1.0)),
    ),
    less(
        SHARED_8_FIRST_TOKEN_MS,
        "the same, median first token, ms",
        Some(Target::Under(1.0)),
    ),
    less(
        JOIN_GAP_MS,
        "512 tokens join 4 streams: their longest gap, ms",
        Some(Target::AtMost(0.25)),
    ),
    less(
        JOIN_FIRST_TOKEN_MS,
        "the same, first token of the joiner, ms",
        Some(Target::AtMost(1.10)),
    ),
    less(PEAK_MB, "peak memory, MB", None),
    less(READY_MS, "start to ready, ms", None),
];

/// The values of one server, by metric, in the order of the rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    values: BTreeMap<&'static str, Vec<f64>>,
}

impl Samples {
    pub(super) fn add(&mut self, key: &'static str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.values.entry(key).or_default().push(value);
        }
    }

    pub(super) fn of(&self, key: &str) -> &[f64] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn median(&self, key: &str) -> Option<f64> {
        median(self.of(key))
    }
}

/// The middle value, or the mean of the middle two; `None` of no values.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn knows_which_way_is_better() {
        assert_eq!(more("a", "", None).best([1.0, 3.0, 2.0]), Some(3.0));
        assert_eq!(less("a", "", None).best([2.0, 1.0]), Some(1.0));
        assert_eq!(less("a", "", None).best([]), None);
    }

    #[test]
    fn judges_targets_at_their_bounds() {
        for (target, ratio, met) in [
            (Target::AtLeast(1.0), 1.0, true),
            (Target::Over(1.0), 1.0, false),
            (Target::Under(1.0), 1.0, false),
            (Target::AtMost(0.25), 0.25, true),
            (Target::AtMost(0.25), 0.26, false),
            (Target::Within(0.8, 1.2), 0.8, true),
            (Target::Within(0.8, 1.2), 1.21, false),
        ] {
            assert_eq!(target.is_met(ratio), met, "{target:?} {ratio}");
        }
    }

    #[test]
    fn drops_what_is_no_number() {
        let mut samples = Samples::default();
        samples.add("a", Some(f64::NAN));
        samples.add("a", None);
        samples.add("a", Some(1.0));
        assert_eq!(samples.of("a"), [1.0]);
    }
}
