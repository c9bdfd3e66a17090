//! From logits to tokens: what the decode thread draws for each job, and whom it tells.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;

use super::choice::{Piece, Verdict};
use super::decode::DecodeLoop;
use crate::scheduler::{JobKey, Keep, RecallId, Row, Step};
use crate::{Error, FinishReason, TokenId};

impl DecodeLoop {
    /// Draws from every output row and tells scheduler and consumers.
    pub(super) fn sample(&mut self, step: &Step) {
        let mut index = 0;
        while index < step.rows.len() {
            let key = step.rows[index].key;
            let end = step.rows[index..].iter().position(|r| r.key != key);
            let end = end.map_or(step.rows.len(), |n| index + n);
            if step.rows[end - 1].output {
                self.sample_job(key, &step.rows[index..end], index);
            }
            index = end;
        }
    }

    /// Draws the first tokens of jobs whose prompts came before.
    pub(super) fn sample_recalled(&mut self, recalled: Vec<(JobKey, RecallId)>) {
        for (key, id) in recalled {
            self.sample_kept(key, id);
        }
    }

    fn sample_kept(&mut self, key: JobKey, id: RecallId) {
        let Some((request, choice)) = self.state.choices.get_mut(&key) else {
            return;
        };
        let request = *request;
        let position = self.scheduler.tokens(key).map_or(0, <[TokenId]>::len);
        let model = self.forward.model().clone();
        // The sampler writes to what it is given.
        let drawn = match self.state.logits.get(&id).cloned() {
            None => Err(Error::Inference("the kept logits are gone".into())),
            Some(mut logits) => choice.step(
                model.vocabulary(),
                &self.ends,
                &mut logits,
                position,
                self.context_tokens,
            ),
        };
        match drawn {
            Ok(drawn) => {
                let mut draws = Draws::default();
                if let Some(running) = self.state.requests.get(&request) {
                    draws.take(drawn, &running.pieces);
                }
                self.conclude(key, draws);
            }
            Err(error) => self.end_request(request, Some(error)),
        }
    }

    /// `rows`: those of one job; `first`: index of the first of them in the batch.
    fn sample_job(&mut self, key: JobKey, rows: &[Row], first: usize) {
        let Some((request, choice)) = self.state.choices.get_mut(&key) else {
            return;
        };
        let request = *request;
        let Some(running) = self.state.requests.get(&request) else {
            return;
        };
        let model = self.forward.model().clone();
        let mut draws = Draws::default();
        for (offset, row) in rows.iter().enumerate().filter(|(_, r)| r.output) {
            let drawn = match self.forward.logits(first + offset) {
                None => Err(Error::Inference("llama.cpp gave no logits".into())),
                Some(logits) => {
                    if let Some(Keep { id, gone }) = self.scheduler.keep_logits(key) {
                        self.state.logits.retain(|id, _| !gone.contains(id));
                        self.state.logits.insert(id, logits.to_vec());
                    }
                    choice.step(
                        model.vocabulary(),
                        &self.ends,
                        logits,
                        row.position + 1,
                        self.context_tokens,
                    )
                }
            };
            let drawn = match drawn {
                Ok(drawn) => drawn,
                Err(error) => return self.end_request(request, Some(error)),
            };
            let token = drawn.0;
            draws.take(drawn, &running.pieces);
            let refuted = rows.get(offset + 1).is_some_and(|next| next.token != token);
            if draws.ended.is_some() || refuted {
                break;
            }
        }
        draws.drafted = rows.iter().filter(|r| r.output).count() - 1;
        self.conclude(key, draws);
    }

    /// Counts what was drawn for a job, and tells the scheduler and, at the end, the consumer.
    fn conclude(&mut self, key: JobKey, draws: Draws) {
        let Some((request, choice)) = self.state.choices.get_mut(&key) else {
            return;
        };
        let request = *request;
        let Some(running) = self.state.requests.get_mut(&request) else {
            return;
        };
        let Draws {
            sampled,
            drafted,
            ended,
        } = draws;
        let accepted = sampled.len().saturating_sub(1);
        choice.progress.figures.drafted += drafted as u32;
        choice.progress.figures.accepted += accepted as u32;
        choice.progress.acceptance.observe(drafted, accepted);
        self.shared
            .drafted_tokens
            .fetch_add(drafted as u64, Relaxed);
        self.shared
            .accepted_tokens
            .fetch_add(accepted as u64, Relaxed);
        self.shared
            .generated_tokens
            .fetch_add(sampled.len() as u64, Relaxed);
        let over = ended.is_some();
        if let Some((reason, text)) = ended {
            let (index, figures) = (choice.index, choice.progress.figures);
            let piece = Piece::Finished {
                choice: index,
                text,
                reason,
                figures,
            };
            let _ = running.pieces.try_send(piece);
            running.open_choices -= 1;
            if running.open_choices == 0 {
                let ms = running.submitted.elapsed().as_millis();
                self.shared
                    .request_ms
                    .store(u32::try_from(ms).unwrap_or(u32::MAX), Relaxed);
                self.shared.requests.fetch_add(1, Relaxed);
                self.state.requests.remove(&request);
            }
        }
        if let Some(op) = self.scheduler.advance(key, &sampled) {
            self.apply(op);
        }
        if over {
            self.end_choice(key);
        }
    }
}

/// What was drawn for a job.
#[derive(Default)]
struct Draws {
    /// Accepted drafts, then one more.
    sampled: Vec<TokenId>,
    /// How many were proposed.
    drafted: usize,
    /// Why the job is over, and its last text.
    ended: Option<(FinishReason, String)>,
}

impl Draws {
    /// Takes in a token, and sends its piece.
    fn take(
        &mut self,
        (token, piece, verdict): (TokenId, Option<Piece>, Verdict),
        pieces: &mpsc::Sender<Piece>,
    ) {
        self.sampled.push(token);
        if let Some(piece) = piece {
            // There is room: jobs without are stalled and get no rows.
            let _ = pieces.try_send(piece);
        }
        if let Verdict::End { reason, text } = verdict {
            self.ended = Some((reason, text));
        }
    }
}
