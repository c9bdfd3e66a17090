//! Developer commands: `tidy` checks the rules of this tree, `bench` compares servers.
//!
//! Owns the command line only. Nothing here is shipped.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod tidy;

use anyhow::Result;
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
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Tidy => tidy::run(),
    }
}
