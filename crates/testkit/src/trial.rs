//! Owns test binaries whose tests need something that not every machine has. Where it is missing
//! they are listed as ignored, with the reason, so that the runner counts them as skipped: a test
//! that returns early would count as passed.
//!
//! Such a binary has `harness = false` in its manifest and this as its `main`:
//! ```no_run
//! use testkit::trial::{Suite, trials};
//!
//! fn packets_arrive() {}
//!
//! fn main() -> std::process::ExitCode {
//!     let mut suite = Suite::from_args();
//!     let possible = || Err("there is no network".to_owned());
//!     suite.add(possible, trials![packets_arrive]);
//!     suite.run()
//! }
//! ```

use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Where reasons are also written to, one line each, for whoever sums up a run: the runner shows
/// neither what tests print while they are listed, nor why one is ignored.
const SKIPS_FILE_VARIABLE: &str = "MESH_LLM_TEST_SKIPS";

/// Set by `cargo nextest` for the tests that it runs, one process each.
const NEXTEST_VARIABLE: &str = "NEXTEST";

/// A test: its name and what it does. It fails by panicking.
pub type Test = (&'static str, fn());

/// Tests by the names of their functions.
#[macro_export]
macro_rules! trials {
    ($($test:path),* $(,)?) => {
        [$((stringify!($test), $test as fn())),*]
    };
}
pub use trials;

/// The tests of one binary.
pub struct Suite {
    arguments: Arguments,
    trials: Vec<Trial>,
}

impl Suite {
    /// A suite that does what the command line asks for, as any test binary does.
    #[must_use]
    pub fn from_args() -> Self {
        Self {
            arguments: Arguments::from_args(),
            trials: Vec::new(),
        }
    }

    /// Adds tests that run if `possible` gives no reason against it. It is asked only if the command
    /// line wants one of them.
    pub fn add(
        &mut self,
        possible: impl FnOnce() -> Result<(), String>,
        tests: impl IntoIterator<Item = Test>,
    ) {
        let wanted = |name: &str| {
            let named = Trial::test(name, || Ok(()));
            // With `--ignored` only such are wanted, and whether it is one is not known yet.
            !self
                .arguments
                .is_filtered_out(&named.with_ignored_flag(true))
        };
        let tests = tests.into_iter().filter(|(name, _)| wanted(name));
        let tests: Vec<Test> = tests.collect();
        if tests.is_empty() {
            return;
        }
        let reason = possible().err();
        for (name, run) in tests {
            if let Some(reason) = &reason {
                self.note(name, reason);
            }
            // Only in the list: a run of this binary alone prints the reason instead.
            let listed = reason.is_some() && self.arguments.list;
            let reason = reason.clone();
            let trial = Trial::ignorable_test(name, move || run_unless(reason, run));
            self.trials.push(trial.with_ignored_flag(listed));
        }
    }

    fn note(&self, name: &str, reason: &str) {
        let lists = self.arguments.list && !self.arguments.ignored;
        let runs = !self.arguments.list && std::env::var_os(NEXTEST_VARIABLE).is_none();
        let Some(path) = std::env::var_os(SKIPS_FILE_VARIABLE).filter(|_| lists || runs) else {
            return;
        };
        let opened = File::options().append(true).create(true).open(&path);
        // One write, so that lines of binaries that run at once do not mix.
        let written =
            opened.and_then(|mut file| file.write_all(format!("{name}: {reason}\n").as_bytes()));
        if let Err(error) = written {
            eprintln!("cannot write {}: {error}", path.display());
        }
    }

    /// Lists or runs the tests.
    #[must_use]
    pub fn run(self) -> ExitCode {
        libtest_mimic::run(&self.arguments, self.trials).exit_code()
    }
}

fn run_unless(reason: Option<String>, run: fn()) -> Result<Completion, Failed> {
    match reason {
        None => {
            run();
            Ok(Completion::Completed)
        }
        // Nextest leaves out what is listed as ignored. Whoever asks for such a test all the same
        // must not read that it passed.
        Some(reason) if std::env::var_os(NEXTEST_VARIABLE).is_some() => Err(reason.into()),
        Some(reason) => Ok(Completion::ignored_with(reason)),
    }
}
