//! What a plan says: who runs which layers, what that takes, and how fast it will be.

use std::fmt::{Debug, Display};
use std::ops::Range;
use std::time::Duration;

use super::candidate::Pool;
use super::ring::Ring;
use super::share::Share;
use super::track::{Track, bytes};
use super::{PREFILL_CHUNK_ROWS, speed::ATTOSECONDS_PER_SECOND};

/// A way to run a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<I> {
    /// The machine with prompt, embedding, last layers and head.
    pub host: I,
    /// Workers from the first layers on, then the host. A single stage is the whole model.
    pub stages: Vec<Stage<I>>,
    /// Streams that the plan is for.
    pub sequences: u32,
    /// Time of all hops of one token.
    pub ring_delay: Duration,
    /// Time from one token to the next, for one stream.
    pub token_time: Duration,
    /// Time of the head, which the first token of an answer needs once.
    pub head_time: Duration,
    /// Tokens a second of one stream.
    pub tokens_per_second: f64,
    /// Tokens a second of all streams together. Rows are counted one by one, so this is a lower
    /// bound: rows that a stage evaluates in one batch cost less.
    pub tokens_per_second_full: f64,
}

/// The part of one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage<I> {
    /// Which machine.
    pub id: I,
    /// Its layers.
    pub layers: Range<u32>,
    /// Bytes of its weights, the host's with embedding and head.
    pub weight_bytes: u64,
    /// Bytes of its KV cache and states.
    pub kv_bytes: u64,
    /// Bytes in all: weights × 1.1 and cache.
    pub needed_bytes: u64,
    /// Bytes that the machine gives.
    pub memory_bytes: u64,
    /// Bytes of weights that it lacks.
    pub fetch_bytes: u64,
    /// Round trip to the next machine of the ring; `None` when there is only one.
    pub next_round_trip: Option<Duration>,
    /// Time of its layers, and the host's head, for one token.
    pub token_time: Duration,
    /// Time to read all weights of its layers once. With experts that is more than one token needs.
    pub weights_time: Duration,
    /// Time of its layers for one row of a prompt.
    pub prefill_row_time: Duration,
}

impl<I> Plan<I> {
    /// True when one machine runs everything.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.stages.len() == 1
    }

    /// Bytes that all machines together must fetch.
    #[must_use]
    pub fn fetch_bytes(&self) -> u64 {
        let bytes = self.stages.iter().map(|stage| stage.fetch_bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Time from a prompt of so many tokens to the first token of the answer.
    ///
    /// Chunks of rows follow each other through the ring, so that all stages work at once: the first one
    /// passes every stage, and each further one adds the time of the slowest. A chunk is never faster
    /// than reading the weights that it needs, which with experts are soon all.
    #[must_use]
    pub fn first_token_time(&self, prompt_tokens: u32) -> Duration {
        let chunks = prompt_tokens.div_ceil(PREFILL_CHUNK_ROWS).max(1);
        let rows = f64::from(prompt_tokens) / f64::from(chunks);
        let times = self.stages.iter().map(|stage| {
            let compute = rows * stage.prefill_row_time.as_secs_f64();
            let token = rows.max(1.0) * stage.token_time.as_secs_f64();
            compute.max(token.min(stage.weights_time.as_secs_f64()))
        });
        let (sum, slowest) = times.fold((0.0, 0.0f64), |(sum, most), time| {
            (sum + time, most.max(time))
        });
        let prefill = sum + f64::from(chunks - 1) * slowest;
        Duration::try_from_secs_f64(prefill)
            .unwrap_or(Duration::MAX)
            .saturating_add(self.ring_delay)
            .saturating_add(self.head_time)
    }
}

/// What a plan is made from.
pub(super) struct Outcome<'a, I> {
    pub(super) pool: &'a Pool<I>,
    pub(super) track: &'a Track,
    pub(super) sequences: u32,
}

impl<I: Copy + Ord + Debug + Display> Outcome<'_, I> {
    /// Everything on one machine.
    pub(super) fn whole(&self, place: usize) -> Plan<I> {
        let stage = 0..self.track.pieces();
        self.plan(vec![self.stage(place, &stage, true, None)], 0)
    }

    /// A ring.
    pub(super) fn ring(&self, ring: &Ring, share: &Share) -> Plan<I> {
        let last = ring.order.len() - 1;
        let next = ring.order.iter().cycle().skip(1);
        let members = ring.order.iter().zip(next).zip(&share.stages).enumerate();
        let stages = members.map(|(index, ((&place, &next), stage))| {
            self.stage(place, stage, index == last, Some(next))
        });
        self.plan(stages.collect(), ring.delay)
    }

    fn stage(
        &self,
        place: usize,
        stage: &Range<usize>,
        host: bool,
        next: Option<usize>,
    ) -> Stage<I> {
        let candidate = &self.pool.candidates()[place];
        let track = self.track;
        let (ends, ends_tenths, head) = if host {
            (track.host_bytes(), track.host_tenths(), track.head_active())
        } else {
            (0, 0, 0)
        };
        let weight_bytes = track.weights(stage.clone()) + ends;
        let active = track.active(stage.clone());
        Stage {
            id: candidate.id,
            layers: track.layers(stage.clone()),
            weight_bytes,
            kv_bytes: track.kv(stage.clone()),
            needed_bytes: bytes(track.tenths(stage.clone()) + ends_tenths),
            memory_bytes: candidate.memory_bytes,
            fetch_bytes: if candidate.has_weights {
                0
            } else {
                weight_bytes
            },
            next_round_trip: next.and_then(|next| self.pool.between(place, next)),
            token_time: duration((active + head) * candidate.speed.decode()),
            weights_time: duration(
                u128::from(track.weights(stage.clone())) * candidate.speed.decode(),
            ),
            prefill_row_time: duration(active * candidate.speed.prefill()),
        }
    }

    fn plan(&self, stages: Vec<Stage<I>>, delay: u128) -> Plan<I> {
        let ring_delay = duration(delay);
        let times = stages.iter().map(|stage| stage.token_time);
        let token_time = times.fold(ring_delay, Duration::saturating_add);
        let slowest = stages.iter().map(|stage| stage.token_time).max();
        let tokens_per_second = rate(token_time);
        // Streams share the ring: so many tokens a turn, and never more than the slowest stage passes on.
        let tokens_per_second_full =
            (tokens_per_second * f64::from(self.sequences)).min(rate(slowest.unwrap_or_default()));
        // There is always a stage, and the host's is the last.
        let host = stages[stages.len() - 1].id;
        let speed = self
            .pool
            .place(host)
            .map(|place| self.pool.candidates()[place].speed);
        let head_time = speed.map(|speed| duration(speed.decode() * self.track.head_active()));
        Plan {
            host,
            head_time: head_time.unwrap_or_default(),
            stages,
            sequences: self.sequences,
            ring_delay,
            token_time,
            tokens_per_second,
            tokens_per_second_full,
        }
    }
}

/// Tokens a second; a model without weights takes a nanosecond.
fn rate(time: Duration) -> f64 {
    1.0 / time.as_secs_f64().max(1e-9)
}

fn duration(attoseconds: u128) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "sixteen digits are plenty")]
    let seconds = attoseconds as f64 / ATTOSECONDS_PER_SECOND;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
