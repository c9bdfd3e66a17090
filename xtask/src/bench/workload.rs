//! What every server has to do in one round, and which numbers come out of it.

use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::client::{Endpoint, Stream};
use super::metric::{self, Samples, median};
use super::prompt::Digits;
use super::server::Server;

/// Digits of the request that warms a server up and tells how long its template is.
const WARM_UP_DIGITS: usize = 64;

/// A joiner comes once each running stream has shown this many tokens: it decodes by then.
const TOKENS_BEFORE_JOIN: usize = 8;

/// Streams that run while another prompt joins.
const STREAMS_BEFORE_JOIN: usize = 4;

/// Four streams reach their eighth token within seconds; longer means that one hangs.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(60);

/// Sizes in tokens. The full ones are those of the targets.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    single_prompt: usize,
    single_tokens: usize,
    long_prompt: usize,
    /// How much of the long prompt another request brought along.
    known_prefix: usize,
    short_prompt_digits: usize,
    stream_tokens: usize,
    shared_prefix_digits: usize,
    join_tokens: usize,
}

impl Workload {
    /// What the table shows.
    pub(super) const FULL: Self = Self {
        name: "full",
        single_prompt: 32,
        single_tokens: 128,
        long_prompt: 512,
        known_prefix: 448,
        short_prompt_digits: 16,
        stream_tokens: 64,
        shared_prefix_digits: 256,
        join_tokens: 96,
    };

    /// The same steps, just to see that they run.
    pub(super) const QUICK: Self = Self {
        name: "quick",
        single_prompt: 32,
        single_tokens: 24,
        long_prompt: 128,
        known_prefix: 96,
        short_prompt_digits: 16,
        stream_tokens: 16,
        shared_prefix_digits: 64,
        join_tokens: 32,
    };

    /// Runs one round against a fresh server.
    pub(super) fn measure(
        &self,
        server: &Server,
        round: usize,
        samples: &mut Samples,
    ) -> Result<()> {
        let mut digits = Digits::for_round(round);
        let endpoint = &server.endpoint;
        samples.add(metric::READY_MS, Some(server.ready_ms));
        let warm_up = endpoint
            .chat(&digits.take(WARM_UP_DIGITS), 8)
            .context("the warm-up request failed")?;
        // Every server wraps the digits in the model's chat template.
        let template = warm_up
            .prompt_tokens
            .checked_sub(WARM_UP_DIGITS)
            .filter(|template| *template < self.single_prompt)
            .ok_or_else(|| {
                anyhow!(
                    "{WARM_UP_DIGITS} digits made {} tokens",
                    warm_up.prompt_tokens
                )
            })?;
        self.measure_single(endpoint, template, &mut digits, samples)
            .context("single stream")?;
        self.measure_long_prompts(endpoint, template, &mut digits, samples)
            .context("long prompts")?;
        for (streams, key) in [
            (1, metric::TOTAL_1_TPS),
            (4, metric::TOTAL_4_TPS),
            (8, metric::TOTAL_8_TPS),
        ] {
            let prompts = (0..streams)
                .map(|_| digits.take(self.short_prompt_digits))
                .collect();
            let done = run_together(endpoint, prompts, self.stream_tokens)
                .with_context(|| format!("{streams} streams"))?;
            samples.add(key, Some(total_tps(&done)));
        }
        self.measure_shared_prefix(endpoint, &mut digits, samples)
            .context("shared prefix")?;
        self.measure_join(endpoint, template, &mut digits, samples)
            .context("joining prompt")
    }

    fn measure_single(
        &self,
        endpoint: &Endpoint,
        template: usize,
        digits: &mut Digits,
        samples: &mut Samples,
    ) -> Result<()> {
        let stream = endpoint.chat(
            &digits.take(self.single_prompt - template),
            self.single_tokens,
        )?;
        ensure!(
            stream.prompt_tokens == self.single_prompt,
            "the prompt has {} tokens",
            stream.prompt_tokens
        );
        samples.add(metric::DECODE_TPS, stream.decode_tps());
        samples.add(metric::FIRST_TOKEN_SHORT_MS, stream.first_token_ms());
        Ok(())
    }

    fn measure_long_prompts(
        &self,
        endpoint: &Endpoint,
        template: usize,
        digits: &mut Digits,
        samples: &mut Samples,
    ) -> Result<()> {
        let count = self.long_prompt - template;
        let text = digits.take(count);
        samples.add(
            metric::FIRST_TOKEN_COLD_MS,
            endpoint.chat(&text, 4)?.first_token_ms(),
        );
        samples.add(
            metric::FIRST_TOKEN_REPEAT_MS,
            endpoint.chat(&text, 4)?.first_token_ms(),
        );
        let known = &text[..self.known_prefix - template];
        let relative = format!("{known}{}", digits.take(count - known.len()));
        samples.add(
            metric::FIRST_TOKEN_PREFIX_MS,
            endpoint.chat(&relative, 4)?.first_token_ms(),
        );
        Ok(())
    }

    fn measure_shared_prefix(
        &self,
        endpoint: &Endpoint,
        digits: &mut Digits,
        samples: &mut Samples,
    ) -> Result<()> {
        let prefix = digits.take(self.shared_prefix_digits);
        let prompts = (0..8)
            .map(|_| format!("{prefix}{}", digits.take(self.short_prompt_digits)))
            .collect();
        let done = run_together(endpoint, prompts, self.stream_tokens)?;
        samples.add(metric::SHARED_8_TPS, Some(total_tps(&done)));
        let first: Vec<f64> = done.iter().filter_map(Stream::first_token_ms).collect();
        samples.add(metric::SHARED_8_FIRST_TOKEN_MS, median(&first));
        Ok(())
    }

    fn measure_join(
        &self,
        endpoint: &Endpoint,
        template: usize,
        digits: &mut Digits,
        samples: &mut Samples,
    ) -> Result<()> {
        let prompts: Vec<String> = (0..STREAMS_BEFORE_JOIN)
            .map(|_| digits.take(self.short_prompt_digits))
            .collect();
        let joiner = digits.take(self.long_prompt - template);
        let (sender, receiver) = mpsc::channel();
        let (running, joined) = thread::scope(|scope| {
            let running: Vec<_> = prompts
                .iter()
                .map(|prompt| {
                    let sender = sender.clone();
                    scope.spawn(move || {
                        endpoint.chat_with(prompt, self.join_tokens, |pieces| {
                            if pieces == TOKENS_BEFORE_JOIN {
                                // Nobody listens any more once the wait below has failed.
                                let _ = sender.send(());
                            }
                        })
                    })
                })
                .collect();
            drop(sender);
            let all_run =
                (0..STREAMS_BEFORE_JOIN).try_for_each(|_| receiver.recv_timeout(JOIN_WAIT_MAX));
            let joined = match all_run {
                Ok(()) => endpoint.chat(&joiner, 4),
                Err(_) => Err(anyhow!("the streams before it did not get going")),
            };
            (
                running
                    .into_iter()
                    .map(finish)
                    .collect::<Result<Vec<Stream>>>(),
                joined,
            )
        });
        let (running, joined) = (running?, joined?);
        let gaps = running
            .iter()
            .filter_map(|stream| stream.longest_gap_ms(joined.start));
        samples.add(metric::JOIN_GAP_MS, gaps.reduce(f64::max));
        samples.add(metric::JOIN_FIRST_TOKEN_MS, joined.first_token_ms());
        Ok(())
    }
}

/// Sends all prompts at the same moment and waits for all answers.
pub(super) fn run_together(
    endpoint: &Endpoint,
    prompts: Vec<String>,
    tokens: usize,
) -> Result<Vec<Stream>> {
    let barrier = Barrier::new(prompts.len());
    thread::scope(|scope| {
        let threads: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    endpoint.chat(prompt, tokens)
                })
            })
            .collect();
        threads.into_iter().map(finish).collect()
    })
}

fn finish(thread: thread::ScopedJoinHandle<'_, Result<Stream>>) -> Result<Stream> {
    thread
        .join()
        .map_err(|_| anyhow!("a client thread panicked"))?
}

/// All tokens, from the first request to the last token.
pub(super) fn total_tps(streams: &[Stream]) -> f64 {
    let tokens: usize = streams.iter().map(|stream| stream.completion_tokens).sum();
    let start: Option<Instant> = streams.iter().map(|stream| stream.start).min();
    let end: Option<Instant> = streams
        .iter()
        .filter_map(|stream| stream.times.last().copied())
        .max();
    match (start, end) {
        (Some(start), Some(end)) => tokens as f64 / end.duration_since(start).as_secs_f64(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_streams_up_over_their_common_time() {
        let start = Instant::now();
        let stream = |from: u64, to: u64| Stream {
            start: start + Duration::from_secs(from),
            times: vec![start + Duration::from_secs(to)],
            prompt_tokens: 1,
            completion_tokens: 10,
        };
        assert_eq!(total_tps(&[stream(0, 3), stream(1, 4)]), 5.0);
        assert!(total_tps(&[]).is_nan());
    }
}
