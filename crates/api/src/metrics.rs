//! Figures for Prometheus at `/metrics`.
//!
//! What the server sees (requests, waits) is counted here; what the models count themselves
//! (tokens, KV, speculation) is read from them at each scrape.

use std::fmt;

use node::Node;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Content type of the answer.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a warm prefix on a fast machine to a long prompt on a slow one, s.
const FIRST_TOKEN_BUCKETS_S: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// From tiny models to large ones split over slow links, s.
const TOKEN_BUCKETS_S: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// Labels of a request. All values come from fixed sets: routes of the router, names of served
/// models, status codes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) route: String,
    pub(crate) model: String,
    pub(crate) status: u16,
}

/// Labels of a figure of one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ModelLabels {
    pub(crate) model: String,
}

/// Labels of a generation's end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    pub(crate) model: String,
    /// `completed`, `cancelled` or `failed`.
    pub(crate) outcome: &'static str,
}

/// Counters and histograms of the server.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) active: Gauge,
    pub(crate) generations: Family<OutcomeLabels, Counter>,
    pub(crate) first_token: Family<ModelLabels, Histogram, fn() -> Histogram>,
    pub(crate) per_token: Family<ModelLabels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(crate) fn new(node: Node) -> Self {
        let mut registry = Registry::with_prefix("mesh_llm");
        let requests = Family::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        let active = Gauge::default();
        registry.register(
            "http_requests_active",
            "Requests whose answer is under way",
            active.clone(),
        );
        let generations = Family::default();
        registry.register(
            "generations",
            "Generations ended, by how they ended",
            generations.clone(),
        );
        let first_token: Family<ModelLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN_BUCKETS_S));
        registry.register(
            "time_to_first_token_seconds",
            "From a request's arrival to its first token",
            first_token.clone(),
        );
        let per_token: Family<ModelLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(TOKEN_BUCKETS_S));
        registry.register(
            "time_per_token_seconds",
            "From one token of a generation to its next",
            per_token.clone(),
        );
        registry.register_collector(Box::new(Models(node)));
        Self {
            registry,
            requests,
            active,
            generations,
            first_token,
            per_token,
        }
    }

    /// All figures in the text format.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Figures that the models keep.
struct Models(Node);

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Models")
    }
}

/// Reads one figure.
type Read = fn(&engine::Load) -> u64;

const GAUGES: [(&str, &str, Read); 4] = [
    ("sequences_running", "Sequences that run", |load| {
        load.running.into()
    }),
    (
        "requests_waiting",
        "Requests that wait for a slot",
        |load| load.waiting.into(),
    ),
    ("kv_used_tokens", "KV cells in use", |load| {
        load.kv_used_tokens.into()
    }),
    ("kv_total_tokens", "KV cells in all", |load| {
        load.kv_total_tokens.into()
    }),
];

const COUNTERS: [(&str, &str, Read); 8] = [
    (
        "model_requests",
        "Requests that the model finished",
        |load| load.requests_total,
    ),
    (
        "model_cancelled",
        "Requests cancelled by their consumer",
        |load| load.cancelled_total,
    ),
    (
        "prompt_tokens",
        "Prompt tokens, cached ones included",
        |load| load.prompt_tokens_total,
    ),
    (
        "cached_tokens",
        "Prompt tokens found in the KV of earlier requests (prefix cache hits)",
        |load| load.cached_tokens_total,
    ),
    ("generated_tokens", "Generated tokens", |load| {
        load.generated_tokens_total
    }),
    (
        "speculation_drafted_tokens",
        "Tokens drafted by speculation",
        |load| load.drafted_tokens_total,
    ),
    (
        "speculation_accepted_tokens",
        "Drafted tokens that were accepted",
        |load| load.accepted_tokens_total,
    ),
    ("scheduler_steps", "Steps of the scheduler", |load| {
        load.steps_total
    }),
];

impl Collector for Models {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let snapshot = self.0.snapshot();
        let ready: Vec<_> = snapshot
            .models
            .iter()
            .filter(|model| model.info.is_some())
            .map(|model| {
                let labels = ModelLabels {
                    model: model.name.clone(),
                };
                (labels, model.load)
            })
            .collect();
        if ready.is_empty() {
            return Ok(());
        }
        for (name, help, read) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, load) in &ready {
                let value = i64::try_from(read(load)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(labels)?)?;
            }
        }
        for (name, help, read) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, load) in &ready {
                ConstCounter::new(read(load)).encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}
