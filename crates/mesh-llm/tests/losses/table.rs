//! Owns the table of losses: a line for each, with what came of it.

use std::io::Write as _;
use std::time::Duration;

use super::said::{Parting, Said};
use super::subject::{Phase, Subject};

/// A file that gets a line for each loss, whose columns are named in `./dev`.
const TABLE_VARIABLE: &str = "MESH_LLM_TEST_LOSS_TABLE";

/// What was lost, and when.
pub(crate) struct Loss<'a> {
    pub(crate) subject: Subject,
    /// What was done to whom.
    pub(crate) harm: &'a str,
    pub(crate) phase: Phase,
    /// What the answers were to say, in letters of the alphabet.
    pub(crate) letters: u32,
    /// The longest of the streams' pauses, if there was a loss.
    pub(crate) pause: Option<Duration>,
}

impl Loss<'_> {
    /// Says what came of it, on stderr and in the table, if there is one. `whole`: what an undisturbed run says; `None`
    /// where that is certain, or was not asked because a stream was lost.
    pub(crate) fn record(&self, said: &[Said], whole: Option<&Said>) {
        let line = self.line(said, whole);
        eprintln!("{line}");
        if let Some(path) = std::env::var_os(TABLE_VARIABLE) {
            let table = std::fs::File::options()
                .append(true)
                .create(true)
                .open(path);
            // One write, so that lines of tests that run at once do not mix.
            table
                .unwrap()
                .write_all(format!("{line}\n").as_bytes())
                .unwrap();
        }
    }

    pub(crate) fn line(&self, said: &[Said], whole: Option<&Said>) -> String {
        let partings = said.iter().filter_map(|said| said.parting(whole?));
        let partings: Vec<Parting> = partings.collect();
        let mut tokens: Vec<usize> = partings.iter().filter_map(|p| p.token).collect();
        tokens.sort_unstable();
        tokens.dedup();
        let tokens: Vec<String> = tokens.iter().map(|token| (token + 1).to_string()).collect();
        let gaps = partings.iter().filter_map(|parting| parting.gap);
        let gap = gaps.reduce(f64::max);
        let shifts = said.iter().filter_map(|said| Some(said.shift(whole?)));
        let shift = shifts.reduce(f64::max);
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.5}"));
        let pause = self
            .pause
            .map(|pause| format!("{:.1}", pause.as_secs_f64()));
        let phase = match self.phase {
            Phase::Prompt => "prompt",
            Phase::Answer => "answer",
        };
        let completed = said.iter().filter(|said| said.has_ended()).count();
        let equal = self.equal(said, whole);
        format!(
            "| {} | {} | {phase} | {} | {completed} | {} | {} | {} | {} | {} |",
            self.subject.label(),
            self.harm,
            said.len(),
            equal.map_or_else(String::new, |equal| equal.to_string()),
            tokens.join(", "),
            number(gap),
            number(shift),
            pause.unwrap_or_default(),
        )
    }

    /// How many say what they would have said; `None` where nobody knows.
    fn equal(&self, said: &[Said], whole: Option<&Said>) -> Option<usize> {
        let says_so = |said: &&Said| match whole {
            Some(whole) => said.text == whole.text,
            None => self.subject.may_say(&said.text, self.letters),
        };
        let is_known = whole.is_some() || self.subject.is_exact();
        is_known.then(|| said.iter().filter(says_so).count())
    }
}
