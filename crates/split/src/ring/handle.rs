//! The ring as the decode thread uses it: operations and rows go in, rows come out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh::NodeId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::RingPlan;
use super::control::Counters;
use super::ledger::Ledger;
use super::pump::Outgoing;
use crate::fault::Loss;
use crate::handover::{self, ROWS_MAX, Seat};
use crate::layers::Rows;
use crate::pace::{Steps, Work};
use crate::trail::{Trail, TrailRoom};
use crate::wire::{CacheOp, Frame, OPS_MAX, Outcome, encode_frame};

/// Why the ring did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A stage had no room in its KV cache. Those before it hold the rows, it and those behind it do not, and
    /// it takes no rows that follow them: receive what is in flight, then cut the sequences back.
    #[error("no room in the KV cache")]
    NoRoom,
    /// The ring is broken for good.
    #[error("the model's other machines are lost: {0}")]
    Lost(Loss),
    /// The caller's rows can't be sent; nothing has changed.
    #[error("{0}")]
    Input(String),
    /// The memory of recurrent layers can be forgotten only as a whole; nothing has changed.
    #[error("sequence {sequence} can't be cut at {from}; hint: at 0, or at its end")]
    Cut {
        /// Which sequence.
        sequence: u32,
        /// Where it was to be cut.
        from: u32,
    },
    /// As many frames are in flight as may be: receive one first.
    #[error("{frames} frames are in flight")]
    Full {
        /// How many.
        frames: usize,
    },
}

/// The way of a frame round the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameTrip {
    /// From the moment it was sent until it was taken in.
    pub total: Duration,
    /// Of that, what the stages have spent computing, as they say.
    pub computing: Duration,
}

/// What one worker has done, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Who.
    pub node: NodeId,
    /// Frames that it has received.
    pub received: u64,
    /// Frames that it has passed on.
    pub sent: u64,
    /// What it has computed.
    pub work: Work,
    /// It is about to stop, and waits for this host to go elsewhere.
    pub is_leaving: bool,
}

/// Sees how a ring fares. Cheap to clone; holds nothing up.
#[derive(Debug, Clone)]
pub struct RingWatch {
    lost: watch::Receiver<Option<Loss>>,
    workers: Vec<(NodeId, Arc<Counters>)>,
    steps: Arc<Mutex<Steps>>,
    release: CancellationToken,
}

impl RingWatch {
    /// Waits until the ring is broken; `None` if it was let go before.
    pub async fn lost(&mut self) -> Option<Loss> {
        let lost = self.lost.wait_for(Option::is_some).await;
        lost.ok().and_then(|loss| loss.clone())
    }

    /// The workers in the order of the ring.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let status = self.workers.iter().map(|(node, counters)| {
            let last = counters.last();
            WorkerStatus {
                node: *node,
                received: last.received,
                sent: last.sent,
                work: last.work,
                is_leaving: last.is_leaving,
            }
        });
        status.collect()
    }

    /// Steps of single streams so far.
    #[must_use]
    pub fn steps(&self) -> Steps {
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the ring go, whoever still holds it: the workers are told that they are free.
    pub fn let_go(&self) {
        self.release.cancel();
    }
}

/// What a ring is made of once it stands.
pub(crate) struct Opened {
    pub(super) plan: RingPlan,
    pub(super) kv_tokens: u32,
    pub(super) is_recurrent: bool,
    /// The epoch that each worker remembers.
    pub(super) remembered: Vec<Option<u32>>,
    pub(super) trails: Arc<TrailRoom>,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) steps: Arc<Mutex<Steps>>,
    pub(super) frames_max: usize,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) returned: mpsc::Receiver<Frame>,
    pub(super) seat: Arc<Seat>,
    pub(super) lost: watch::Receiver<Option<Loss>>,
    pub(super) release: CancellationToken,
}

/// Stages on other machines, in their order. Dropping it tells the workers that they are free.
///
/// Frames may follow each other before the first is back: [`submit`](Self::submit) and
/// [`receive`](Self::receive), at most [`frames_max`](Self::frames_max) at a time.
pub struct Ring {
    plan: RingPlan,
    kv_tokens: u32,
    frames_max: usize,
    watch: RingWatch,
    outgoing: mpsc::Sender<Outgoing>,
    returned: mpsc::Receiver<Frame>,
    seat: Arc<Seat>,
    /// Frames sent one after the other with nothing else in flight.
    alone: u32,
    /// What happens to the KV caches before the next rows.
    ops: Vec<CacheOp>,
    /// What the stages hold.
    ledger: Ledger,
    /// The rows that went to the first of them.
    trail: Trail,
    /// The epoch that each worker remembered when it was raised.
    remembered: Vec<Option<u32>>,
    number: u64,
    /// When each frame in flight was sent, those without rows among them.
    in_flight: VecDeque<Instant>,
    trip: FrameTrip,
    _release: DropGuard,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("plan", &self.plan)
            .field("number", &self.number)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

impl Ring {
    pub(crate) fn new(opened: Opened) -> Self {
        let nodes = opened.plan.workers.iter().map(|seat| seat.node);
        let watch = RingWatch {
            lost: opened.lost,
            workers: nodes.zip(opened.counters).collect(),
            steps: opened.steps,
            release: opened.release.clone(),
        };
        let (sequences, width) = (opened.plan.sequences, opened.plan.width);
        // Whoever does not restore what workers remember begins anew.
        let remembers = opened.remembered.iter().any(Option::is_some);
        Self {
            kv_tokens: opened.kv_tokens,
            frames_max: opened.frames_max,
            watch,
            outgoing: opened.outgoing,
            returned: opened.returned,
            seat: opened.seat,
            alone: 0,
            ops: remembers.then_some(CacheOp::Clear).into_iter().collect(),
            ledger: Ledger::new(sequences, opened.is_recurrent),
            trail: Trail::new(opened.trails, width, sequences),
            remembered: opened.remembered,
            number: 0,
            in_flight: VecDeque::with_capacity(opened.frames_max),
            trip: FrameTrip::default(),
            _release: opened.release.drop_guard(),
            plan: opened.plan,
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn plan(&self) -> &RingPlan {
        &self.plan
    }

    /// KV cells of the stage that has the fewest.
    #[must_use]
    pub fn kv_tokens(&self) -> u32 {
        self.kv_tokens
    }

    /// Most frames in flight: two for each stage, the host's among them, and one for operations that go alone.
    #[must_use]
    pub fn frames_max(&self) -> usize {
        self.frames_max
    }

    /// Frames with rows that may be in flight.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.frames_max.saturating_sub(1).max(1)
    }

    /// Where the thread sits that waits for [`receive`](Self::receive): frames of a single stream are handed to it on
    /// the core that has read them.
    #[must_use]
    pub fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }

    /// How the ring fares, for others to see.
    #[must_use]
    pub fn watch(&self) -> RingWatch {
        self.watch.clone()
    }

    /// Sends rows on their way, and what has happened to the KV cache since the last ones.
    ///
    /// # Errors
    /// [`RingError::Input`], [`RingError::Full`], [`RingError::Lost`].
    pub async fn submit(&mut self, rows: &Rows<'_>) -> Result<(), RingError> {
        self.check(rows)?;
        self.room()?;
        self.ledger.rows(rows.positions, rows.sequences);
        self.trail.push(rows.positions, rows.sequences, rows.hidden);
        let ops = std::mem::take(&mut self.ops);
        let (positions, sequences) = (rows.positions.to_vec(), rows.sequences.to_vec());
        self.send(ops, positions, sequences, rows.hidden.to_vec())
            .await
    }

    /// Waits for the oldest rows in flight; `out` is replaced by what the last stage made of them.
    ///
    /// # Errors
    /// [`RingError::NoRoom`], [`RingError::Lost`]; [`RingError::Input`] if there are none.
    pub async fn receive(&mut self, out: &mut Vec<f32>) -> Result<(), RingError> {
        loop {
            let frame = self.next().await?;
            match frame.outcome {
                Outcome::NoRoom => return Err(RingError::NoRoom),
                // Operations that went alone.
                Outcome::Rows if frame.positions.is_empty() => {}
                Outcome::Rows => {
                    *out = frame.hidden;
                    return Ok(());
                }
            }
        }
    }

    /// The oldest frame in flight.
    pub(super) async fn next(&mut self) -> Result<Frame, RingError> {
        let Some(&sent) = self.in_flight.front() else {
            return Err(RingError::Input("no rows are in flight".to_owned()));
        };
        let Some(frame) = self.returned.recv().await else {
            return Err(self.loss().await);
        };
        self.in_flight.pop_front();
        self.ledger.returned(frame.outcome == Outcome::Rows);
        let total = sent.elapsed();
        self.trip = FrameTrip {
            total,
            // Nobody can have computed for longer than it took.
            computing: Duration::from_micros(frame.busy_us.into()).min(total),
        };
        Ok(frame)
    }

    /// The way of the frame that was received last.
    #[must_use]
    pub fn trip(&self) -> FrameTrip {
        self.trip
    }

    /// Sends rows round the ring and waits for them, when nothing else is in flight.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`receive`](Self::receive).
    pub async fn run(&mut self, rows: &Rows<'_>, out: &mut Vec<f32>) -> Result<(), RingError> {
        self.submit(rows).await?;
        self.receive(out).await
    }

    /// Makes the first `tokens` positions of `from` also those of `to`, in all stages, before the next
    /// rows.
    ///
    /// # Errors
    /// [`RingError::Input`], [`RingError::Full`], [`RingError::Lost`].
    pub async fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), RingError> {
        self.known(from.into())?;
        self.known(to.into())?;
        if from == to {
            return Ok(());
        }
        self.op(CacheOp::Copy { from, to, tokens }).await?;
        self.ledger.copy(from, to, tokens);
        self.trail.copy(from, to, tokens);
        Ok(())
    }

    /// Makes all stages forget a sequence from position `from` on, before the next rows.
    ///
    /// # Errors
    /// As [`copy`](Self::copy), and [`RingError::Cut`].
    pub async fn cut(&mut self, sequence: u32, from: u32) -> Result<(), RingError> {
        self.known(sequence.into())?;
        if self.ledger.is_recurrent() && from != 0 && from < self.ledger.length(sequence) {
            return Err(RingError::Cut { sequence, from });
        }
        self.op(CacheOp::Cut { sequence, from }).await?;
        self.ledger.cut(sequence, from);
        self.trail.cut(sequence, from);
        Ok(())
    }

    /// Makes all stages forget everything, before the next rows. Waits for the rows in flight, which nobody
    /// receives any more.
    ///
    /// # Errors
    /// [`RingError::Lost`], if that is known already.
    pub async fn clear(&mut self) -> Result<(), RingError> {
        while !self.in_flight.is_empty() {
            self.next().await?;
        }
        // Whatever was to happen before does not matter any more.
        self.ops.clear();
        self.op(CacheOp::Clear).await?;
        self.ledger.clear();
        self.trail.clear();
        Ok(())
    }

    /// Reduces `held`, the positions of each sequence that the caller has any use for, to what all stages hold of
    /// them, and makes them forget the rest before the next rows. What is in flight is lost.
    ///
    /// # Errors
    /// As [`clear`](Self::clear).
    pub async fn hold(&mut self, held: &mut [u32]) -> Result<(), RingError> {
        if !self.in_flight.is_empty() {
            held.fill(0);
            return self.clear().await;
        }
        for (sequence, held) in (0..).zip(held) {
            let length = self.ledger.length(sequence);
            let mut wanted = length.min(*held);
            if self.ledger.is_recurrent() && wanted < length {
                wanted = 0;
            }
            if wanted < length {
                self.cut(sequence, wanted).await?;
            }
            *held = wanted;
        }
        Ok(())
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn remembered(&self) -> &[Option<u32>] {
        &self.remembered
    }

    pub(super) fn into_parts(self) -> (Ledger, Trail) {
        (self.ledger, self.trail)
    }

    /// Nothing is to happen before the next rows.
    pub(super) fn forget_ops(&mut self) {
        self.ops.clear();
    }

    /// Something is, which ledger and trail know already.
    pub(super) fn push_op(&mut self, op: CacheOp) {
        self.ops.push(op);
    }

    pub(super) fn take_over(&mut self, ledger: Ledger, trail: Trail) {
        (self.ledger, self.trail) = (ledger, trail);
    }

    async fn op(&mut self, op: CacheOp) -> Result<(), RingError> {
        if self.outgoing.is_closed() {
            return Err(self.loss().await);
        }
        if self.ops.len() >= OPS_MAX as usize {
            self.room()?;
            let ops = std::mem::take(&mut self.ops);
            self.send(ops, Vec::new(), Vec::new(), Vec::new()).await?;
        }
        self.ops.push(op);
        Ok(())
    }

    /// Whether another frame may be in flight.
    fn room(&self) -> Result<(), RingError> {
        let frames = self.in_flight.len();
        match frames < self.frames_max {
            true => Ok(()),
            false => Err(RingError::Full { frames }),
        }
    }

    /// Sends a frame; the caller has told the ledger of it.
    pub(super) async fn send(
        &mut self,
        ops: Vec<CacheOp>,
        positions: Vec<i32>,
        sequences: Vec<i32>,
        hidden: Vec<f32>,
    ) -> Result<(), RingError> {
        self.room()?;
        let sent = Instant::now();
        let rows = u32::try_from(positions.len()).unwrap_or(u32::MAX);
        let number = self.number;
        let frame = Frame {
            epoch: self.plan.epoch,
            number,
            ops,
            outcome: Outcome::Rows,
            busy_us: 0,
            positions,
            sequences,
            hidden,
        };
        let replays = frame.replay().is_some();
        let bytes = encode_frame(&frame, self.plan.width, self.plan.precision);
        let outgoing = Outgoing {
            number,
            rows,
            replays,
            bytes,
        };
        self.alone = match self.in_flight.is_empty() {
            true => self.alone.saturating_add(1),
            false => 0,
        };
        // Of a single stream: this thread has nothing to do until it is back.
        if self.alone > 1 && rows as usize <= ROWS_MAX {
            handover::call_runtime();
        }
        if self.outgoing.send(outgoing).await.is_err() {
            return Err(self.loss().await);
        }
        self.number += 1;
        self.ledger.sent();
        self.in_flight.push_back(sent);
        Ok(())
    }

    /// Why the ring is broken; known shortly after it broke.
    async fn loss(&mut self) -> RingError {
        let loss = self.watch.lost().await;
        RingError::Lost(loss.unwrap_or_else(|| Loss {
            suspect: None,
            accuser: None,
            text: "this node stops".to_owned(),
        }))
    }

    fn check(&self, rows: &Rows<'_>) -> Result<(), RingError> {
        let count = rows.positions.len();
        let input = |text: String| Err(RingError::Input(text));
        if count == 0 || count > self.plan.rows_max as usize {
            return input(format!(
                "{count} rows; hint: from 1 to {}",
                self.plan.rows_max
            ));
        }
        if rows.sequences.len() != count {
            let sequences = rows.sequences.len();
            return input(format!("{sequences} sequences for {count} rows"));
        }
        if rows.hidden.len() != count * self.plan.width as usize {
            let values = rows.hidden.len();
            return input(format!("{values} values for {count} rows"));
        }
        if rows.positions.iter().any(|position| *position < 0) {
            return input("a position is negative".to_owned());
        }
        rows.sequences
            .iter()
            .try_for_each(|sequence| self.known((*sequence).into()))?;
        match crate::worker::is_finite(rows.hidden) {
            true => Ok(()),
            false => input("rows hold values that are no numbers".to_owned()),
        }
    }

    fn known(&self, sequence: i64) -> Result<(), RingError> {
        match (0..i64::from(self.plan.sequences)).contains(&sequence) {
            true => Ok(()),
            false => Err(RingError::Input(format!("there is no sequence {sequence}"))),
        }
    }
}
