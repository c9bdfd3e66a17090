//! How long a hidden state takes there and back, by an example program of the crate `mesh`, which has the connections.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::super::machine;

/// 16 KiB there and back, between members that are 20 ms apart.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Flight {
    pub(super) clean: Echoes,
    /// With one packet in a hundred lost.
    pub(super) lossy: Echoes,
}

/// Many of them.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Echoes {
    pub(super) median_ms: f64,
    pub(super) p90_ms: f64,
}

/// Measures; `None` where there are no links.
pub(super) fn measure() -> Result<Option<Flight>> {
    let program = machine::built_binary("examples/hidden_state").context(
        "hint: ./dev bench split builds it; or cargo build --release --workspace --example hidden_state",
    )?;
    let output = Command::new(program).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "hidden states can't be sent");
    Ok(serde_json::from_slice(&output.stdout)?)
}
