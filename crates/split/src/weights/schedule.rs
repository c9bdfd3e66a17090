//! Owns the decision which chunk is asked of which source next. Pure: events and the time go in,
//! batches come out.
//!
//! - Nearer sources first: a farther one gets only chunks that no usable nearer one has.
//! - Among those, chunks that the fewest sources have go first.
//! - A source takes its next batch when one is done, and batches hold about a second's worth, so
//!   that faster sources get more.
//! - What fails goes back, and to others. A source rests after a fault, longer each time.
//! - When nothing is left to ask for, idle sources fetch what slow ones still owe.

mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pool::Pool;

use super::chunk::CHUNK_BYTES;
use super::source::{Fault, Tier};
use super::wire::CHUNKS_PER_ASK;

/// Most sources of one fetch: more do not make it faster, and each is a bit of a mask.
pub(crate) const SOURCES_MAX: usize = 32;

/// Batches of one source at a time: over QUIC, four streams carry three times as much as one.
const BATCHES_PER_SOURCE: usize = 4;

/// Most bytes of a batch: what is lost at worst when its source breaks off.
const BATCH_BYTES_MAX: u64 = 16 << 20;

/// How long a batch should take.
const BATCH_SECONDS: f64 = 1.0;

/// How long a batch may be quiet before idle sources fetch the same.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// How long a source may be quiet before farther ones are asked in its place.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Chunks with wrong bytes after which a source is left out. One may be a disk's mistake.
const OFFENCES_MAX: u32 = 3;

/// Faults in a row after which a source is left out: it rested for 15 seconds by then.
const FAULTS_MAX: u32 = 6;

/// Rest after the first fault. Doubles with each.
const REST_MIN: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct SourceState {
    tier: Tier,
    /// Why it is left out.
    out: Option<String>,
    rest_until: Duration,
    /// When the last fault was counted.
    fault_at: Option<Duration>,
    faults: u32,
    offences: u32,
    /// Of a batch, in bytes per second.
    rate: Option<f64>,
    batches: usize,
    /// When it last gave something or was asked for the first of its batches.
    active: Duration,
}

#[derive(Debug)]
struct Batch {
    source: usize,
    chunks: BTreeSet<u32>,
    started: Duration,
    active: Duration,
    bytes: u64,
}

/// A batch to be asked for. Every one must be ended by [`Schedule::ended`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) batch: u64,
    pub(crate) source: usize,
    pub(crate) chunks: Vec<u32>,
}

/// Why a chunk did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The bytes were wrong.
    Corrupt,
    /// The source does not have it.
    Missing,
}

/// All chunks, all sources, and what is under way.
#[derive(Debug)]
pub(crate) struct Schedule {
    pool: Pool,
    sources: Vec<SourceState>,
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
}

impl Schedule {
    /// Chunks of these sizes in bytes, some of which are there already.
    pub(crate) fn new(sizes: Vec<u32>, done: &[bool]) -> Self {
        Self {
            pool: Pool::new(sizes, done),
            sources: Vec::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
        }
    }

    /// A source that has these chunks. `None` when there are too many sources.
    pub(crate) fn add_source(&mut self, tier: Tier, has: impl Fn(usize) -> bool) -> Option<usize> {
        let number = self.sources.len();
        if number >= SOURCES_MAX {
            return None;
        }
        self.sources.push(SourceState {
            tier,
            out: None,
            rest_until: Duration::ZERO,
            fault_at: None,
            faults: 0,
            offences: 0,
            rate: None,
            batches: 0,
            active: Duration::ZERO,
        });
        self.pool.add_source(number, has);
        Some(number)
    }

    /// True when every chunk is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.pool.is_complete()
    }

    /// A chunk that nobody can give any more.
    pub(crate) fn stuck(&self) -> Option<u32> {
        self.pool.stuck()
    }

    /// Why a source is left out, if it is.
    pub(crate) fn out(&self, source: usize) -> Option<&str> {
        self.sources.get(source)?.out.as_deref()
    }

    /// The next batch to ask for, if any.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Order> {
        let mut order: Vec<_> = (0..self.sources.len())
            .filter(|&s| self.is_ready(s, now) && self.sources[s].batches < BATCHES_PER_SOURCE)
            .collect();
        order.sort_by_key(|&s| (self.sources[s].tier, self.sources[s].batches, s));
        let (source, chunks) = order.into_iter().find_map(|source| {
            let mut chunks = self.choose(source, now);
            if chunks.is_empty() {
                chunks = self.choose_again(source, now);
            }
            (!chunks.is_empty()).then_some((source, chunks))
        })?;
        for &chunk in &chunks {
            self.pool.take_off(chunk);
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        let state = &mut self.sources[source];
        if state.batches == 0 {
            state.active = now;
        }
        state.batches += 1;
        self.batches.insert(
            batch,
            Batch {
                source,
                chunks: chunks.iter().copied().collect(),
                started: now,
                active: now,
                bytes: 0,
            },
        );
        Some(Order {
            batch,
            source,
            chunks,
        })
    }

    /// A chunk has come and is what it should be. False if it was there already.
    pub(crate) fn arrived(&mut self, batch: u64, chunk: u32, now: Duration) -> bool {
        let size = self.pool.size(chunk);
        if let Some(batch) = self.batches.get_mut(&batch) {
            batch.chunks.remove(&chunk);
            batch.active = now;
            batch.bytes += size;
            let seconds = now.saturating_sub(batch.started).as_secs_f64().max(1e-3);
            let source = &mut self.sources[batch.source];
            source.rate = Some(batch.bytes as f64 / seconds);
            source.active = now;
            source.faults = 0;
        }
        self.pool.land(chunk)
    }

    /// A chunk did not come, but others may.
    pub(crate) fn refused(&mut self, batch: u64, chunk: u32, why: Refused) {
        let Some(batch) = self.batches.get_mut(&batch) else {
            return;
        };
        if !batch.chunks.remove(&chunk) {
            return;
        }
        let source = batch.source;
        self.pool.refuse(chunk, source, why == Refused::Missing);
        if why == Refused::Corrupt {
            self.sources[source].offences += 1;
            if self.sources[source].offences >= OFFENCES_MAX {
                self.leave_out(source, "it sends wrong bytes".to_owned());
            }
        }
    }

    /// A batch is over; whatever it still owes goes to others.
    pub(crate) fn ended(&mut self, batch: u64, result: Result<(), Fault>, now: Duration) {
        let Some(batch) = self.batches.remove(&batch) else {
            return;
        };
        self.sources[batch.source].batches -= 1;
        for &chunk in &batch.chunks {
            self.pool.put_back(chunk);
        }
        let result = match result {
            Ok(()) if !batch.chunks.is_empty() => {
                Err(Fault::Broken("it gives less than it promised".to_owned()))
            }
            result => result,
        };
        match result {
            Ok(()) => {}
            Err(Fault::Gone(why)) => self.leave_out(batch.source, why),
            Err(Fault::Broken(why)) => {
                let source = &mut self.sources[batch.source];
                // Batches that were under way together fail together, and count once.
                if source.fault_at.is_some_and(|at| batch.started < at) {
                    return;
                }
                source.fault_at = Some(now);
                source.faults += 1;
                source.rest_until = now + REST_MIN * 2u32.pow(source.faults.min(FAULTS_MAX) - 1);
                if source.faults >= FAULTS_MAX {
                    self.leave_out(batch.source, why);
                }
            }
        }
    }

    /// When to call [`Schedule::next`] again, if nothing happens before.
    pub(crate) fn wake_at(&self, now: Duration) -> Option<Duration> {
        let resting = self.sources.iter().filter(|s| s.out.is_none());
        let resting = resting.flat_map(|s| {
            let stalls = (s.batches > 0).then_some(s.active + STALLED_AFTER);
            [Some(s.rest_until), stalls]
        });
        let quiet = self.batches.values().map(|b| Some(b.active + QUIET_MAX));
        let times = resting.chain(quiet).flatten();
        times.filter(|&at| at > now).min()
    }

    /// Whether a source may be asked now.
    fn is_ready(&self, source: usize, now: Duration) -> bool {
        let source = &self.sources[source];
        source.out.is_none() && now >= source.rest_until
    }

    /// Whether a source is ready and gives something.
    fn is_usable(&self, source: usize, now: Duration) -> bool {
        let state = &self.sources[source];
        let stalled = state.batches > 0 && now >= state.active + STALLED_AFTER;
        self.is_ready(source, now) && !stalled
    }

    /// How many bytes a source's next batch may have.
    fn budget(&self, source: usize) -> u64 {
        let rate = self.sources[source].rate.unwrap_or(0.0);
        let bytes = (rate * BATCH_SECONDS) as u64;
        bytes.clamp(CHUNK_BYTES.into(), BATCH_BYTES_MAX)
    }

    /// Takes chunks as they come, up to the budget; at least one.
    fn fill(&self, source: usize, chunks: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut left = self.budget(source);
        let mut out = Vec::new();
        for chunk in chunks.take(CHUNKS_PER_ASK) {
            let size = self.pool.size(chunk);
            if size > left && !out.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            out.push(chunk);
        }
        out
    }

    /// Wanted chunks for a source.
    fn choose(&self, source: usize, now: Duration) -> Vec<u32> {
        let own = 1u32 << source;
        let mask = |keep: &dyn Fn(usize) -> bool| {
            let all = 0..self.sources.len();
            all.filter(|&s| keep(s)).fold(0u32, |m, s| m | 1 << s)
        };
        let usable = mask(&|s| self.is_usable(s, now));
        let tier = self.sources[source].tier;
        let nearer = usable & mask(&|s| self.sources[s].tier < tier);
        let classes = self.pool.classes().iter();
        classes
            .filter(|(askable, _)| *askable & own != 0 && *askable & nearer == 0)
            .min_by_key(|(askable, _)| ((*askable & usable).count_ones(), **askable))
            .map(|(_, chunks)| self.fill(source, chunks.iter().copied()))
            .unwrap_or_default()
    }

    /// Chunks of the batch that has been quiet for longest, for a source with nothing else to do.
    fn choose_again(&self, source: usize, now: Duration) -> Vec<u32> {
        let tail = self.pool.classes().is_empty();
        let tier = self.sources[source].tier;
        let mut quiet: Vec<_> = self
            .batches
            .values()
            .filter(|b| b.source != source && now >= b.active + QUIET_MAX)
            .filter(|b| tail || tier <= self.sources[b.source].tier)
            .collect();
        quiet.sort_by_key(|b| b.active);
        let may = |chunk: &u32| self.pool.may_double(*chunk, source);
        let mut all = quiet.iter().map(|b| {
            let chunks = b.chunks.iter().copied().filter(may);
            self.fill(source, chunks)
        });
        all.find(|chunks| !chunks.is_empty()).unwrap_or_default()
    }

    fn leave_out(&mut self, source: usize, why: String) {
        self.sources[source].out.get_or_insert(why);
        self.pool.leave_out(source);
    }
}

#[cfg(test)]
mod tests;
