//! Owns the models that machines are taken from: what they need, and what they are asked.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use testkit::model::ModelSpec;

use super::said::Said;
use crate::alphabet::{HOST_GB, LARGE_CONTEXT, WORKER_GB, is_alphabet, write_large_alphabet};

/// Names the model that machines are taken from: `./dev losses MODEL`.
const MODEL_VARIABLE: &str = "MESH_LLM_TEST_LOSS_MODEL";

/// Likeliest tokens that are told of each place: enough to find what another run took instead.
const ALTERNATIVES: u32 = 5;

/// A layer's cache takes 134 MB with so many tokens, as one of the large alphabet does.
const STARTER_CONTEXT: u32 = 131_072;

/// Tokens that the starter model says: some tenths of a second's work at least, and more than eight streams begin apart.
const STARTER_TOKENS: u32 = 160;

/// With so many a layer takes 101 MB as the planner counts.
const HALF_BILLION_CONTEXT: u32 = 163_840;

/// Tokens that the half-billion model says: a second's work at least, and more than eight streams begin apart.
const HALF_BILLION_TOKENS: u32 = 24;

/// What a ring does when a machine is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Prompt,
    Answer,
}

/// A model that takes three machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Sure of what it says, so that no rounding changes its text.
    Alphabet,
    /// The model that is built in.
    Starter,
    /// The shape of a half-billion-parameter model with random weights: nothing is less sure of what it says.
    HalfBillion,
}

impl Subject {
    /// The one that is wished for; the quickest if none is.
    pub(crate) fn wanted() -> Self {
        let Some(label) = std::env::var_os(MODEL_VARIABLE) else {
            return Self::Alphabet;
        };
        let all = [Self::Alphabet, Self::Starter, Self::HalfBillion];
        let named = all.into_iter().find(|subject| label == *subject.label());
        named.unwrap_or_else(|| panic!("{MODEL_VARIABLE} is {}", label.display()))
    }

    /// What the variable and the table call it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Alphabet => "alphabet",
            Self::Starter => "starter",
            Self::HalfBillion => "half-b",
        }
    }

    /// What its file and the model are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alphabet => "alphabet",
            // The built-in one has no file, and only files can be split.
            Self::Starter => "copy-of-starter",
            Self::HalfBillion => "half-billion",
        }
    }

    pub(crate) fn context(self) -> u32 {
        match self {
            Self::Alphabet => LARGE_CONTEXT,
            Self::Starter => STARTER_CONTEXT,
            Self::HalfBillion => HALF_BILLION_CONTEXT,
        }
    }

    /// What the host gives, and what each worker does, gigabytes: such that three of them are needed.
    pub(crate) fn gigabytes(self) -> [&'static str; 2] {
        match self {
            Self::Alphabet => [HOST_GB, WORKER_GB],
            // One of six layers, and four: 540 MB, and the 79 MB that a stage takes besides.
            Self::Starter => [HOST_GB, "0.63"],
            // One of 24 layers, and up to 20.
            Self::HalfBillion => [HOST_GB, "1.97"],
        }
    }

    /// What the nodes are started with besides.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Alphabet => &[],
            // What is drafted depends on how long steps take, and changes their shapes, and so the rounding. Threads that
            // wait for their next step spin: those of three machines would take turns on the cores of one.
            Self::Starter | Self::HalfBillion => &["--no-draft", "--threads=1"],
        }
    }

    /// Whether its text must be the same whatever happens to it.
    pub(crate) fn is_exact(self) -> bool {
        self == Self::Alphabet
    }

    /// Tokens that it says where the alphabet says so many letters: enough for the loss to come in the middle. The others
    /// say the same number each time, because drafts do not help them.
    pub(crate) fn tokens(self, letters: u32) -> u32 {
        match self {
            Self::Alphabet => letters,
            Self::Starter => STARTER_TOKENS,
            Self::HalfBillion => HALF_BILLION_TOKENS,
        }
    }

    /// Writes its file.
    pub(crate) fn write(self, folder: &Path) {
        let path = folder.join(format!("{}.gguf", self.name()));
        match self {
            Self::Alphabet => {
                write_large_alphabet(folder);
            }
            Self::Starter => {
                let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");
                std::fs::copy(starter, path).unwrap();
            }
            Self::HalfBillion => {
                let spec = ModelSpec {
                    name: self.name().to_owned(),
                    context: HALF_BILLION_CONTEXT,
                    ..ModelSpec::bench_half_billion()
                };
                testkit::model::write(&spec, &path).unwrap();
            }
        }
    }

    /// A prompt that takes this model a while.
    fn long_prompt(self) -> String {
        let times = match self {
            Self::Alphabet | Self::Starter => 50,
            // A token of it costs about a hundred times what one of the starter model does.
            Self::HalfBillion => 10,
        };
        "abcdefghijklmnop".repeat(times)
    }

    /// A question whose answer is lost in this phase, for [`tokens`](Self::tokens) of so many letters.
    pub(crate) fn question(self, phase: Phase, letters: u32) -> Value {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let words = match (phase, self) {
            (Phase::Answer, _) => "Count to one hundred.".to_owned(),
            (Phase::Prompt, Self::Alphabet) => self.long_prompt(),
            // Nobody has evaluated it before.
            (Phase::Prompt, _) => {
                let number = ASKED.fetch_add(1, Ordering::Relaxed);
                format!("{number} {}", self.long_prompt())
            }
        };
        let mut question = json!({
            "model": self.name(),
            "messages": [{ "role": "user", "content": words }],
            "temperature": 0,
            "ignore_eos": true,
            "max_tokens": self.tokens(letters),
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if !self.is_exact() {
            question["logprobs"] = true.into();
            question["top_logprobs"] = ALTERNATIVES.into();
            // Eight streams evaluate one long prompt once. A short one is evaluated anew, because what is left of it in a
            // cache may be the work of a ring that was disturbed.
            question["cache_prompt"] = (phase == Phase::Prompt).into();
        }
        question
    }

    /// Checks that answers of so many letters are complete, and what they say where rounding may not change it.
    pub(crate) fn check(self, said: &[Said], letters: u32) {
        for said in said {
            said.assert_ends_after(self.tokens(letters));
            assert!(self.may_say(&said.text, letters), "{}", said.text);
        }
    }

    /// Whether an answer of so many letters may be this: any text where rounding decides.
    pub(super) fn may_say(self, text: &str, letters: u32) -> bool {
        !self.is_exact() || is_alphabet(text, letters as usize)
    }
}

/// The same question with an answer that owes nothing to others: all of it is evaluated anew.
pub(crate) fn anew(question: &Value) -> Value {
    let mut question = question.clone();
    question["cache_prompt"] = false.into();
    question
}
