//! The result of a run as plain values: medians, ratios, and whether targets were met.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::machine::{self, CpuShare};
use super::metric::{METRICS, Metric, Samples, median};
use super::server::{self, Contender, Settings};
use super::workload::Workload;

/// Processor shares of all server rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Disturbance {
    shares: Vec<CpuShare>,
}

impl Disturbance {
    pub(super) fn add(&mut self, share: Option<CpuShare>) {
        self.shares.extend(share);
    }

    fn median_of(&self, part: impl Fn(&CpuShare) -> f64) -> Option<f64> {
        median(&self.shares.iter().map(part).collect::<Vec<_>>())
    }
}

/// Everything a run found out; also the form of the JSON file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) date: String,
    pub(super) workload: &'static str,
    pub(super) rounds: usize,
    pub(super) machine: Machine,
    pub(super) settings: Common,
    pub(super) servers: Vec<ServerInfo>,
    pub(super) rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) processor: Option<String>,
    pub(super) cores: usize,
    pub(super) load_at_start: Option<f64>,
    /// Median cores used by the measuring client.
    pub(super) client_cores: Option<f64>,
    /// Median cores used by anything else on the machine.
    pub(super) foreign_cores: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Common {
    pub(super) model: String,
    pub(super) model_bytes: Option<u64>,
    pub(super) threads: usize,
    pub(super) slots: usize,
    pub(super) ctx_size: usize,
    pub(super) commit: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct ServerInfo {
    pub(super) name: &'static str,
    pub(super) ours: bool,
    pub(super) version: Option<String>,
    pub(super) arguments: Vec<String>,
}

/// One measure of all servers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) key: &'static str,
    pub(super) label: &'static str,
    /// By server, in the order of `servers`.
    pub(super) medians: Vec<Option<f64>>,
    /// Each round's value, by the server's name.
    pub(super) samples: BTreeMap<&'static str, Vec<f64>>,
    /// Our median divided by the better one of llama-server's.
    pub(super) ratio: Option<f64>,
    pub(super) target: Option<String>,
    pub(super) met: Option<bool>,
}

impl Run {
    pub(super) fn new(
        contenders: &[Contender],
        settings: &Settings,
        workload: &Workload,
        samples: Vec<Samples>,
        disturbance: Disturbance,
        load_at_start: Option<f64>,
    ) -> Self {
        let rows = METRICS
            .iter()
            .map(|metric| row(metric, contenders, &samples))
            .collect::<Vec<_>>();
        Self {
            date: today(),
            workload: workload.name,
            rounds: rows
                .iter()
                .flat_map(|row| row.samples.values())
                .map(Vec::len)
                .max()
                .unwrap_or_default(),
            machine: Machine {
                processor: machine::processor(),
                cores: machine::core_count(),
                load_at_start,
                client_cores: disturbance.median_of(|share| share.client),
                foreign_cores: disturbance.median_of(|share| share.foreign),
            },
            settings: Common {
                // Its folder says nothing about the run.
                model: settings
                    .model
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                model_bytes: settings
                    .model
                    .metadata()
                    .ok()
                    .map(|metadata| metadata.len()),
                threads: settings.threads,
                slots: settings.slots,
                ctx_size: settings.ctx_size,
                commit: machine::commit(),
            },
            servers: contenders
                .iter()
                .map(|contender| server_info(contender, settings))
                .collect(),
            rows,
        }
    }
}

fn server_info(contender: &Contender, settings: &Settings) -> ServerInfo {
    let folder = settings
        .model
        .parent()
        .map(|folder| format!("{}/", folder.display()))
        .unwrap_or_default();
    let arguments = contender
        .arguments(settings, 0)
        .into_iter()
        .map(|argument| argument.replace(&folder, ""));
    ServerInfo {
        name: contender.name,
        ours: contender.is_ours(),
        version: server::version(&contender.program),
        arguments: arguments.collect(),
    }
}

fn row(metric: &Metric, contenders: &[Contender], samples: &[Samples]) -> Row {
    let medians: Vec<Option<f64>> = samples
        .iter()
        .map(|samples| samples.median(metric.key))
        .collect();
    let of = |ours: bool| {
        let sides = contenders.iter().zip(&medians);
        metric.best(
            sides
                .filter(move |(contender, _)| contender.is_ours() == ours)
                .filter_map(|(_, median)| *median),
        )
    };
    let ratio = of(true).zip(of(false)).map(|(ours, theirs)| ours / theirs);
    Row {
        key: metric.key,
        label: metric.label,
        samples: contenders
            .iter()
            .zip(samples)
            .map(|(one, samples)| (one.name, samples.of(metric.key).to_vec()))
            .collect(),
        medians,
        ratio,
        target: metric.target.map(|target| target.text()),
        met: metric
            .target
            .zip(ratio)
            .map(|(target, ratio)| target.is_met(ratio)),
    }
}

/// Today in UTC as `YYYY-MM-DD`.
pub(super) fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    date_of_day(seconds / 86_400)
}

/// The date of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn date_of_day(days_since_epoch: u64) -> String {
    let mut days = days_since_epoch;
    let mut year = 1970;
    let leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::super::metric;
    use super::*;

    #[test]
    fn writes_dates() {
        for (day, date) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_781, "2026-11-24"),
        ] {
            assert_eq!(date_of_day(day), date);
        }
    }

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        for value in values {
            samples.add(metric::DECODE_TPS, Some(*value));
            samples.add(metric::JOIN_GAP_MS, Some(*value));
        }
        samples
    }

    #[test]
    fn compares_with_the_better_of_theirs() {
        let contenders = [
            Contender::ours("a".into(), Vec::new()),
            Contender::llama_server("b".into(), false),
            Contender::llama_server("b".into(), true),
        ];
        let samples = [
            samples(&[50.0, 70.0, 60.0]),
            samples(&[30.0]),
            samples(&[120.0]),
        ];
        let find = |key| METRICS.iter().find(|metric| metric.key == key).unwrap();
        let decode = row(find(metric::DECODE_TPS), &contenders, &samples);
        assert_eq!((decode.ratio, decode.met), (Some(0.5), Some(false)));
        let gap = row(find(metric::JOIN_GAP_MS), &contenders, &samples);
        assert_eq!((gap.ratio, gap.met), (Some(2.0), Some(false)));
        let alone = row(find(metric::DECODE_TPS), &contenders[..1], &samples[..1]);
        assert_eq!(
            (alone.ratio, alone.met, alone.medians),
            (None, None, vec![Some(60.0)])
        );
    }
}
