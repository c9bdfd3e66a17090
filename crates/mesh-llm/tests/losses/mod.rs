//! Models that lose machines: which one it is, what it is asked, how its text compares with that of a run that nothing
//! disturbs, and one line of a table for each loss.
#![allow(dead_code)]

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::model::ModelSpec;

use crate::alphabet::{HOST_GB, LARGE_CONTEXT, WORKER_GB, assert_alphabet, write_large_alphabet};

/// Names the model that machines are taken from: `./dev losses MODEL`.
const MODEL_VARIABLE: &str = "MESH_LLM_TEST_LOSS_MODEL";

/// A file that gets a line for each loss, whose columns are named in `./dev`.
const TABLE_VARIABLE: &str = "MESH_LLM_TEST_LOSS_TABLE";

/// Likeliest tokens that are told of each place: enough to find what another run took instead.
const ALTERNATIVES: u32 = 5;

/// A layer's cache takes 134 MB with so many tokens, as one of the large alphabet does.
const STARTER_CONTEXT: u32 = 131_072;

/// With so many a layer takes 101 MB as the planner counts.
const HALF_BILLION_CONTEXT: u32 = 163_840;

/// Tokens that the half-billion model says: a second's work at least, and more than eight streams begin apart.
const HALF_BILLION_TOKENS: u32 = 32;

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
    fn label(self) -> &'static str {
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
            // What is drafted depends on how long steps take, and changes their shapes, and so the rounding.
            Self::Starter | Self::HalfBillion => &["--no-draft"],
        }
    }

    /// Whether its text must be the same whatever happens to it.
    pub(crate) fn is_exact(self) -> bool {
        self == Self::Alphabet
    }

    /// Tokens that it says where the alphabet says so many letters: enough for the loss to come in the middle.
    pub(crate) fn tokens(self, letters: u32) -> u32 {
        match self {
            Self::Alphabet => letters,
            // It has no drafts, but is as fast as small models are.
            Self::Starter => 2 * letters,
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

    /// A question whose answer is lost in this phase, for [`tokens`](Self::tokens) of so many letters.
    pub(crate) fn question(self, phase: Phase, letters: u32) -> Value {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let long = "abcdefghijklmnop".repeat(50);
        let words = match (phase, self) {
            (Phase::Answer, _) => "Count to one hundred.".to_owned(),
            (Phase::Prompt, Self::Alphabet) => long,
            // Nobody has evaluated it before.
            (Phase::Prompt, _) => format!("{} {long}", ASKED.fetch_add(1, Ordering::Relaxed)),
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
        let tokens = u64::from(self.tokens(letters));
        for said in said {
            assert_eq!(said.completion_tokens, Some(tokens), "{}", said.text);
            if self.is_exact() {
                assert_alphabet(&said.text, letters as usize);
            }
        }
    }
}

/// The same question with an answer that owes nothing to others: all of it is evaluated anew.
pub(crate) fn anew(question: &Value) -> Value {
    let mut question = question.clone();
    question["cache_prompt"] = false.into();
    question
}

/// The longest time without a word from `since` on.
pub(crate) fn pause(since: Instant, arrivals: &[Instant]) -> Duration {
    let mut last = since;
    let mut longest = Duration::ZERO;
    for at in arrivals.iter().copied().filter(|at| *at > since) {
        longest = longest.max(at.duration_since(last));
        last = at;
    }
    longest
}

/// What an answer said.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    /// As the server counts them.
    completion_tokens: Option<u64>,
    /// Empty where the question did not ask for them.
    tokens: Vec<Token>,
}

#[derive(Debug, PartialEq)]
struct Token {
    bytes: Vec<u8>,
    logprob: f64,
    /// The likeliest ones at this place.
    top: Vec<(Vec<u8>, f64)>,
}

/// Where a text leaves that of an undisturbed run.
#[derive(Debug, PartialEq)]
struct Parting {
    /// Tokens that are the same before; `None` where tokens were not told.
    token: Option<usize>,
    /// How much likelier the undisturbed run held its own token than the one that was taken instead: the difference of
    /// their logits. `None` if that one was not among the likeliest.
    gap: Option<f64>,
}

impl Said {
    /// Reads the events of an answer that has come to its end.
    pub(crate) fn of(stream: &str) -> Self {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let mut completion_tokens = None;
        for line in stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: {"))
        {
            let chunk: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
            let choice = &chunk["choices"][0];
            text += choice["delta"]["content"].as_str().unwrap_or_default();
            let drawn = choice["logprobs"]["content"].as_array();
            tokens.extend(drawn.into_iter().flatten().map(Token::of));
            completion_tokens = chunk["usage"]["completion_tokens"]
                .as_u64()
                .or(completion_tokens);
        }
        Self {
            text,
            completion_tokens,
            tokens,
        }
    }

    fn parting(&self, whole: &Self) -> Option<Parting> {
        if self.text == whole.text {
            return None;
        }
        let mut pairs = self.tokens.iter().zip(&whole.tokens);
        let token = pairs.position(|(own, theirs)| own.bytes != theirs.bytes);
        let gap = token.and_then(|place| {
            let taken = &self.tokens[place].bytes;
            let undisturbed = &whole.tokens[place];
            let other = undisturbed.top.iter().find(|(bytes, _)| bytes == taken)?;
            Some(undisturbed.logprob - other.1)
        });
        Some(Parting { token, gap })
    }

    /// How much a logarithm of a probability differs at most, as far as the tokens are the same.
    fn shift(&self, whole: &Self) -> f64 {
        let pairs = self.tokens.iter().zip(&whole.tokens);
        let same = pairs.take_while(|(own, theirs)| own.bytes == theirs.bytes);
        let shifts = same.map(|(own, theirs)| (own.logprob - theirs.logprob).abs());
        shifts.fold(0.0, f64::max)
    }
}

impl Token {
    fn of(value: &Value) -> Self {
        let top = value["top_logprobs"].as_array().unwrap().iter();
        Self {
            bytes: bytes(value),
            logprob: value["logprob"].as_f64().unwrap(),
            top: top
                .map(|other| (bytes(other), other["logprob"].as_f64().unwrap()))
                .collect(),
        }
    }
}

fn bytes(token: &Value) -> Vec<u8> {
    let bytes = token["bytes"].as_array().unwrap().iter();
    bytes
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect()
}

/// What was lost, and when.
pub(crate) struct Loss<'a> {
    pub(crate) subject: Subject,
    /// What was done to whom.
    pub(crate) harm: &'a str,
    pub(crate) phase: Phase,
    /// The longest of the streams' pauses, if there was a loss.
    pub(crate) pause: Option<Duration>,
}

impl Loss<'_> {
    /// Says what came of it, on stderr and in the table, if there is one. `whole`: what an undisturbed run says; `None`
    /// where that is certain, and has been checked.
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

    fn line(&self, said: &[Said], whole: Option<&Said>) -> String {
        let partings = said.iter().filter_map(|said| said.parting(whole?));
        let partings: Vec<Parting> = partings.collect();
        let equal = said.len() - partings.len();
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
        // All have ended as they should: a stream that does not fails the test before.
        let count = said.len();
        format!(
            "| {} | {} | {phase} | {count} | {count} | {equal} | {} | {} | {} | {} |",
            self.subject.label(),
            self.harm,
            tokens.join(", "),
            number(gap),
            number(shift),
            pause.unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, others: &str) -> Said {
        let token = |letter: char, logprob| (letter.to_string().into_bytes(), logprob);
        let tokens = text.chars().zip(others.chars()).map(|(own, other)| {
            let (bytes, logprob) = token(own, -0.5);
            Token {
                top: vec![(bytes.clone(), logprob), token(other, -0.75)],
                bytes,
                logprob,
            }
        });
        Said {
            text: text.to_owned(),
            completion_tokens: None,
            tokens: tokens.collect(),
        }
    }

    #[test]
    fn tells_from_where_on_texts_differ_and_how_close_that_was() {
        let whole = said("abcd", "ABCD");
        assert_eq!(said("abcd", "xxxx").parting(&whole), None);
        let parting = |token, gap| {
            Some(Parting {
                token: Some(token),
                gap,
            })
        };
        assert_eq!(said("abCx", "xxxx").parting(&whole), parting(2, Some(0.25)));
        assert_eq!(said("xbcd", "xxxx").parting(&whole), parting(0, None));
        let mut other = said("abx", "xxx");
        other.tokens[1].logprob = -0.625;
        other.tokens[2].logprob = -9.0;
        assert_eq!(other.shift(&whole), 0.125);
        let loss = Loss {
            subject: Subject::Starter,
            harm: "kill -9 of worker 1",
            phase: Phase::Answer,
            pause: Some(Duration::from_millis(7_140)),
        };
        let same = said("abcd", "xxxx");
        let texts = [same, other, said("abCx", "xxxx")];
        assert_eq!(
            loss.line(&texts, Some(&whole)),
            "| starter | kill -9 of worker 1 | answer | 3 | 3 | 1 | 3 | 0.25000 | 0.12500 | 7.1 |"
        );
    }

    #[test]
    fn reads_tokens_from_a_stream() {
        let token = r#"{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"A","logprob":-0.75,"bytes":[65]}]}"#;
        let choice = format!(
            r#"{{"index":0,"delta":{{"content":"a"}},"logprobs":{{"content":[{token}]}}}}"#
        );
        let stream = format!(
            "data: {{\"choices\":[{choice}]}}\n\ndata: {{\"choices\":[],\"usage\":{{\"completion_tokens\":1}}}}\n\ndata: [DONE]\n\n"
        );
        let read = Said::of(&stream);
        assert_eq!((read.text.as_str(), read.completion_tokens), ("a", Some(1)));
        let top = vec![(b"A".to_vec(), -0.75)];
        let token = Token {
            bytes: b"a".to_vec(),
            logprob: -0.5,
            top,
        };
        assert_eq!(read.tokens, [token]);
    }

    #[test]
    fn a_pause_is_the_longest_time_without_a_word_after_the_loss() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let arrivals = [at(1), at(9), at(12), at(13)];
        assert_eq!(pause(at(8), &arrivals), Duration::from_secs(3));
        assert_eq!(pause(at(13), &arrivals), Duration::ZERO);
    }
}
