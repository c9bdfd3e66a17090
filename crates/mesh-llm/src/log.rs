//! Where `tracing` goes: to stderr for a person, to JSON lines on stdout for a program.

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::console::print_event;
use crate::failure::Failure;
use crate::settings::{LogFormat, Settings};

/// Starts logging. JSON lines only go with serving: the output of other commands is their data.
pub(crate) fn start(settings: &Settings, is_serving: bool) -> Result<(), Failure> {
    let is_json = settings.log_format == LogFormat::Json && is_serving;
    let default = if is_json { "info" } else { "warn" };
    let text = settings.log_level.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(text).map_err(|_| {
        let hint = "use error, warn, info, debug, trace, or a filter such as engine=debug";
        Failure::settings(format!("log level `{text}` is unknown; hint: {hint}"))
    })?;
    let registry = Registry::default().with(filter);
    let started = if is_json {
        registry.with(JsonLines).try_init()
    } else {
        let stderr = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        registry.with(stderr).try_init()
    };
    started.map_err(|error| Failure::other(format!("can't start logging: {error}")))
}

/// Prints each log message as an event `log`.
struct JsonLines;

impl<S: tracing::Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = json!({
            "level": metadata.level().as_str().to_lowercase(),
            "target": metadata.target(),
            "message": fields.message,
            "fields": fields.others,
        });
        print_event("log", line);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.add(field, text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}
