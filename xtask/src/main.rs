//! Developer commands: `tidy` checks the rules of this tree, `bench` compares servers, `sim` lets
//! many nodes live on a virtual clock.
//!
//! Owns the command line only. Nothing here is shipped.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bench;
mod sim;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer commands of mesh-llm")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check file sizes, dead files, crate edges and other rules of this tree.
    Tidy,
    /// Measure this server against llama-server.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Simulate meshes of many nodes: how fast news travels and what it costs.
    Sim(sim::Sim),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Tidy => tidy::run(),
        Command::Bench(bench) => bench::run(bench),
        Command::Sim(options) => sim::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
