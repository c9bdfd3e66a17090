//! Owns what an answer said, how it ended, and where it leaves what another one said.

use std::time::{Duration, Instant};

use serde_json::Value;

/// What an answer said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    /// Empty where the question did not ask for them.
    pub(crate) tokens: Vec<Token>,
    /// Why it ended: one reason, if all is well.
    pub(crate) finish_reasons: Vec<String>,
    /// As the server counts them: once, if all is well.
    pub(crate) completion_tokens: Vec<u64>,
    /// Whether it came to the mark at the end of streams, and nothing in it was an error.
    pub(crate) is_whole: bool,
    /// The last line that came, for who has to find out why there are no more.
    pub(crate) last_line: String,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) bytes: Vec<u8>,
    pub(crate) logprob: f64,
    /// The likeliest ones at this place.
    pub(crate) top: Vec<(Vec<u8>, f64)>,
}

/// Where a text leaves that of an undisturbed run.
#[derive(Debug, PartialEq)]
pub(crate) struct Parting {
    /// Tokens that are the same before; `None` where tokens were not told.
    pub(crate) token: Option<usize>,
    /// How much likelier the undisturbed run held its own token than the one that was taken instead: the difference of
    /// their logits. `None` if that one was not among the likeliest.
    pub(crate) gap: Option<f64>,
}

impl Said {
    /// Reads the events of an answer, also of one that broke off.
    pub(crate) fn of(stream: &str) -> Self {
        let last_line = stream.lines().rfind(|line| !line.is_empty());
        let mut said = Self {
            is_whole: stream.ends_with("data: [DONE]\n\n"),
            last_line: last_line.unwrap_or_default().to_owned(),
            ..Self::default()
        };
        for line in stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: {"))
        {
            match serde_json::from_str::<Value>(&format!("{{{line}")) {
                Ok(chunk) if chunk["error"].is_null() => said.add(&chunk),
                Ok(_) | Err(_) => said.is_whole = false,
            }
        }
        said
    }

    fn add(&mut self, chunk: &Value) {
        let choice = &chunk["choices"][0];
        self.text += choice["delta"]["content"].as_str().unwrap_or_default();
        let drawn = choice["logprobs"]["content"].as_array();
        self.tokens
            .extend(drawn.into_iter().flatten().map(Token::of));
        let reason = choice["finish_reason"].as_str();
        self.finish_reasons.extend(reason.map(str::to_owned));
        let count = chunk["usage"]["completion_tokens"].as_u64();
        self.completion_tokens.extend(count);
    }

    /// Whether it came to an end of its own, and its tokens were counted.
    pub(crate) fn has_ended(&self) -> bool {
        let ends = (self.finish_reasons.len(), self.completion_tokens.len());
        self.is_whole && ends == (1, 1)
    }

    /// Checks that it ended because it had so many tokens.
    pub(crate) fn assert_ends_after(&self, tokens: u32) {
        let (end, text) = (&self.last_line, &self.text);
        assert!(self.has_ended(), "it ends with {end}, after {text}");
        assert_eq!(self.finish_reasons, ["length"], "{text}");
        assert_eq!(self.completion_tokens, [u64::from(tokens)], "{text}");
    }

    pub(crate) fn parting(&self, whole: &Self) -> Option<Parting> {
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
    pub(crate) fn shift(&self, whole: &Self) -> f64 {
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
