//! `cargo xtask bench serve`: this server and llama-server on the same file, in turn, in one run.
//! `cargo xtask bench mesh` is in `mesh`, `cargo xtask bench split` in `split`.
//!
//! Owns the command line and the order of the rounds. What is measured is in `workload`, what the
//! numbers must reach in `metric`, how they are shown in `report`.
//!
//! Exactly one server is alive at a time: each round starts each of them afresh, measures it and
//! stops it, so that an idle server can disturb nobody and every round has a start of its own.

mod client;
mod machine;
mod mesh;
mod metric;
mod model;
mod prompt;
mod reference;
mod report;
mod server;
mod split;
mod summary;
mod workload;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};

use machine::{CpuClock, CpuShare};
use metric::Samples;
use server::{Contender, Settings};
use summary::{Disturbance, Run};
use workload::Workload;

/// The medians of fewer rounds are not worth a comparison, and are not kept unasked.
const ROUNDS_KEPT_MIN: usize = 5;
const ROUNDS_DEFAULT: usize = ROUNDS_KEPT_MIN;

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Compare with llama-server over HTTP.
    Serve(Box<Serve>),
    /// Measure what a hop through the mesh costs, and how fast machines join.
    Mesh(mesh::Options),
    /// Compare a model over several machines with the whole one and with llama.cpp's RPC back end.
    Split(split::Options),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// How often everything is measured; the table shows medians.
    #[arg(long, default_value_t = ROUNDS_DEFAULT)]
    rounds: usize,
    /// One short round, to see that it runs. Its numbers mean nothing and are not kept.
    #[arg(long)]
    quick: bool,
    /// Measure only one side.
    #[arg(long)]
    only: Option<Side>,
    /// Threads that every server computes with [default: the machine's cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Streams that every server can run at once.
    #[arg(long, default_value_t = 8)]
    slots: usize,
    /// Context of every server in tokens, over all its slots.
    #[arg(long, default_value_t = 8192)]
    ctx_size: usize,
    /// Model to measure with; its tokenizer must take one digit as one token
    /// [default: a random one, made once in the cache folder].
    #[arg(long)]
    model: Option<PathBuf>,
    /// The binary under test [default: mesh-llm of this build].
    #[arg(long)]
    mesh_llm: Option<PathBuf>,
    /// One more argument for the binary under test; may be repeated.
    #[arg(long = "mesh-llm-arg", allow_hyphen_values = true)]
    mesh_llm_args: Vec<String>,
    /// A ready llama-server [default: compiled once in the cache folder].
    #[arg(long)]
    llama_server: Option<PathBuf>,
    /// Make the model and compile llama-server, measure nothing.
    #[arg(long)]
    prepare: bool,
    /// Where the JSON goes [default: bench/results/serve-DATE.json, from 5 rounds on].
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    Ours,
    LlamaServer,
}

/// Runs a bench command.
pub(crate) fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Serve(options) => serve(&options),
        Bench::Mesh(options) => mesh::run(&options),
        Bench::Split(options) => split::run(&options),
    }
}

fn serve(options: &Serve) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    let settings = Settings {
        model: model::ensure(options.model.as_deref())?,
        threads: options.threads.unwrap_or_else(machine::core_count),
        slots: options.slots,
        ctx_size: options.ctx_size,
        log_folder: machine::cache_folder()?.join("logs"),
    };
    if options.prepare {
        let server = reference::ensure()?;
        eprintln!(
            "bench: ready: {} and {}",
            settings.model.display(),
            server.display()
        );
        return Ok(());
    }
    let contenders = contenders(options)?;
    let rounds = if options.quick { 1 } else { options.rounds };
    let workload = if options.quick {
        Workload::QUICK
    } else {
        Workload::FULL
    };
    machine::warm_file_cache(&settings.model)?;
    let load_at_start = if options.quick {
        machine::load_average()
    } else {
        machine::wait_until_quiet()
    };
    let run = measure(&contenders, &settings, &workload, rounds, load_at_start)?;
    std::io::stdout().write_all(report::markdown(&run).as_bytes())?;
    match result_path(options.out.as_deref(), rounds, &run.date) {
        Some(path) => report::write_json(&run, &path),
        None => {
            eprintln!("bench: not kept: fewer than {ROUNDS_KEPT_MIN} rounds; hint: --out FILE");
            Ok(())
        }
    }
}

/// Where a run of so many rounds is kept, if it is. `wanted` is what the user named.
fn result_path(wanted: Option<&Path>, rounds: usize, date: &str) -> Option<PathBuf> {
    match wanted {
        Some(path) => Some(path.to_owned()),
        None if rounds >= ROUNDS_KEPT_MIN => Some(report::default_path("serve", date)),
        None => None,
    }
}

/// Who is measured; ours comes first.
fn contenders(options: &Serve) -> Result<Vec<Contender>> {
    let mut contenders = Vec::new();
    if options.only != Some(Side::LlamaServer) {
        let program = match &options.mesh_llm {
            Some(path) => path.clone(),
            None => machine::built_binary("mesh-llm")?,
        };
        contenders.push(Contender::ours(program, options.mesh_llm_args.clone()));
    }
    if options.only != Some(Side::Ours) {
        let program = match &options.llama_server {
            Some(path) => path.clone(),
            None => reference::ensure()?,
        };
        contenders.push(Contender::llama_server(program.clone(), false));
        contenders.push(Contender::llama_server(program, true));
    }
    Ok(contenders)
}

fn measure(
    contenders: &[Contender],
    settings: &Settings,
    workload: &Workload,
    rounds: usize,
    load_at_start: Option<f64>,
) -> Result<Run> {
    let mut samples = vec![Samples::default(); contenders.len()];
    let mut disturbance = Disturbance::default();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            // Another one begins each round, so that none always runs on the coolest machine.
            let index = (round + turn) % contenders.len();
            let contender = &contenders[index];
            let began = Instant::now();
            let clock = CpuClock::start();
            let server = contender.start(settings)?;
            workload
                .measure(&server, round, &mut samples[index])
                .with_context(|| {
                    format!(
                        "{} failed; its log: {}",
                        contender.name,
                        server.log.display()
                    )
                })?;
            samples[index].add(metric::PEAK_MB, server.peak_mb());
            let share = clock.stop(server.cpu_seconds());
            disturbance.add(share);
            server.stop();
            eprintln!(
                "bench: round {}/{rounds}, {}: {:.0} s{}",
                round + 1,
                contender.name,
                began.elapsed().as_secs_f64(),
                share.map(CpuShare::remark).unwrap_or_default()
            );
        }
    }
    Ok(Run::new(
        contenders,
        settings,
        workload,
        samples,
        disturbance,
        load_at_start,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_result_from_five_rounds_on_or_where_it_is_told_to() {
        let wanted = Path::new("mine.json");
        let kept = Path::new("bench/results/serve-2026-01-02.json");
        for (out, rounds, expected) in [
            (None, 1, None),
            (None, 4, None),
            (None, 5, Some(kept)),
            (Some(wanted), 1, Some(wanted)),
            (Some(wanted), 5, Some(wanted)),
        ] {
            let path = result_path(out, rounds, "2026-01-02");
            assert_eq!(path.as_deref(), expected, "{rounds} rounds");
        }
    }
}
