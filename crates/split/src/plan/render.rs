//! A plan as rows of text, for terminals and documents. Column widths, colours and JSON are the
//! caller's business.

use std::fmt::{self, Display};
use std::time::Duration;

use super::outcome::{Plan, Stage};

/// Headings of the rows.
pub const COLUMNS: [&str; 9] = [
    "MACHINE",
    "ROLE",
    "LAYERS",
    "WEIGHTS",
    "CACHE",
    "NEEDS",
    "HAS",
    "PER TOKEN",
    "FETCHES",
];

/// Prompt lengths for which the time to the first token is told.
pub const PROMPT_TOKENS: [u32; 2] = [512, 4096];

/// Bytes, in GiB or MiB with one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = 1024.0 * 1024.0;
        #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let mib = self.0 as f64 / MIB;
        if mib < 1024.0 {
            write!(formatter, "{mib:.1} MiB")
        } else {
            write!(formatter, "{:.1} GiB", mib / 1024.0)
        }
    }
}

/// One row for each stage, in the order of [`COLUMNS`]. `name` says what to call a machine.
pub fn rows<I>(plan: &Plan<I>, name: impl Fn(&I) -> String) -> Vec<[String; 9]> {
    let last = plan.stages.len() - 1;
    let row = |(index, stage): (usize, &Stage<I>)| {
        let role = match index {
            _ if plan.is_whole() => "whole".to_owned(),
            _ if index == last => "host".to_owned(),
            _ => format!("worker {}", index + 1),
        };
        let fetches = match stage.fetch_bytes {
            0 => "nothing".to_owned(),
            bytes => ByteSize(bytes).to_string(),
        };
        [
            name(&stage.id),
            role,
            format!("{} to {}", stage.layers.start, stage.layers.end - 1),
            ByteSize(stage.weight_bytes).to_string(),
            ByteSize(stage.kv_bytes).to_string(),
            ByteSize(stage.needed_bytes).to_string(),
            ByteSize(stage.memory_bytes).to_string(),
            milliseconds(stage.token_time),
            fetches,
        ]
    };
    plan.stages.iter().enumerate().map(row).collect()
}

/// What to expect, one sentence a line.
#[must_use]
pub fn summary<I>(plan: &Plan<I>) -> Vec<String> {
    let network = if plan.is_whole() {
        String::new()
    } else {
        format!(", {} of them on the network", milliseconds(plan.ring_delay))
    };
    let mut lines = vec![format!(
        "{} tokens/s for one stream: {} a token{network}",
        decimal(plan.tokens_per_second),
        milliseconds(plan.token_time),
    )];
    if plan.sequences > 1 {
        lines.push(format!(
            "at least {} tokens/s for {} streams together",
            decimal(plan.tokens_per_second_full),
            plan.sequences
        ));
    }
    let first = PROMPT_TOKENS.map(|tokens| {
        let time = plan.first_token_time(tokens).as_secs_f64();
        format!("{} s for a prompt of {tokens} tokens", decimal(time))
    });
    lines.push(format!("first token after {}", first.join(", ")));
    lines
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Two digits that matter, as far as a prediction goes.
fn decimal(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Headings and rows as a Markdown table.
#[must_use]
pub fn markdown<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut text = format!("| {} |\n|{}\n", headings.join(" | "), "---|".repeat(N));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}
