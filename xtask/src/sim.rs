//! `cargo xtask sim`: how fast news travels in a mesh and what it costs, by the number of nodes.
//!
//! Owns the options, the progress line and the table. What is simulated is in `mesh::sim`.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Args;
use mesh::sim::MESSAGE_KINDS;
use mesh::sim::Quality;
use mesh::sim::survey::{self, ClientCost, Flow, Plan, Report, Spread};
use serde_json::{Value, json};

/// Sizes that are simulated, as far as they are not above the largest that is asked for.
const SIZES: [usize; 3] = [10, 100, 1_000];

/// Shortest run: the steady part, one round of incidents and the partition.
const MINUTES_MIN: u64 = 15;

/// Servers and clients whose cost is measured besides.
const CLIENT_CASES: [(usize, usize); 2] = [(3, 100), (10, 500)];

#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// Nodes of the largest mesh; 10, 100 and 1,000 come before as far as they are smaller.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..=3_000))]
    nodes: u64,
    /// Virtual time of each run.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(MINUTES_MIN..=1_440))]
    minutes: u64,
    /// Decides everything that chance decides; the same seed gives the same table.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of messages that are lost for good, from 0 to 0.3. QUIC would repeat them.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Sim) -> Result<()> {
    ensure!(
        (0.0..=0.3).contains(&options.loss),
        "--loss {} is no share from 0 to 0.3",
        options.loss
    );
    let nodes = usize::try_from(options.nodes)?;
    let mut sizes: Vec<usize> = SIZES.into_iter().filter(|size| *size < nodes).collect();
    sizes.push(nodes);
    let mut reports = Vec::new();
    for nodes in sizes {
        let plan = Plan {
            nodes,
            minutes: options.minutes,
            seed: options.seed,
            quality: Quality {
                loss: options.loss,
                ..Quality::default()
            },
        };
        let mut progress = Progress::new(nodes, options.minutes);
        let report = survey::survey(plan, &mut |now_ms| progress.show(now_ms));
        progress.end();
        reports.push(report);
    }
    let clients = CLIENT_CASES
        .map(|(servers, clients)| survey::client_cost(servers, clients, 10, options.seed));
    print(&if options.json {
        format!("{:#}\n", to_json(options, &reports, &clients))
    } else {
        table(&reports, &clients)
    });
    let faults: Vec<&String> = reports.iter().flat_map(|report| &report.faults).collect();
    if !faults.is_empty() {
        bail!("what must never happen did: {faults:?}");
    }
    Ok(())
}

/// Standard output is data.
#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(text: &str) {
    print!("{text}");
}

fn table(reports: &[Report], clients: &[ClientCost]) -> String {
    let mut text = String::from(
        "| nodes | join known to all | goodbye | death | halves agree again | bytes/s of a node | with incidents | messages/s | neighbours |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for report in reports {
        let steady = report.steady;
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.1} | {:.1} |",
            report.nodes,
            times(report.join),
            times(report.leave),
            times(report.death),
            times(report.heal),
            steady.bytes,
            report.unsteady.bytes,
            steady.messages,
            steady.neighbours,
        );
    }
    text.push('\n');
    for cost in clients {
        let _ = writeln!(
            text,
            "{} clients of {} servers: each client sends {:.1} bytes/s, each server {:.0} bytes/s to all of them",
            cost.clients, cost.servers, cost.client_bytes, cost.server_bytes,
        );
    }
    text
}

/// Median and longest, in seconds.
fn times(spread: Spread) -> String {
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let unfinished = match spread.unfinished {
        0 => String::new(),
        count => format!(", {count} not within 300 s"),
    };
    match spread.count {
        0 => format!("-{unfinished}"),
        1 => format!("{:.1} s{unfinished}", seconds(spread.max_ms)),
        _ => format!(
            "{:.1} s, at most {:.1} s{unfinished}",
            seconds(spread.median_ms),
            seconds(spread.max_ms)
        ),
    }
}

fn to_json(options: &Sim, reports: &[Report], clients: &[ClientCost]) -> Value {
    let spread = |s: Spread| {
        json!({
            "count": s.count, "median_ms": s.median_ms, "max_ms": s.max_ms, "unfinished": s.unfinished,
        })
    };
    let flow = |f: Flow| {
        let by_kind = MESSAGE_KINDS.iter().zip(f.by_kind);
        let by_kind: serde_json::Map<String, Value> = by_kind
            .map(|(kind, bytes)| ((*kind).to_owned(), json!(bytes)))
            .collect();
        json!({
            "bytes_per_second": f.bytes, "messages_per_second": f.messages,
            "dials_per_second": f.dials, "neighbours": f.neighbours,
            "connections": f.connections, "bytes_per_second_by_kind": by_kind,
        })
    };
    let reports = reports.iter().map(|r| {
        json!({
            "nodes": r.nodes, "growth": spread(r.growth), "join": spread(r.join),
            "death": spread(r.death), "leave": spread(r.leave), "heal": spread(r.heal),
            "steady": flow(r.steady), "unsteady": flow(r.unsteady), "faults": r.faults,
        })
    });
    let clients = clients.iter().map(|c| {
        json!({
            "servers": c.servers, "clients": c.clients,
            "client_bytes_per_second": c.client_bytes, "server_bytes_per_second": c.server_bytes,
        })
    });
    json!({
        "minutes": options.minutes, "seed": options.seed, "loss": options.loss,
        "sizes": reports.collect::<Vec<_>>(), "clients": clients.collect::<Vec<_>>(),
    })
}

/// A line on standard error: rewritten on a terminal, one for each tenth elsewhere.
struct Progress {
    nodes: usize,
    minutes: u64,
    start: Instant,
    shown: u64,
    terminal: bool,
}

impl Progress {
    fn new(nodes: usize, minutes: u64) -> Self {
        Self {
            nodes,
            minutes,
            start: Instant::now(),
            shown: 0,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, now_ms: u64) {
        let parts = if self.terminal { 200 } else { 10 };
        let part = now_ms * parts / (self.minutes * 60_000);
        if part <= self.shown {
            return;
        }
        self.shown = part;
        let line = format!(
            "{} nodes: {} of {} virtual minutes in {:.0} s",
            self.nodes,
            now_ms / 60_000,
            self.minutes,
            self.start.elapsed().as_secs_f64()
        );
        if self.terminal {
            eprint!("\r{line}  ");
            // A line that is not shown is no reason to stop.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
