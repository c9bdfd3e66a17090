//! Shows a run: a Markdown table for people, JSON for comparisons over time.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::summary::{Row, Run};
use super::workload::Workload;

/// Where results are kept, from the root of the workspace.
const FOLDER: &str = "bench/results";

/// More than this by others, in cores, and the table says that it cannot be trusted.
const FOREIGN_CORES_MAX: f64 = 0.1;

/// The file of a day; a second run on the same day replaces the first.
pub(super) fn default_path(bench: &str, date: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("{bench}-{date}.json"))
}

/// Writes the whole run.
pub(super) fn write_json(run: &impl Serialize, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let mut text = serde_json::to_string_pretty(run)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    eprintln!("bench: wrote {}", path.display());
    Ok(())
}

/// The table, with what it was measured on before it.
pub(super) fn markdown(run: &Run) -> String {
    let mut text = format!(
        "{}, {} cores; {}, {} threads, {} slots, context {}; medians of {} rounds ({}), {}\n\n",
        run.machine
            .processor
            .as_deref()
            .unwrap_or("unknown processor"),
        run.machine.cores,
        run.settings.model,
        run.settings.threads,
        run.settings.slots,
        run.settings.ctx_size,
        run.rounds,
        run.workload,
        run.date,
    );
    let names: Vec<&str> = run.servers.iter().map(|server| server.name).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| | {} | ratio | target | |", names.join(" | "));
    let _ = writeln!(text, "|---|{}---:|---|---|", "---:|".repeat(names.len()));
    for row in &run.rows {
        let _ = writeln!(text, "{}", line(row));
    }
    text.push_str(&remarks(run));
    text
}

fn line(row: &Row) -> String {
    let values: Vec<String> = row
        .medians
        .iter()
        .map(|median| median.map_or("".into(), number))
        .collect();
    let ratio = row
        .ratio
        .map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let verdict = match row.met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    };
    format!(
        "| {} | {} | {ratio} | {} | {verdict} |",
        row.label,
        values.join(" | "),
        row.target.as_deref().unwrap_or("")
    )
}

/// Three digits are all that the noise allows.
pub(super) fn number(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn remarks(run: &Run) -> String {
    let mut text = String::new();
    if run.workload != Workload::FULL.name {
        text.push_str(
            "\nThe sizes were smaller than the labels say: these numbers mean nothing.\n",
        );
    }
    if let Some(client) = run.machine.client_cores {
        let _ = writeln!(text, "\nThe client used {client:.3} cores.");
    }
    if let Some(foreign) = run
        .machine
        .foreign_cores
        .filter(|foreign| *foreign > FOREIGN_CORES_MAX)
    {
        let _ = writeln!(
            text,
            "Others used {foreign:.2} cores meanwhile: not a quiet machine, measure again."
        );
    }
    let missed = run.rows.iter().filter(|row| row.met == Some(false)).count();
    let judged = run.rows.iter().filter(|row| row.met.is_some()).count();
    if judged > 0 {
        let _ = writeln!(text, "{} of {judged} targets met.", judged - missed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_line() {
        let row = Row {
            key: "a",
            label: "one stream, tok/s",
            medians: vec![Some(61.25), Some(1993.4), None],
            samples: Default::default(),
            ratio: Some(0.987),
            target: Some("≥ 1.00".into()),
            met: Some(false),
        };
        assert_eq!(
            line(&row),
            "| one stream, tok/s | 61.2 | 1993 |  | 0.99 | ≥ 1.00 | **missed** |"
        );
    }
}
