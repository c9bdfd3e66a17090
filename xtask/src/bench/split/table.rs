//! What `bench split` found out: tables for people, JSON for comparisons over time, and what must be reached.

use std::fmt::Write;

use serde::Serialize;

use super::super::metric::{Target, median};
use super::super::report::number;
use super::super::summary::Machine;
use super::case::{Case, Round, Side, Sizes};
use super::fault::{self, Fault};
use super::flight::Flight;

/// Bytes that machines may exchange while weights stay where they are: connections, leases, and news of members.
const LOAD_BYTES_MAX: f64 = 1e6;

/// Everything a run found out; also the form of the JSON file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) date: String,
    pub(super) machine: Machine,
    pub(super) model: String,
    pub(super) threads: usize,
    pub(super) commit: Option<String>,
    pub(super) sizes: Sizes,
    pub(super) cases: Vec<Case>,
    pub(super) faults: Vec<Fault>,
    pub(super) flight: Option<Flight>,
    /// What was left out, and why.
    pub(super) skipped: Vec<String>,
    pub(super) verdicts: Vec<Verdict>,
}

/// One thing that must be reached.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) label: String,
    /// `None`: it was not measured.
    pub(super) value: Option<f64>,
    pub(super) target: String,
    pub(super) met: Option<bool>,
}

impl Verdict {
    fn new(label: impl Into<String>, value: Option<f64>, target: Target) -> Self {
        Self {
            label: label.into(),
            value,
            target: target.text(),
            met: value.map(|value| target.is_met(value)),
        }
    }

    fn line(&self) -> String {
        let value = self.value.map_or_else(String::new, |v| format!("{v:.2}"));
        let word = match self.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not measured",
        };
        format!("| {} | {value} | {} | {word} |", self.label, self.target)
    }
}

/// Judges the cases: each target with what was measured for it.
pub(super) fn judge(cases: &[Case], flight: Option<&Flight>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for case in cases {
        verdicts.extend(judge_case(case));
    }
    for (label, time) in [
        ("clean", flight.map(|flight| flight.clean.median_ms)),
        ("1 % loss", flight.map(|flight| flight.lossy.median_ms)),
    ] {
        let label = format!("16 KiB there and back at 20 ms, {label}, ms");
        verdicts.push(Verdict::new(label, time, Target::AtMost(22.0)));
    }
    verdicts
}

fn judge_case(case: &Case) -> Vec<Verdict> {
    let place = name(case);
    let one = case.ratio(|side| side.one_tps);
    let mut verdicts = Vec::new();
    let mut add = |what: &str, value, target| {
        verdicts.push(Verdict::new(format!("{place}: {what}"), value, target));
    };
    match case.round_trip_ms {
        0 => {
            let of_whole = case.median(|round| Some(round.ours.one_tps / round.whole_tps));
            add(
                "one stream, ours to the whole model",
                of_whole,
                Target::AtLeast(0.95),
            );
            add("one stream, ours to RPC", one, Target::AtLeast(1.0));
        }
        20 => {
            let least = if case.workers == 1 { 1.0 } else { 1.2 };
            add("one stream, ours to RPC", one, Target::AtLeast(least));
            let streams = case.ratio(|side| side.streams_tps);
            add("4 streams, ours to RPC", streams, Target::AtLeast(1.5));
            let repeating =
                case.median(|round| Some(round.ours.repeating_tps? / round.rpc?.one_tps));
            add(
                "with speculation on text that repeats, ours to RPC",
                repeating,
                Target::AtLeast(2.0),
            );
        }
        _ => {}
    }
    let beyond = case.beyond_ms();
    add(
        "a token beyond computing and hops, ms",
        beyond,
        Target::AtMost(1.0),
    );
    let predicted = case.median(|round| Some(round.predicted_tps / round.ours.one_tps));
    add("predicted to measured", predicted, Target::Within(0.8, 1.2));
    let megabytes = case.median(|round| Some(round.ours.load_bytes? as f64 / LOAD_BYTES_MAX));
    add(
        "sent while layers are loaded from local files, MB",
        megabytes,
        Target::AtMost(1.0),
    );
    verdicts
}

fn name(case: &Case) -> String {
    let plural = if case.workers == 1 { "" } else { "s" };
    format!("{} ms, {} worker{plural}", case.round_trip_ms, case.workers)
}

impl Run {
    pub(super) fn markdown(&self) -> String {
        let processor = self.machine.processor.as_deref();
        let rounds = self.cases.iter().map(|case| case.rounds.len());
        let mut text = format!(
            "{}, {} cores; {}, {} thread a machine; medians of up to {} rounds, {}\n",
            processor.unwrap_or("unknown processor"),
            self.machine.cores,
            self.model,
            self.threads,
            rounds.max().unwrap_or_default(),
            self.date,
        );
        self.cases_table(&mut text);
        self.loading_table(&mut text);
        self.faults_table(&mut text);
        if !self.verdicts.is_empty() {
            text.push_str("\n| what must be reached | measured | target | |\n|---|---:|---|---|\n");
        }
        for verdict in &self.verdicts {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", verdict.line());
        }
        let judged = self.verdicts.iter().filter_map(|verdict| verdict.met);
        let met = judged.clone().filter(|met| *met).count();
        let _ = writeln!(text, "\n{met} of {} targets met.", judged.count());
        for what in &self.skipped {
            let _ = writeln!(text, "Skipped: {what}.");
        }
        for case in &self.cases {
            for problem in &case.problems {
                let _ = writeln!(text, "Failed: {}: {problem}.", name(case));
            }
        }
        text
    }

    fn cases_table(&self, text: &mut String) {
        if self.cases.is_empty() {
            return;
        }
        text.push_str(
            "\nOurs / RPC (ratio). The last three columns are ours alone: a token's time beyond computing and hops; predicted / measured \
             of one stream, and of a prompt's first token (ratio).\n\n\
             | round trip, workers | layers | one stream, tok/s | 4 streams, tok/s | first token of a prompt, ms | repeating text, tok/s | beyond, ms | prediction, tok/s | prediction, first token, ms |\n\
             |---|---|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for case in &self.cases {
            let beyond = case
                .beyond_ms()
                .map_or_else(String::new, |ms| format!("{ms:+.1}"));
            let repeating = case.median(|round| round.ours.repeating_tps);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {beyond} | {} / {} | {} |",
                name(case),
                case.rounds.last().map_or("", |round| &round.shares),
                pair(case, |side| side.one_tps),
                pair(case, |side| side.streams_tps),
                pair(case, |side| side.prefill_ms),
                shown(repeating),
                shown(case.median(|round| Some(round.predicted_tps))),
                shown(case.median(|round| Some(round.ours.one_tps))),
                first_token(case),
            );
        }
        let whole = self.cases.iter().flat_map(|case| &case.rounds);
        let whole: Vec<f64> = whole.map(|round| round.whole_tps).collect();
        let _ = writeln!(
            text,
            "\nThe whole model on one machine: {} tok/s. A prompt has {} tokens.",
            shown(median(&whole)),
            self.sizes.prompt
        );
    }

    fn loading_table(&self, text: &mut String) {
        if self.cases.is_empty() {
            return;
        }
        text.push_str(
            "\n| loading | ours, s | RPC, s | ours sends, MB | RPC sends, MB |\n|---|---:|---:|---:|---:|\n",
        );
        for case in &self.cases {
            let theirs = |value: fn(&Side) -> Option<f64>| {
                shown(case.median(|round| value(round.rpc.as_ref()?)))
            };
            let ours =
                |value: fn(&Side) -> Option<f64>| shown(case.median(|round| value(&round.ours)));
            let megabytes = |side: &Side| Some(side.load_bytes? as f64 / 1e6);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                name(case),
                ours(|side| Some(side.load_s)),
                theirs(|side| Some(side.load_s)),
                ours(megabytes),
                theirs(megabytes),
            );
        }
    }

    fn faults_table(&self, text: &mut String) {
        if self.faults.is_empty() {
            return;
        }
        let _ = writeln!(
            text,
            "\n| a stream's pause, machines {} ms apart, 1 of 2 workers in use | s |\n|---|---:|",
            fault::ROUND_TRIP_MS
        );
        for fault in &self.faults {
            let pause = match (fault.median_s(), fault.problems.first()) {
                (Some(pause), None) => number(pause),
                (Some(pause), Some(problem)) => format!("{}; once: {problem}", number(pause)),
                (None, Some(problem)) => format!("does not go on: {problem}"),
                (None, None) => "skipped".to_owned(),
            };
            let _ = writeln!(text, "| {} | {pause} |", fault.harm.label());
        }
    }
}

/// Both sides' medians, and the median of the rounds' ratios.
fn pair(case: &Case, value: fn(&Side) -> f64) -> String {
    let ours = shown(case.median(|round| Some(value(&round.ours))));
    let theirs = |round: &Round| Some(value(round.rpc.as_ref()?));
    match (case.median(theirs), case.ratio(value)) {
        (Some(theirs), Some(ratio)) => format!("{ours} / {} ({ratio:.2})", number(theirs)),
        _ => ours,
    }
}

/// Milliseconds to a prompt's first token, predicted and measured, and the median of the rounds' ratios.
fn first_token(case: &Case) -> String {
    let predicted = case.median(|round| round.predicted_prefill_ms);
    let ratio = case.median(|round| Some(round.predicted_prefill_ms? / round.ours.prefill_ms));
    let measured = shown(case.median(|round| Some(round.ours.prefill_ms)));
    match (predicted, ratio) {
        (Some(predicted), Some(ratio)) => {
            format!("{} / {measured} ({ratio:.2})", number(predicted))
        }
        _ => String::new(),
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(String::new, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(round_trip_ms: u64, workers: usize) -> Case {
        let side = |one_tps| Side {
            load_s: 1.0,
            load_bytes: Some(200_000),
            one_tps,
            streams_tps: 3.0 * one_tps,
            prefill_ms: 100.0,
            repeating_tps: Some(4.0 * one_tps),
        };
        let round = Round {
            shares: "8 + 8 + 8".into(),
            whole_tps: 50.0,
            predicted_tps: 19.0,
            predicted_prefill_ms: Some(90.0),
            ours: side(20.0),
            rpc: Some(side(16.0)),
        };
        Case {
            rounds: vec![round],
            ..Case::new(round_trip_ms, workers)
        }
    }

    #[test]
    fn judges_what_was_measured_and_nothing_else() {
        let verdicts = judge(&[case(20, 2)], None);
        let lines: Vec<String> = verdicts.iter().map(Verdict::line).collect();
        assert_eq!(
            lines,
            [
                "| 20 ms, 2 workers: one stream, ours to RPC | 1.25 | ≥ 1.20 | met |",
                "| 20 ms, 2 workers: 4 streams, ours to RPC | 1.25 | ≥ 1.50 | **missed** |",
                "| 20 ms, 2 workers: with speculation on text that repeats, ours to RPC | 5.00 | ≥ 2.00 | met |",
                "| 20 ms, 2 workers: a token beyond computing and hops, ms | 0.00 | ≤ 1.00 | met |",
                "| 20 ms, 2 workers: predicted to measured | 0.95 | 0.80 to 1.20 | met |",
                "| 20 ms, 2 workers: sent while layers are loaded from local files, MB | 0.20 | ≤ 1.00 | met |",
                "| 16 KiB there and back at 20 ms, clean, ms |  | ≤ 22.00 | not measured |",
                "| 16 KiB there and back at 20 ms, 1 % loss, ms |  | ≤ 22.00 | not measured |",
            ]
        );
    }

    #[test]
    fn a_case_that_never_ran_meets_nothing() {
        let verdicts = judge_case(&Case::new(0, 1));
        assert!(verdicts.iter().all(|verdict| verdict.met.is_none()));
    }

    #[test]
    fn shows_the_prediction_of_a_first_token() {
        let mut told = case(5, 1);
        assert_eq!(first_token(&told), "90.0 / 100 (0.90)");
        told.rounds[0].predicted_prefill_ms = None;
        assert_eq!(first_token(&told), "");
    }

    #[test]
    fn shows_both_sides() {
        assert_eq!(pair(&case(5, 1), |side| side.one_tps), "20.0 / 16.0 (1.25)");
        let mut alone = case(5, 1);
        alone.rounds[0].rpc = None;
        assert_eq!(pair(&alone, |side| side.one_tps), "20.0");
    }
}
