//! One distance and one number of workers: what ours, theirs and the whole model do there, in turn.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::super::client::{Endpoint, Stream};
use super::super::metric::median;
use super::super::prompt::Digits;
use super::super::workload::run_together;
use super::machines::Machines;
use super::ring::{self, Ring, Wish};
use super::rpc::{Host, Programs, Servers};

/// Streams that decode at the same time.
const STREAMS: usize = 4;

/// Digits of a prompt whose length does not matter.
const PROMPT_DIGITS: usize = 24;

/// Digits of the request that warms a model up and tells how long its template is.
const WARM_UP_DIGITS: usize = 48;

/// Tokens of the same request.
const WARM_UP_TOKENS: usize = 4;

/// How much is asked for, in tokens.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sizes {
    pub(super) one_stream: usize,
    /// Of each of the streams.
    pub(super) each_stream: usize,
    pub(super) prompt: usize,
    /// Enough for the text to repeat itself most of the time.
    pub(super) repeating: usize,
}

/// A distance, and who takes part beside the host.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Case {
    pub(super) round_trip_ms: u64,
    pub(super) workers: usize,
    pub(super) rounds: Vec<Round>,
    /// Why there are fewer rounds than there should be.
    pub(super) problems: Vec<String>,
}

/// What one round gave.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Round {
    /// Layers of each machine, the host's last; the same for both.
    pub(super) shares: String,
    /// The whole model on one machine, one stream.
    pub(super) whole_tps: f64,
    /// What the plan expected of one stream.
    pub(super) predicted_tps: f64,
    /// What it expected until the first token that follows a new prompt; `None`: it does not say for such a length.
    pub(super) predicted_prefill_ms: Option<f64>,
    pub(super) ours: Side,
    pub(super) rpc: Option<Side>,
}

/// What one of the two did.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Side {
    pub(super) load_s: f64,
    /// Sent over all links while it loaded.
    pub(super) load_bytes: Option<u64>,
    /// One stream, without speculation.
    pub(super) one_tps: f64,
    /// All streams together, while all of them decode.
    pub(super) streams_tps: f64,
    /// Until the first token that follows a new prompt.
    pub(super) prefill_ms: f64,
    /// One stream with speculation, on text that repeats itself.
    pub(super) repeating_tps: Option<f64>,
}

impl Case {
    pub(super) fn new(round_trip_ms: u64, workers: usize) -> Self {
        Self {
            round_trip_ms,
            workers,
            rounds: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The middle of what each round says; `None` if none says anything.
    pub(super) fn median(&self, value: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.rounds.iter().filter_map(value).collect();
        median(&values)
    }

    /// The middle of the rounds' ratios of ours to theirs: what disturbs a round disturbs both.
    pub(super) fn ratio(&self, value: impl Fn(&Side) -> f64) -> Option<f64> {
        self.median(|round| Some(value(&round.ours) / value(round.rpc.as_ref()?)))
    }

    /// Time that a token's way over the links takes, milliseconds.
    pub(super) fn hops_ms(&self) -> f64 {
        (self.workers + 1) as f64 / 2.0 * self.round_trip_ms as f64
    }

    /// Milliseconds of a token beyond computing and hops.
    pub(super) fn beyond_ms(&self) -> Option<f64> {
        self.median(|round| Some(1e3 / round.ours.one_tps - 1e3 / round.whole_tps - self.hops_ms()))
    }
}

/// What a round of a case needs.
pub(super) struct Bench<'a> {
    pub(super) machines: &'a Machines,
    pub(super) wish: Wish<'a>,
    pub(super) rpc: Option<&'a Programs>,
    /// Runs beside, and computes only when asked.
    pub(super) whole: &'a Endpoint,
    pub(super) sizes: Sizes,
    /// The model of a ring with speculation, whose text repeats itself, if one is measured, too.
    pub(super) loops: Option<&'a Path>,
}

impl Bench<'_> {
    /// Starts both sides, and measures each thing with one right after the other.
    pub(super) fn round(&self, round: usize) -> Result<Round> {
        let ring = Ring::start(self.machines, &self.wish)?;
        ensure!(
            ring.shares.len() == self.wish.workers + 1,
            "the plan takes {} machines instead of {}",
            ring.shares.len(),
            self.wish.workers + 1
        );
        let shares = ring.shares.clone();
        let mut theirs = None;
        let servers;
        if let Some(programs) = self.rpc {
            let Wish {
                workers,
                threads,
                folder,
                ..
            } = self.wish;
            servers = Servers::start(self.machines, programs, workers, threads, folder)?;
            theirs = Some(Host::start(&servers, programs, &self.wish, &shares)?);
        }
        let mut digits = Digits::for_round(round);
        let ours = Ours::new(self.machines, ring.endpoint(), &mut digits)?;
        self.whole
            .chat(&digits.take(WARM_UP_DIGITS), WARM_UP_TOKENS)?;
        if let Some(theirs) = &mut theirs {
            for streams in [1, STREAMS] {
                theirs.run(streams, WARM_UP_DIGITS, WARM_UP_TOKENS, round)?;
            }
        }
        let one = self.one_stream(&ours, theirs.as_mut(), &mut digits, round)?;
        let streams = self.streams(&ours, theirs.as_mut(), &mut digits, round)?;
        let prefill = self.prefill(&ours, theirs.as_mut(), &mut digits, round)?;
        let rpc = theirs.as_ref().map(|theirs| Side {
            load_s: theirs.load_s,
            load_bytes: theirs.load_bytes,
            one_tps: one.1,
            streams_tps: streams.1,
            prefill_ms: prefill.1,
            repeating_tps: None,
        });
        drop(theirs);
        let (load_s, load_bytes) = (ring.load_s, ring.load_bytes);
        let predicted_tps = ring.predicted_tps;
        let predicted_prefill_ms = ring.predicted_first_token_ms(self.sizes.prompt);
        ring.end();
        let repeating_tps = match self.loops {
            Some(loops) => Some(self.repeating(loops, round)?),
            None => None,
        };
        Ok(Round {
            shares: ring::text(&shares),
            whole_tps: one.2,
            predicted_tps,
            predicted_prefill_ms,
            ours: Side {
                load_s,
                load_bytes,
                one_tps: one.0,
                streams_tps: streams.0,
                prefill_ms: prefill.0,
                repeating_tps,
            },
            rpc,
        })
    }

    /// Tokens per second of ours, theirs, and the whole model.
    fn one_stream(
        &self,
        ours: &Ours<'_>,
        theirs: Option<&mut Host>,
        digits: &mut Digits,
        round: usize,
    ) -> Result<(f64, f64, f64)> {
        let tokens = self.sizes.one_stream;
        let prompt = digits.take(PROMPT_DIGITS);
        // Before and after the others, because a machine's speed drifts.
        let before = rate(&self.whole.chat(&prompt, tokens)?)?;
        let own = rate(&ours.chat(&prompt, tokens)?)?;
        let other = match theirs {
            Some(theirs) => {
                let timed = theirs.run(1, PROMPT_DIGITS, tokens, round)?;
                tokens as f64 / timed.decode_s
            }
            None => f64::NAN,
        };
        let again = digits.take(PROMPT_DIGITS);
        let after = rate(&self.whole.chat(&again, tokens)?)?;
        Ok((own, other, 2.0 / (1.0 / before + 1.0 / after)))
    }

    fn streams(
        &self,
        ours: &Ours<'_>,
        theirs: Option<&mut Host>,
        digits: &mut Digits,
        round: usize,
    ) -> Result<(f64, f64)> {
        let tokens = self.sizes.each_stream;
        let prompts = (0..STREAMS).map(|_| digits.take(PROMPT_DIGITS)).collect();
        let done = ours.inside(|| run_together(&ours.endpoint, prompts, tokens))?;
        let other = match theirs {
            Some(theirs) => {
                let timed = theirs.run(STREAMS, PROMPT_DIGITS, tokens, round)?;
                (STREAMS * tokens) as f64 / timed.decode_s
            }
            None => f64::NAN,
        };
        let own = steady_tps(&done);
        ensure!(own.is_finite(), "the streams never decode all at once");
        Ok((own, other))
    }

    fn prefill(
        &self,
        ours: &Ours<'_>,
        theirs: Option<&mut Host>,
        digits: &mut Digits,
        round: usize,
    ) -> Result<(f64, f64)> {
        let tokens = self.sizes.prompt;
        let stream = ours.chat(&digits.take(tokens - ours.template), WARM_UP_TOKENS)?;
        ensure!(
            stream.prompt_tokens == tokens,
            "the prompt has {} tokens",
            stream.prompt_tokens
        );
        let other = match theirs {
            Some(theirs) => theirs.run(1, tokens, 0, round)?.prefill_s * 1e3,
            None => f64::NAN,
        };
        Ok((stream.first_token_ms().unwrap_or(f64::NAN), other))
    }

    /// A ring of its own, which drafts tokens, over a model of the same shape whose text goes round in a loop. From the
    /// second round on drafts are right.
    fn repeating(&self, loops: &Path, round: usize) -> Result<f64> {
        let wish = Wish {
            model: loops,
            speculation: true,
            ..self.wish
        };
        let ring = Ring::start(self.machines, &wish)?;
        let mut digits = Digits::for_round(round);
        let ours = Ours::new(self.machines, ring.endpoint(), &mut digits)?;
        let stream = ours.chat(&digits.take(PROMPT_DIGITS), self.sizes.repeating)?;
        ring.end();
        rate(&stream)
    }
}

/// Our host, asked on its own machine.
struct Ours<'a> {
    machines: &'a Machines,
    endpoint: Endpoint,
    /// Tokens that the chat template adds.
    template: usize,
}

impl<'a> Ours<'a> {
    fn new(machines: &'a Machines, endpoint: Endpoint, digits: &mut Digits) -> Result<Self> {
        let mut ours = Self {
            machines,
            endpoint,
            template: 0,
        };
        let warm = ours.chat(&digits.take(WARM_UP_DIGITS), WARM_UP_TOKENS)?;
        ensure!(
            warm.prompt_tokens >= WARM_UP_DIGITS,
            "{WARM_UP_DIGITS} digits made {} tokens",
            warm.prompt_tokens
        );
        ours.template = warm.prompt_tokens - WARM_UP_DIGITS;
        let prompts = (0..STREAMS).map(|_| digits.take(PROMPT_DIGITS)).collect();
        ours.inside(|| run_together(&ours.endpoint, prompts, WARM_UP_TOKENS))?;
        Ok(ours)
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.machines.inside(0, work)
    }

    fn chat(&self, text: &str, tokens: usize) -> Result<Stream> {
        self.inside(|| self.endpoint.chat(text, tokens))
    }
}

fn rate(stream: &Stream) -> Result<f64> {
    let rate = stream.decode_tps().filter(|rate| rate.is_finite());
    rate.ok_or_else(|| anyhow::anyhow!("too few tokens for a rate"))
}

/// Tokens per second of all streams together, from when the last one has its first token until the first one ends.
fn steady_tps(streams: &[Stream]) -> f64 {
    let firsts = streams.iter().filter_map(|stream| stream.times.first());
    let lasts = streams.iter().filter_map(|stream| stream.times.last());
    let (Some(from), Some(to)) = (firsts.max(), lasts.min()) else {
        return f64::NAN;
    };
    if to <= from {
        return f64::NAN;
    }
    let tokens = streams.iter().map(|stream| {
        let pieces = stream.times.iter().filter(|at| *at > from && *at <= to);
        // A token may be part of a character, so that there are fewer pieces than tokens.
        pieces.count() as f64 * stream.completion_tokens as f64 / stream.times.len() as f64
    });
    tokens.sum::<f64>() / to.duration_since(*from).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn counts_only_while_all_streams_decode() {
        let start = Instant::now();
        let stream = |seconds: &[u64]| Stream {
            start,
            times: seconds
                .iter()
                .map(|s| start + Duration::from_secs(*s))
                .collect(),
            prompt_tokens: 1,
            completion_tokens: seconds.len(),
        };
        // From 2 to 4 seconds: two tokens of the first, two of the second.
        let streams = [stream(&[1, 2, 3, 4]), stream(&[2, 3, 4, 5])];
        assert_eq!(steady_tps(&streams), 2.0);
        assert!(steady_tps(&[]).is_nan());
        assert!(steady_tps(&[stream(&[1, 2]), stream(&[3, 4])]).is_nan());
    }

    #[test]
    fn compares_round_by_round() {
        let side = |one_tps| Side {
            load_s: 1.0,
            load_bytes: None,
            one_tps,
            streams_tps: 1.0,
            prefill_ms: 1.0,
            repeating_tps: None,
        };
        let round = |ours, rpc| Round {
            shares: String::new(),
            whole_tps: 50.0,
            predicted_tps: 1.0,
            predicted_prefill_ms: None,
            ours: side(ours),
            rpc: Some(side(rpc)),
        };
        let mut case = Case::new(20, 2);
        // A slow round is slow for both.
        case.rounds = vec![round(20.0, 10.0), round(2.0, 1.0), round(21.0, 10.0)];
        assert_eq!(case.ratio(|side| side.one_tps), Some(2.0));
        assert_eq!(case.hops_ms(), 30.0);
        let beyond = case.beyond_ms().unwrap();
        assert!((beyond - 0.0).abs() < 1e-9, "{beyond}");
    }
}
