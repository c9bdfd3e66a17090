//! What `bench mesh` measures, what it must reach, and how it is shown.

use std::fmt::Write;

use serde::Serialize;

use super::super::machine;
use super::super::metric::{Target, median};
use super::super::report::number;
use super::super::server::Settings;
use super::super::summary::{Machine, today};

pub(super) const FIRST_TOKEN: &str = "first_token_ms";
pub(super) const ONE_STREAM: &str = "one_stream_tps";
pub(super) const EIGHT_STREAMS: &str = "eight_streams_tps";
pub(super) const JOINS: &str = "joins_per_second";
pub(super) const HOST_START: &str = "host_start_ms";
pub(super) const CLIENT_START: &str = "client_start_ms";
pub(super) const JOINER_START: &str = "joiner_start_ms";

/// How the two ways are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Compared {
    /// The second minus the first.
    Difference,
    /// The second divided by the first.
    Ratio,
    /// There is only one way.
    Alone,
}

/// One measure, each round's value of both ways.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) key: &'static str,
    label: &'static str,
    compared: Compared,
    direct: Vec<f64>,
    hop: Vec<f64>,
    #[serde(skip)]
    target: Option<Target>,
}

impl Row {
    const fn new(
        key: &'static str,
        label: &'static str,
        compared: Compared,
        target: Option<Target>,
    ) -> Self {
        Self {
            key,
            label,
            compared,
            direct: Vec::new(),
            hop: Vec::new(),
            target,
        }
    }

    pub(super) fn add(&mut self, direct: Option<f64>, hop: Option<f64>) {
        self.direct.extend(direct);
        self.hop.extend(hop);
    }

    /// The number that is judged: the median over the rounds of each round's comparison, because
    /// what disturbs a round disturbs both of its halves.
    fn result(&self) -> Option<f64> {
        let pairs = || self.direct.iter().zip(&self.hop);
        match self.compared {
            Compared::Difference => median(
                &pairs()
                    .map(|(direct, hop)| hop - direct)
                    .collect::<Vec<_>>(),
            ),
            Compared::Ratio => median(
                &pairs()
                    .map(|(direct, hop)| hop / direct)
                    .collect::<Vec<_>>(),
            ),
            Compared::Alone => median(&self.hop),
        }
    }

    fn line(&self) -> String {
        let shown = |value: Option<f64>| value.map_or_else(String::new, number);
        let result = self.result();
        let comparison = match self.compared {
            Compared::Difference => result.map(|value| format!("{value:+.2}")),
            Compared::Ratio => result.map(|value| format!("{value:.2}")),
            Compared::Alone => None,
        };
        let verdict = match self
            .target
            .zip(result)
            .map(|(target, result)| target.is_met(result))
        {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        format!(
            "| {} | {} | {} | {} | {} | {verdict} |",
            self.label,
            shown(median(&self.direct)),
            shown(median(&self.hop)),
            comparison.unwrap_or_default(),
            self.target.map_or_else(String::new, Target::text),
        )
    }
}

/// All lines, without values.
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            FIRST_TOKEN,
            "first token of the starter model, ms: straight, through a hop, difference",
            Compared::Difference,
            Some(Target::AtMost(2.0)),
        ),
        Row::new(
            ONE_STREAM,
            "one stream of the starter model, tok/s: straight, through a hop, ratio",
            Compared::Ratio,
            None,
        ),
        Row::new(
            EIGHT_STREAMS,
            "8 streams of a 0.5B model, total tok/s: straight, through a hop, ratio",
            Compared::Ratio,
            None,
        ),
        Row::new(
            JOINS,
            "per second: bare QUIC connections, joins, ratio",
            Compared::Ratio,
            None,
        ),
        Row::new(
            HOST_START,
            "start of a host with a mesh to the first token, ms",
            Compared::Alone,
            Some(Target::AtMost(2_000.0)),
        ),
        Row::new(
            CLIENT_START,
            "start of a client to the first token through the mesh, ms",
            Compared::Alone,
            Some(Target::AtMost(2_000.0)),
        ),
        Row::new(
            JOINER_START,
            "start of a joiner that loads the 0.5B model to the first token of the starter model, ms",
            Compared::Alone,
            Some(Target::AtMost(2_000.0)),
        ),
    ]
}

/// Everything a run found out; also the form of the JSON file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) date: String,
    rounds: usize,
    machine: Machine,
    threads: usize,
    commit: Option<String>,
    rows: Vec<Row>,
}

impl Run {
    pub(super) fn new(
        settings: &Settings,
        rounds: usize,
        load_at_start: Option<f64>,
        rows: Vec<Row>,
    ) -> Self {
        Self {
            date: today(),
            rounds,
            machine: Machine {
                processor: machine::processor(),
                cores: machine::core_count(),
                load_at_start,
                client_cores: None,
                foreign_cores: None,
            },
            threads: settings.threads,
            commit: machine::commit(),
            rows,
        }
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "{}, {} cores, {} threads; host and client on this machine; medians of {} rounds, {}\n\n\
             | | first | second | compared | target | |\n|---|---:|---:|---:|---|---|\n",
            self.machine
                .processor
                .as_deref()
                .unwrap_or("unknown processor"),
            self.machine.cores,
            self.threads,
            self.rounds,
            self.date,
        );
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", row.line());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_round_by_round() {
        let mut row = rows().remove(0);
        // A slow round is slow both ways.
        for (direct, hop) in [(3.0, 4.0), (30.0, 31.5), (3.0, 4.25)] {
            row.add(Some(direct), Some(hop));
        }
        assert_eq!(row.result(), Some(1.25));
        assert!(
            row.line().contains("| 3.0 | 4.2 | +1.25 | ≤ 2.00 | met |"),
            "{}",
            row.line()
        );
    }

    #[test]
    fn a_row_without_values_has_no_verdict() {
        for row in rows() {
            assert_eq!(row.result(), None);
            assert!(row.line().ends_with("|  |"), "{}", row.line());
        }
    }
}
