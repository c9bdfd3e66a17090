//! One choice of a running request: what its decode thread knows about it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::sampler::TokenSampler;
use crate::assembler::Assembler;
use crate::scheduler::JobKey;
use crate::speculation::Acceptance;
use crate::{Error, FinishReason, TokenId, TokenLogprob};

/// Messages from the decode thread to the stream of one request.
#[derive(Debug)]
pub(super) enum Piece {
    /// The evaluation of the prompt begins.
    Started { cached_tokens: u32, queue_ms: f64 },
    /// One token of a choice.
    Token {
        choice: u32,
        token: TokenId,
        text: String,
        logprob: Option<TokenLogprob>,
    },
    /// A choice has ended; `text` was held back until now.
    Finished {
        choice: u32,
        text: String,
        reason: FinishReason,
        figures: Figures,
    },
    /// The request has failed; nothing follows.
    Failed(Error),
}

/// Figures of one finished choice.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    pub(super) generated: u32,
    pub(super) drafted: u32,
    pub(super) accepted: u32,
    pub(super) prompt_ms: f64,
    pub(super) decode_ms: f64,
}

/// What a request asks of the decode thread.
pub(super) struct Submission {
    pub(super) prompt: Vec<TokenId>,
    pub(super) choices: Vec<Choice>,
    pub(super) reuse: bool,
    pub(super) submitted: Instant,
    pub(super) pieces: mpsc::Sender<Piece>,
}

/// State of one choice.
pub(super) struct Choice {
    pub(super) index: u32,
    pub(super) sampler: TokenSampler,
    pub(super) assembler: Assembler,
    /// Per token: whether its text belongs to the answer.
    pub(super) shown: Arc<[bool]>,
    pub(super) max_tokens: u32,
    pub(super) min_tokens: u32,
    pub(super) ignore_eos: bool,
    pub(super) speculate: bool,
    /// Tokens of the answer that came from elsewhere, before this engine goes on.
    pub(super) resumed: Vec<TokenId>,
    pub(super) progress: Progress,
}

/// How far a choice has come.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) key: JobKey,
    pub(super) prompt_tokens: usize,
    pub(super) figures: Figures,
    pub(super) acceptance: Acceptance,
    pub(super) started: Option<Instant>,
    pub(super) first_token: Option<Instant>,
}

/// What a drawn token led to.
pub(super) enum Verdict {
    Continue,
    End { reason: FinishReason, text: String },
}

impl Choice {
    /// Draws from a row of logits. Returns the piece to send, if any, and whether to go on.
    ///
    /// `context_tokens`: what the sequence can hold; `position`: tokens before the drawn one.
    pub(super) fn step(
        &mut self,
        vocabulary: &llama::Vocabulary,
        ends: &Arc<[TokenId]>,
        logits: &mut [f32],
        position: usize,
        context_tokens: usize,
    ) -> Result<(TokenId, Option<Piece>, Verdict), Error> {
        let drawn = {
            let banned: &[TokenId] = if self.wants_no_end() { ends } else { &[] };
            let draw = self.progress.figures.generated;
            self.sampler.draw(vocabulary, logits, draw, banned)?
        };
        let (piece, verdict) = self.advance(
            vocabulary,
            drawn.token,
            drawn.logprob,
            position,
            context_tokens,
        )?;
        Ok((drawn.token, piece, verdict))
    }

    /// Takes in what another engine drew before: the pieces are those that it sent. The verdict is
    /// that of the last token.
    pub(super) fn replay(
        &mut self,
        vocabulary: &llama::Vocabulary,
        prompt_tokens: usize,
        context_tokens: usize,
    ) -> Result<(Vec<Piece>, Verdict), Error> {
        let mut pieces = Vec::with_capacity(self.resumed.len());
        for (index, token) in std::mem::take(&mut self.resumed).into_iter().enumerate() {
            let position = prompt_tokens + index;
            let (piece, verdict) =
                self.advance(vocabulary, token, None, position, context_tokens)?;
            self.resumed.push(token);
            pieces.extend(piece);
            if let Verdict::End { .. } = verdict {
                return Ok((pieces, verdict));
            }
        }
        // Times are those of this engine.
        self.progress.first_token = None;
        Ok((pieces, Verdict::Continue))
    }

    fn wants_no_end(&self) -> bool {
        self.ignore_eos || self.progress.figures.generated < self.min_tokens
    }

    /// Moves on past a token of the answer.
    fn advance(
        &mut self,
        vocabulary: &llama::Vocabulary,
        token: TokenId,
        logprob: Option<TokenLogprob>,
        position: usize,
        context_tokens: usize,
    ) -> Result<(Option<Piece>, Verdict), Error> {
        let no_end = self.wants_no_end();
        let now = Instant::now();
        self.progress.first_token.get_or_insert(now);
        self.progress.figures.generated += 1;
        let generated = self.progress.figures.generated;
        if vocabulary.is_end(token) {
            let text = self.assembler.finish();
            return Ok((None, self.end(now, FinishReason::Stop, text)));
        }
        self.sampler.accept(token)?;
        let shown = usize::try_from(token).ok().and_then(|t| self.shown.get(t)) == Some(&true);
        let bytes = if shown {
            vocabulary.token_bytes(token, true)
        } else {
            Vec::new()
        };
        let out = self.assembler.push(&bytes);
        let piece = Piece::Token {
            choice: self.index,
            token,
            text: out.text,
            logprob,
        };
        let reason = if out.stopped {
            Some(FinishReason::Stop)
        } else if generated >= self.max_tokens || position + 1 >= context_tokens {
            Some(FinishReason::Length)
        } else if self.sampler.is_finished() && !no_end {
            Some(FinishReason::Stop)
        } else {
            None
        };
        let verdict = match reason {
            None => Verdict::Continue,
            Some(reason) => {
                let text = if out.stopped {
                    String::new()
                } else {
                    self.assembler.finish()
                };
                self.end(now, reason, text)
            }
        };
        Ok((Some(piece), verdict))
    }

    fn end(&mut self, now: Instant, reason: FinishReason, text: String) -> Verdict {
        let ms = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from).as_secs_f64() * 1e3,
            _ => 0.0,
        };
        let progress = &mut self.progress;
        progress.figures.prompt_ms = ms(progress.started, progress.first_token);
        progress.figures.decode_ms = ms(progress.first_token, Some(now));
        Verdict::End { reason, text }
    }
}
