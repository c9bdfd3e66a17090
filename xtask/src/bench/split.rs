//! `cargo xtask bench split`: a model over several machines, against the whole model on one and against llama.cpp's RPC
//! back end, over the same links, in turn, in one run; and how long streams pause when a machine is lost.
//!
//! Owns the command line and the order of the rounds. What the numbers mean and must reach is in `table`.
//!
//! All machines are this one. Where one computes after the other, as for a single stream, that is no different from machines
//! of their own; where several compute at once, they share its cores, for both sides alike.

mod case;
mod fault;
mod flight;
mod machines;
mod ring;
mod rpc;
mod table;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use super::client::Endpoint;
use super::server::{Contender, Settings};
use super::summary::{Machine, today};
use super::{machine, model, report};
use case::{Bench, Case, Sizes};
use fault::{Fault, Harm};
use machines::Machines;
use ring::Wish;
use rpc::Programs;
use table::Run;

/// Round trips between the machines, milliseconds. The first and the third have targets of their own and are measured in
/// each round, the others in every second one.
const ROUND_TRIPS_MS: [u64; 4] = [0, 20, 5, 80];

/// Where speculation has a target.
const SPECULATION_ROUND_TRIP_MS: u64 = 20;

/// Workers beside the host.
const WORKERS: [usize; 2] = [1, 2];

/// Each machine computes with so many threads: there are three machines on few cores.
const THREADS: usize = 1;

/// Streams that every side can run at once.
const SLOTS: usize = 4;

/// Cells of the cache, over all streams. More than they use: it is what makes two machines too small for the model, and
/// three large enough.
const CONTEXT: usize = 8192;

/// What each of three machines may give, gigabytes. The default model needs 0.586 with its cache, and machines tell of their
/// memory in steps, so that two don't suffice; 9 of its 24 layers, with the buffers of a worker, take 0.29.
const GIGABYTES_OF_THREE: f64 = 0.31;

/// Rounds in which faults are measured: they take long, and vary by seconds at most.
const FAULT_ROUNDS_MAX: usize = 2;

const FULL: Sizes = Sizes {
    one_stream: 32,
    each_stream: 24,
    prompt: 512,
    repeating: 128,
};

const QUICK: Sizes = Sizes {
    one_stream: 8,
    each_stream: 16,
    prompt: 128,
    repeating: 48,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Speed and loading, by distance and number of workers.
    Links,
    /// Pauses when a machine is lost.
    Faults,
    /// A hidden state there and back.
    Flight,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often everything is measured; the tables show medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One short round, to see that it runs. Its numbers mean nothing and are not kept.
    #[arg(long)]
    quick: bool,
    /// Measure only this part; may be repeated.
    #[arg(long)]
    only: Vec<Part>,
    /// Only these round trips, milliseconds; may be repeated.
    #[arg(long = "round-trip")]
    round_trips_ms: Vec<u64>,
    /// Leave llama.cpp's RPC back end out.
    #[arg(long)]
    without_rpc: bool,
    /// Model to measure with; its tokenizer must take one digit as one token
    /// [default: a random one, made once in the cache folder].
    #[arg(long)]
    model: Option<PathBuf>,
    /// Memory that each of three machines gives, gigabytes: such that two can't hold the model.
    #[arg(long, default_value_t = GIGABYTES_OF_THREE)]
    gigabytes: f64,
    /// The binary under test [default: mesh-llm of this build].
    #[arg(long)]
    mesh_llm: Option<PathBuf>,
    /// Make the model and compile the RPC back end, measure nothing.
    #[arg(long)]
    prepare: bool,
    /// Where the JSON goes [default: bench/results/split-DATE.json].
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn round_trips_ms(&self, are_apart: bool) -> Vec<u64> {
        match (are_apart, self.round_trips_ms.is_empty()) {
            (false, _) => vec![0],
            (true, true) => ROUND_TRIPS_MS.to_vec(),
            (true, false) => self.round_trips_ms.clone(),
        }
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    // While there is one thread.
    #[cfg(target_os = "linux")]
    testkit::net::gain_rights();
    let model = model::ensure(options.model.as_deref())?;
    let loops = model::ensure_loops(options.model.as_deref())?;
    let programs = match options.without_rpc {
        true => None,
        false => Some(Programs::ensure()?),
    };
    if options.prepare {
        eprintln!("bench: ready: {}", model.display());
        return Ok(());
    }
    let binary = match &options.mesh_llm {
        Some(path) => path.clone(),
        None => machine::built_binary("mesh-llm")?,
    };
    machine::warm_file_cache(&model)?;
    machine::warm_file_cache(&loops)?;
    let load_at_start = if options.quick {
        machine::load_average()
    } else {
        machine::wait_until_quiet()
    };
    let logs = machine::cache_folder()?.join("logs");
    let folder = ring::folder(&logs)?;
    let (machines, reason) = Machines::new(WORKERS.len() + 1);
    let wish = Wish {
        binary: &binary,
        model: &model,
        folder: &folder,
        workers: 1,
        gigabytes: None,
        speculation: false,
        threads: THREADS,
        slots: SLOTS,
        context: CONTEXT,
    };
    let mut measuring = Measuring {
        options,
        wish,
        loops: &loops,
        machines,
        programs,
        rounds: if options.quick { 1 } else { options.rounds },
        sizes: if options.quick { QUICK } else { FULL },
        cases: Vec::new(),
        faults: Vec::new(),
    };
    let mut skipped = Vec::new();
    if let Some(reason) = reason {
        skipped.push(format!(
            "distances, cut cables, bytes on links, and hidden states there and back, because there is no emulated network here: {reason}"
        ));
        eprintln!("bench: skipped: {}", skipped[0]);
    }
    if options.without_rpc {
        skipped.push("the RPC back end, as asked".to_owned());
    }
    measuring.run(&logs)?;
    let flight = match options.wants(Part::Flight) && measuring.machines.are_apart() {
        true => flight::measure()?,
        false => None,
    };
    let Measuring {
        cases,
        faults,
        sizes,
        ..
    } = measuring;
    let run = Run {
        date: today(),
        machine: Machine {
            processor: machine::processor(),
            cores: machine::core_count(),
            load_at_start,
            client_cores: None,
            foreign_cores: None,
        },
        // Its folder says nothing about the run.
        model: model
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        threads: THREADS,
        commit: machine::commit(),
        sizes,
        verdicts: table::judge(&cases, flight.as_ref()),
        cases,
        faults,
        flight,
        skipped,
    };
    std::io::stdout().write_all(run.markdown().as_bytes())?;
    if options.quick && options.out.is_none() {
        eprintln!("bench: a quick round is not kept");
        return Ok(());
    }
    let path = options.out.clone();
    report::write_json(
        &run,
        &path.unwrap_or_else(|| report::default_path("split", &run.date)),
    )
}

/// A run under way.
struct Measuring<'a> {
    options: &'a Options,
    wish: Wish<'a>,
    /// A model whose text repeats itself.
    loops: &'a Path,
    machines: Machines,
    programs: Option<Programs>,
    rounds: usize,
    sizes: Sizes,
    cases: Vec<Case>,
    faults: Vec<Fault>,
}

impl Measuring<'_> {
    fn run(&mut self, logs: &Path) -> Result<()> {
        let round_trips_ms = self.options.round_trips_ms(self.machines.are_apart());
        if self.options.wants(Part::Links) {
            let cases = WORKERS.iter().flat_map(|workers| {
                let mut sorted = round_trips_ms.clone();
                sorted.sort_unstable();
                sorted.into_iter().map(|ms| Case::new(ms, *workers))
            });
            self.cases = cases.collect();
            let settings = Settings {
                model: self.wish.model.to_owned(),
                threads: THREADS,
                slots: SLOTS,
                ctx_size: CONTEXT,
                log_folder: logs.to_owned(),
            };
            let whole = Contender::ours(self.wish.binary.to_owned(), Vec::new());
            let whole = whole.start(&settings)?;
            for round in 0..self.rounds {
                self.links(round, &whole.endpoint);
            }
            whole.stop();
        }
        if self.options.wants(Part::Faults) {
            self.faults = Harm::ALL.map(Fault::new).to_vec();
            for round in 0..self.rounds.min(FAULT_ROUNDS_MAX) {
                self.faults(round);
            }
        }
        Ok(())
    }

    /// All cases once, beginning with another one each round.
    fn links(&mut self, round: usize, whole: &Endpoint) {
        let count = self.cases.len();
        for turn in 0..count {
            let case = &mut self.cases[(round * 3 + turn) % count];
            let (round_trip_ms, workers) = (case.round_trip_ms, case.workers);
            let place = ROUND_TRIPS_MS.iter().position(|ms| *ms == round_trip_ms);
            if round % 2 == 1 && place.is_some_and(|place| place >= 2) {
                continue;
            }
            self.machines.set_round_trip_ms(round_trip_ms);
            let began = Instant::now();
            let bench = Bench {
                machines: &self.machines,
                wish: Wish {
                    workers,
                    gigabytes: (workers > 1).then_some(self.options.gigabytes),
                    ..self.wish
                },
                rpc: self.programs.as_ref(),
                whole,
                sizes: self.sizes,
                loops: (round_trip_ms == SPECULATION_ROUND_TRIP_MS).then_some(self.loops),
            };
            let outcome = match bench.round(round) {
                Ok(measured) => {
                    let rpc = measured.rpc.map(|rpc| format!(", RPC {:.1}", rpc.one_tps));
                    let text = format!(
                        "ours {:.1}{}, whole {:.1} tok/s",
                        measured.ours.one_tps,
                        rpc.unwrap_or_default(),
                        measured.whole_tps
                    );
                    case.rounds.push(measured);
                    text
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    case.problems.push(text.clone());
                    text
                }
            };
            eprintln!(
                "bench: round {}/{}, {round_trip_ms} ms, workers {workers}: {outcome}; {:.0} s",
                round + 1,
                self.rounds,
                began.elapsed().as_secs_f64()
            );
        }
    }

    fn faults(&mut self, round: usize) {
        self.machines.set_round_trip_ms(fault::ROUND_TRIP_MS);
        for fault in &mut self.faults {
            let began = Instant::now();
            let outcome = fault.measure(&self.machines, &self.wish, round);
            eprintln!(
                "bench: {}: {outcome}; {:.0} s",
                fault.harm.label(),
                began.elapsed().as_secs_f64()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_links_there_is_one_distance() {
        let options = Options {
            rounds: 1,
            quick: true,
            only: vec![Part::Links],
            round_trips_ms: vec![7],
            without_rpc: true,
            model: None,
            gigabytes: GIGABYTES_OF_THREE,
            mesh_llm: None,
            prepare: false,
            out: None,
        };
        assert_eq!(options.round_trips_ms(false), [0]);
        assert_eq!(options.round_trips_ms(true), [7]);
        assert!(options.wants(Part::Links) && !options.wants(Part::Faults));
    }
}
