//! How often models are asked for. Pure: the caller brings the time.

use std::collections::BTreeMap;

/// A request counts less the older it is: after so many seconds 1/e. A minute, so that the sum of
/// what is left is the requests per minute.
const DECAY_S: f64 = 60.0;

/// Below this a model is forgotten: one request ten minutes ago.
const FORGET_PER_MINUTE: f64 = 5e-5;

/// Most models counted at a time; the names come from users.
const MODELS_MAX: usize = 64;

/// Requests that came in at this node.
#[derive(Debug, Default)]
pub(crate) struct DemandCounter {
    models: BTreeMap<String, Rate>,
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    per_minute: f64,
    at_ms: u64,
}

impl Rate {
    fn at(self, now_ms: u64) -> f64 {
        let seconds = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0;
        self.per_minute * (-seconds / DECAY_S).exp()
    }
}

impl DemandCounter {
    /// Counts a request for `model`.
    pub(crate) fn count(&mut self, model: &str, now_ms: u64) {
        if !self.models.contains_key(model) && self.models.len() >= MODELS_MAX {
            let rarest = (self.models.iter())
                .min_by(|a, b| a.1.at(now_ms).total_cmp(&b.1.at(now_ms)))
                .map(|(name, _)| name.clone());
            if let Some(rarest) = rarest {
                self.models.remove(&rarest);
            }
        }
        let rate = self.models.entry(model.to_owned()).or_insert(Rate {
            per_minute: 0.0,
            at_ms: now_ms,
        });
        *rate = Rate {
            per_minute: rate.at(now_ms) + 1.0,
            at_ms: now_ms,
        };
    }

    /// Requests per minute of each model, by name.
    pub(crate) fn rates(&mut self, now_ms: u64) -> BTreeMap<String, f32> {
        self.models
            .retain(|_, rate| rate.at(now_ms) >= FORGET_PER_MINUTE);
        (self.models.iter())
            .map(|(name, rate)| (name.clone(), rate.at(now_ms) as f32))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_measured_and_then_forgotten() {
        let mut demand = DemandCounter::default();
        // One request every two seconds for five minutes: 30 a minute.
        for second in (0..300).step_by(2) {
            demand.count("m", second * 1000);
        }
        let rate = demand.rates(300_000)["m"];
        assert!((rate - 30.0).abs() < 1.5, "{rate}");
        let later = demand.rates(360_000)["m"];
        assert!((later - rate / std::f32::consts::E).abs() < 0.1, "{later}");
        assert!(demand.rates(3_600_000).is_empty());
    }

    #[test]
    fn names_of_users_take_bounded_room() {
        let mut demand = DemandCounter::default();
        for second in 0..10 {
            demand.count("wanted", second * 1000);
        }
        for name in 0..10_000_u64 {
            demand.count(&format!("made up {name}"), 10_000 + name);
        }
        let rates = demand.rates(20_000);
        assert_eq!(rates.len(), MODELS_MAX);
        assert!(rates.contains_key("wanted"));
    }
}
