//! `cargo xtask bench mesh`: the same requests straight to the host of a model and through another
//! node, in turn, in one run; and how fast nodes start and join.
//!
//! Owns the command line and the rounds. What the numbers mean and must reach is in `table`.
//!
//! Two nodes run in each round: a host, and a client of it on the same machine. So the cores are
//! shared, and what a hop costs is shown at its highest: on two machines the second does its part.
//! At the end of a round a third one joins that loads a model of its own.

mod table;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use super::client::{self, Endpoint};
use super::metric::median;
use super::prompt::Digits;
use super::server::{Contender, Server, Settings};
use super::workload::{run_together, total_tps};
use super::{machine, model, report};
use table::{Row, Run};

/// Answers at once, so that the cost of a hop is not lost in the noise of computing.
const SMALL: &str = "starter";

/// Digits of a prompt.
const PROMPT_DIGITS: usize = 24;

/// Tokens of the first answer of a node: a few may be no text yet.
const FIRST_TOKENS: usize = 16;

/// Joins that are under way at the same time.
const JOINS_AT_ONCE: usize = 4;

/// How long a node that has joined may not know the mesh's models. The table says how long it took.
const TABLE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Pause between two looks for a model.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often everything is measured; the table shows medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One short round, to see that it runs. Its numbers mean nothing and are not kept.
    #[arg(long)]
    quick: bool,
    /// Threads that the host computes with [default: the machine's cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Model of ordinary speed; the embedded one answers the short requests
    /// [default: a random one, made once in the cache folder].
    #[arg(long)]
    model: Option<PathBuf>,
    /// The binary under test [default: mesh-llm of this build].
    #[arg(long)]
    mesh_llm: Option<PathBuf>,
    /// Where the JSON goes [default: bench/results/mesh-DATE.json].
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How much is asked for in a round.
struct Sizes {
    /// Short requests each way.
    requests: usize,
    stream_tokens: usize,
    /// A member lets in 100 at once and 20 per second after that, so this is no test of its limit.
    joins: usize,
}

const FULL: Sizes = Sizes {
    requests: 40,
    stream_tokens: 64,
    joins: 24,
};

const QUICK: Sizes = Sizes {
    requests: 5,
    stream_tokens: 8,
    joins: 4,
};

/// Streams that run at once.
const STREAMS: usize = 8;

pub(super) fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    let settings = Settings {
        model: model::ensure(options.model.as_deref())?,
        threads: options.threads.unwrap_or_else(machine::core_count),
        slots: STREAMS,
        ctx_size: 1024,
        log_folder: machine::cache_folder()?.join("logs"),
    };
    let (rounds, sizes) = if options.quick {
        (1, QUICK)
    } else {
        (options.rounds, FULL)
    };
    let program = match &options.mesh_llm {
        Some(path) => path.clone(),
        None => machine::built_binary("mesh-llm")?,
    };
    machine::warm_file_cache(&settings.model)?;
    let load_at_start = if options.quick {
        machine::load_average()
    } else {
        machine::wait_until_quiet()
    };
    let mut rows = table::rows();
    for round in 0..rounds {
        let began = Instant::now();
        measure(&program, &settings, &sizes, round, &mut rows)?;
        eprintln!(
            "bench: round {}/{rounds}: {:.0} s",
            round + 1,
            began.elapsed().as_secs_f64()
        );
    }
    let run = Run::new(&settings, rounds, load_at_start, rows);
    std::io::stdout().write_all(run.markdown().as_bytes())?;
    if options.quick && options.out.is_none() {
        eprintln!("bench: a quick round is not kept");
        return Ok(());
    }
    let path = options.out.clone();
    report::write_json(
        &run,
        &path.unwrap_or_else(|| report::default_path("mesh", &run.date)),
    )
}

fn measure(
    program: &Path,
    settings: &Settings,
    sizes: &Sizes,
    round: usize,
    rows: &mut [Row],
) -> Result<()> {
    let big = settings
        .model
        .file_stem()
        .context("the model has no name")?
        .to_string_lossy()
        .into_owned();
    let digits = &mut Digits::for_round(round);
    let host = Contender::node("host", program.into(), host_arguments(settings)).start(settings)?;
    let took = first_token_since_start(&host, digits)?;
    add(rows, table::HOST_START, None, took);

    let ticket = host.ready.get("ticket").and_then(|ticket| ticket.as_str());
    let ticket = ticket.context("the host gave no ticket")?.to_owned();
    let arguments = vec![format!("--join={ticket}"), "--client".to_owned()];
    let hop = Contender::node("client", program.into(), arguments).start(settings)?;
    for model in [SMALL, big.as_str()] {
        wait_for_model(&hop, model)?;
    }
    let took = first_token_since_start(&hop, digits)?;
    add(rows, table::CLIENT_START, None, took);

    let logs = || format!("their logs: {}, {}", host.log.display(), hop.log.display());
    hop_overhead(&host, &hop, sizes, digits, rows).with_context(logs)?;
    streams(&host, &hop, &big, sizes, digits, round, rows).with_context(logs)?;
    joins(&ticket, sizes, rows).with_context(logs)?;
    hop.stop();
    join_with_a_model(program, settings, &ticket, digits, rows)?;
    host.stop();
    Ok(())
}

fn host_arguments(settings: &Settings) -> Vec<String> {
    let mut arguments = vec![format!("--model={SMALL}")];
    arguments.extend(serving_arguments(settings));
    arguments
}

/// What serves the model of ordinary speed.
fn serving_arguments(settings: &Settings) -> Vec<String> {
    vec![
        format!("--model={}", settings.model.display()),
        format!("--ctx-size={}", settings.ctx_size),
        format!("--parallel={}", settings.slots),
        format!("--threads={}", settings.threads),
        "--no-draft".to_owned(),
    ]
}

/// Starts a node that joins and loads the model of ordinary speed. It is asked for the small one, which it
/// does not have itself. Killed afterwards, so this comes last.
fn join_with_a_model(
    program: &Path,
    settings: &Settings,
    ticket: &str,
    digits: &mut Digits,
    rows: &mut [Row],
) -> Result<()> {
    let mut arguments = vec![format!("--join={ticket}")];
    arguments.extend(serving_arguments(settings));
    let joiner = Contender::node("joiner", program.into(), arguments).start(settings)?;
    let log = || format!("its log: {}", joiner.log.display());
    wait_for_model(&joiner, SMALL).with_context(log)?;
    let took = first_token_since_start(&joiner, digits).with_context(log)?;
    add(rows, table::JOINER_START, None, took);
    joiner.stop();
    Ok(())
}

fn add(rows: &mut [Row], key: &str, direct: Option<f64>, hop: Option<f64>) {
    if let Some(row) = rows.iter_mut().find(|row| row.key == key) {
        row.add(direct, hop);
    }
}

/// Asks a node for the small model; milliseconds from the start of its process to the first token.
fn first_token_since_start(server: &Server, digits: &mut Digits) -> Result<Option<f64>> {
    let endpoint = server.endpoint_of(SMALL);
    let stream = endpoint.chat(&digits.take(PROMPT_DIGITS), FIRST_TOKENS)?;
    let first = stream.times.first();
    Ok(first.map(|first| first.duration_since(server.start).as_secs_f64() * 1000.0))
}

fn wait_for_model(server: &Server, model: &str) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < TABLE_WAIT_MAX {
        let list = client::get(server.endpoint.address, "/v1/models")?;
        let models = list.get("data").and_then(|data| data.as_array());
        if models.is_some_and(|models| models.iter().any(|entry| entry["id"] == model)) {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    bail!("it still does not know {model} {TABLE_WAIT_MAX:?} after it joined")
}

/// Short requests to a model that costs next to nothing, one after another, in turn.
fn hop_overhead(
    host: &Server,
    hop: &Server,
    sizes: &Sizes,
    digits: &mut Digits,
    rows: &mut [Row],
) -> Result<()> {
    let (host, hop) = (host.endpoint_of(SMALL), hop.endpoint_of(SMALL));
    let mut first = [Vec::new(), Vec::new()];
    let mut rates = [Vec::new(), Vec::new()];
    for turn in 0..sizes.requests * 2 {
        // Who comes first changes with each pair.
        let way = (turn + turn / 2) % 2;
        let endpoint: &Endpoint = [&host, &hop][way];
        let stream = endpoint.chat(&digits.take(PROMPT_DIGITS), sizes.stream_tokens)?;
        first[way].extend(stream.first_token_ms());
        rates[way].extend(stream.decode_tps());
    }
    add(
        rows,
        table::FIRST_TOKEN,
        median(&first[0]),
        median(&first[1]),
    );
    add(
        rows,
        table::ONE_STREAM,
        median(&rates[0]),
        median(&rates[1]),
    );
    Ok(())
}

fn streams(
    host: &Server,
    hop: &Server,
    model: &str,
    sizes: &Sizes,
    digits: &mut Digits,
    round: usize,
    rows: &mut [Row],
) -> Result<()> {
    let ways = [host.endpoint_of(model), hop.endpoint_of(model)];
    let mut rates = [None, None];
    for turn in 0..ways.len() {
        let way = (round + turn) % ways.len();
        let prompts = (0..STREAMS).map(|_| digits.take(PROMPT_DIGITS)).collect();
        let done = run_together(&ways[way], prompts, sizes.stream_tokens)?;
        rates[way] = Some(total_tps(&done));
    }
    add(rows, table::EIGHT_STREAMS, rates[0], rates[1]);
    Ok(())
}

#[derive(Deserialize)]
struct Rates {
    joins_per_second: f64,
    bare_per_second: f64,
}

fn joins(ticket: &str, sizes: &Sizes, rows: &mut [Row]) -> Result<()> {
    let program = machine::built_binary("examples/join_rate")
        .context("hint: ./dev bench mesh builds it; or cargo build --release --workspace --example join_rate")?;
    let output = Command::new(program)
        .arg(ticket)
        .args([sizes.joins, JOINS_AT_ONCE].map(|number| number.to_string()))
        .output()?;
    ensure!(
        output.status.success(),
        "joining failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rates: Rates = serde_json::from_slice(&output.stdout)?;
    let (bare, joins) = (rates.bare_per_second, rates.joins_per_second);
    add(rows, table::JOINS, Some(bare), Some(joins));
    Ok(())
}
