//! Frames through one stage: read, compute, pass on; each on a task of its own, with short queues
//! between, so that a stage that computes also receives and sends.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Body;
use super::gaps::Gaps;
use super::stage::Counters;
use crate::fault::Fault;
use crate::handover::{self, Seat};
use crate::layers::{LayersError, Rows};
use crate::spec::{Precision, RingId};
use crate::transport::{Duplex, Reading, Writing};
use crate::wire::{CacheOp, Frame, FrameFormat, FrameStreamError, Lease, encode_frame, read_frame};

/// Frames that wait on either side of the computation: one is computed, one waits. What more comes
/// stays in the streams' windows and then with whoever sends.
const QUEUE_FRAMES: usize = 1;

/// Frames that a stage holds at most: read, queued, computed (in and out), queued, written.
pub const FRAMES_HELD_MAX: u64 = 2 * QUEUE_FRAMES as u64 + 4;

/// How long the next stage may take nothing. It may be at its first, slowest step; the host has less
/// patience, this is for when it is gone as well.
const WRITE_MAX: Duration = Duration::from_secs(180);

/// Whose fault, and what happened.
type Breach = (Fault, String);

/// What frames of one stage in one epoch must look like.
pub(super) struct Flow {
    format: FrameFormat,
    ring: RingId,
    epoch: u32,
    place: u32,
    sequences: u32,
    precision: Precision,
    counters: Arc<Counters>,
}

impl Flow {
    pub(super) fn new(lease: &Lease, counters: Arc<Counters>) -> Self {
        Self {
            format: FrameFormat::from(&lease.spec),
            ring: lease.ring,
            epoch: lease.epoch,
            place: lease.place,
            sequences: lease.spec.sequences,
            precision: lease.precision,
            counters,
        }
    }

    /// Passes frames on until `over`, or until something breaks. Gives the layers back unless they
    /// broke.
    pub(super) async fn run(
        self,
        mut body: Body,
        from: Duplex,
        to: Duplex,
        over: impl Future<Output = ()>,
    ) -> (Option<Body>, Option<Breach>) {
        let mut tasks = JoinSet::new();
        let (arrived, mut queue) = mpsc::channel(QUEUE_FRAMES);
        let (leaving, departing) = mpsc::channel(QUEUE_FRAMES);
        let mut gaps = Gaps::default();
        let flow = Arc::new(self);
        tasks.spawn(Arc::clone(&flow).read(from, arrived));
        tasks.spawn(Arc::clone(&flow).write(to, departing));
        let computing = Computing::start(&flow);
        let mut over = std::pin::pin!(over);
        loop {
            let frame = tokio::select! {
                () = &mut over => return (Some(body), None),
                Some(ended) = tasks.join_next() => return (Some(body), Some(breach(ended))),
                Some(frame) = queue.recv() => frame,
            };
            let began = Instant::now();
            let is_alone = queue.is_empty() && frame.positions.len() <= handover::ROWS_MAX;
            let (done, computed) = oneshot::channel();
            computing.give(Job {
                body,
                gaps,
                frame,
                is_alone,
                done,
            });
            let Ok((back, gaps_back, computed)) = computed.await else {
                let text = "the computation ended without a result".to_owned();
                return (None, Some((Fault::Own, text)));
            };
            (body, gaps) = (back, gaps_back);
            let bytes = match computed {
                Ok((bytes, rows)) => {
                    flow.counters.computed(rows, began.elapsed());
                    bytes
                }
                Err((Fault::Own, text)) => {
                    let _ = tokio::task::spawn_blocking(move || drop(body)).await;
                    return (None, Some((Fault::Own, text)));
                }
                Err(breach) => return (Some(body), Some(breach)),
            };
            tokio::select! {
                () = &mut over => return (Some(body), None),
                Some(ended) = tasks.join_next() => return (Some(body), Some(breach(ended))),
                // Fails only if the writer has ended, which the next turn tells.
                _ = leaving.send(bytes) => {}
            }
        }
    }

    async fn read(self: Arc<Self>, mut from: Duplex, arrived: mpsc::Sender<Frame>) -> Breach {
        let mut number = 0;
        loop {
            let frame = match self.next(&mut from.read).await {
                Ok(Some(frame)) => frame,
                Ok(None) => continue,
                Err(breach) => return breach,
            };
            if frame.number != number {
                let text = format!("frame {} came where {number} belongs", frame.number);
                return (Fault::Previous, text);
            }
            number += 1;
            self.counters.received.store(number, Ordering::Relaxed);
            if arrived.send(frame).await.is_err() {
                return (Fault::Own, "the stage has ended".to_owned());
            }
        }
    }

    /// The next frame, checked; `None` for one of an old epoch.
    async fn next(&self, read: &mut Reading) -> Result<Option<Frame>, Breach> {
        let frame = read_frame(read, &self.format).await;
        let frame = frame.map_err(|error| match error {
            FrameStreamError::Broken(_) => (Fault::PreviousGone, error.to_string()),
            FrameStreamError::Wire(error) => (Fault::Previous, error.to_string()),
        })?;
        let Some(frame) = frame else {
            let text = "the previous stage ended its stream".to_owned();
            return Err((Fault::PreviousGone, text));
        };
        if frame.epoch < self.epoch {
            return Ok(None);
        }
        match self.problem(&frame) {
            Some(text) => Err((Fault::Previous, text)),
            None => Ok(Some(frame)),
        }
    }

    /// What is wrong with a frame by itself.
    fn problem(&self, frame: &Frame) -> Option<String> {
        if frame.epoch > self.epoch {
            let (epoch, own) = (frame.epoch, self.epoch);
            return Some(format!("a frame of epoch {epoch}, not {own}"));
        }
        let mut sequences = frame.sequences.iter();
        let is_known = |s: &i32| u32::try_from(*s).is_ok_and(|s| s < self.sequences);
        if let Some(sequence) = sequences.find(|s| !is_known(s)) {
            return Some(format!("a row of sequence {sequence}, which there is not"));
        }
        let needs_values = frame.replay().is_none_or(|fresh| fresh.has(self.place));
        if needs_values && frame.is_bare() {
            return Some("the previous stage sent rows without their values".to_owned());
        }
        match is_finite(&frame.hidden) {
            true => None,
            false => Some("the previous stage sent values that are no numbers".to_owned()),
        }
    }

    /// Does a job on the thread that computes.
    fn work(&self, job: Job) {
        // The sender comes first, so that it goes last: behind a panic the layers are gone before others hear of it.
        let Job {
            done,
            mut body,
            mut gaps,
            mut frame,
            is_alone,
        } = job;
        let computed = self.compute(&mut body, &mut gaps, &mut frame);
        if is_alone {
            handover::call_runtime();
        }
        // Whoever gave it waits until it is done.
        let _ = done.send((body, gaps, computed));
    }

    /// Applies operations, evaluates rows, and gives the bytes of the frame for the next stage with the number
    /// of rows that were evaluated. Rows that follow others that found no room are refused too, until the
    /// host has cut those off.
    fn compute(
        &self,
        body: &mut Body,
        gaps: &mut Gaps,
        frame: &mut Frame,
    ) -> Result<(Vec<u8>, usize), Breach> {
        let began = Instant::now();
        body.begins(self.ring, self.epoch);
        self.apply(body, gaps, &frame.ops)?;
        // Rows that go round once more are for those who have lost what they made of them.
        let replay = frame.replay();
        let is_for_this = replay.is_none_or(|fresh| fresh.has(self.place));
        let is_for_next = replay.is_none_or(|fresh| fresh.has(self.place.saturating_add(1)));
        let mut evaluated = 0;
        if frame.positions.is_empty() {
            // Operations alone.
        } else if !is_for_this {
            frame.hidden.clear();
            if is_for_next {
                match body.trail.rows(&frame.positions, &frame.sequences) {
                    Some(hidden) => frame.hidden = hidden,
                    None => frame.refuse_rows(),
                }
            }
        } else if gaps.touch(&frame.sequences) {
            // The frame's other sequences lack these rows now, too.
            gaps.open(&frame.positions, &frame.sequences);
            frame.refuse_rows();
        } else {
            let rows = Rows {
                hidden: &frame.hidden,
                positions: &frame.positions,
                sequences: &frame.sequences,
            };
            let mut out = Vec::with_capacity(frame.hidden.len());
            match body.layers.run(&rows, &mut out) {
                Ok(()) => {
                    check(&out, frame.hidden.len())?;
                    evaluated = frame.positions.len();
                    body.trail.push(&frame.positions, &frame.sequences, &out);
                    frame.hidden = if is_for_next { out } else { Vec::new() };
                }
                Err(LayersError::NoRoom) => {
                    gaps.open(&frame.positions, &frame.sequences);
                    frame.refuse_rows();
                }
                Err(error) => return Err(breach_of(&error)),
            }
        }
        let busy = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        frame.busy_us = frame.busy_us.saturating_add(busy);
        let bytes = encode_frame(frame, self.format.width, self.precision);
        Ok((bytes, evaluated))
    }

    /// Does to the cache what the host wants done before the rows.
    fn apply(&self, body: &mut Body, gaps: &mut Gaps, ops: &[CacheOp]) -> Result<(), Breach> {
        for op in ops {
            match *op {
                CacheOp::Copy { from, to, tokens } => gaps.copy(from, to, tokens),
                CacheOp::Cut { sequence, from } => gaps.cut(sequence, from),
                CacheOp::Clear => gaps.clear(),
                // What follows is for those that replay.
                CacheOp::Replay { fresh } if !fresh.has(self.place) => break,
                CacheOp::Replay { .. } => {}
            }
            // The host asks for nothing that can't be done, so somebody between changed it, or the
            // layers here are not what they should be.
            body.apply(*op).map_err(|error| breach_of(&error))?;
        }
        Ok(())
    }

    async fn write(
        self: Arc<Self>,
        mut to: Duplex,
        mut departing: mpsc::Receiver<Vec<u8>>,
    ) -> Breach {
        while let Some(bytes) = departing.recv().await {
            match timeout(WRITE_MAX, send(&mut to.write, &bytes)).await {
                Ok(Ok(())) => self.counters.sent.fetch_add(1, Ordering::Relaxed),
                Ok(Err(error)) => return (Fault::NextGone, format!("the next stage: {error}")),
                Err(_) => return (Fault::NextGone, "the next stage takes nothing".to_owned()),
            };
        }
        (Fault::Own, "the stage has ended".to_owned())
    }
}

/// What is given to the thread that computes, and where the rest of it comes back.
struct Job {
    body: Body,
    gaps: Gaps,
    frame: Frame,
    /// A short one, and none waits behind it.
    is_alone: bool,
    done: oneshot::Sender<Done>,
}

/// What comes back, with the bytes for the next stage and the number of rows that were evaluated.
type Done = (Body, Gaps, Result<(Vec<u8>, usize), Breach>);

/// Who computes. What was given to somebody who panics is lost, and so is the sender for what came of it.
enum Computing {
    /// One of the runtime's threads for blocking work, as long as this lives: whoever waits there can be called.
    Thread {
        jobs: std::sync::mpsc::Sender<Job>,
        seat: Arc<Seat>,
    },
    /// A runtime with one thread, whose clock may be one that stands still only while blocking work goes on.
    Blocking(Arc<Flow>),
}

impl Computing {
    fn start(flow: &Arc<Flow>) -> Self {
        let flow = Arc::clone(flow);
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Self::Blocking(flow);
        }
        let (jobs, given) = std::sync::mpsc::channel::<Job>();
        let seat = Arc::new(Seat::default());
        let own_seat = Arc::clone(&seat);
        tokio::task::spawn_blocking(move || {
            let next = || {
                let _waiting = own_seat.wait();
                given.recv()
            };
            while let Ok(job) = next() {
                flow.work(job);
            }
        });
        Self::Thread { jobs, seat }
    }

    fn give(&self, job: Job) {
        match self {
            Self::Thread { jobs, seat } => {
                if job.is_alone {
                    seat.call();
                }
                // Fails only behind a panic.
                let _ = jobs.send(job);
            }
            Self::Blocking(flow) => {
                let flow = Arc::clone(flow);
                tokio::task::spawn_blocking(move || flow.work(job));
            }
        }
    }
}

/// What a task of the flow ended with.
fn breach(ended: Result<Breach, tokio::task::JoinError>) -> Breach {
    ended.unwrap_or_else(|error| (Fault::Own, error.to_string()))
}

fn breach_of(error: &LayersError) -> Breach {
    let fault = match error {
        LayersError::Input(_) => Fault::Previous,
        LayersError::NoRoom | LayersError::Failed(_) => Fault::Own,
    };
    (fault, error.to_string())
}

fn check(out: &[f32], wanted: usize) -> Result<(), Breach> {
    if out.len() != wanted {
        let text = format!("the layers gave {} values for {wanted}", out.len());
        return Err((Fault::Own, text));
    }
    match is_finite(out) {
        true => Ok(()),
        false => Err((
            Fault::Own,
            "the layers gave values that are no numbers".to_owned(),
        )),
    }
}

/// Written without a branch inside, so that it costs little beside copying the values.
pub(crate) fn is_finite(values: &[f32]) -> bool {
    let chunks = values.chunks(1_024);
    chunks.into_iter().all(|chunk| {
        let bad = chunk.iter().filter(|value| !value.is_finite()).count();
        bad == 0
    })
}

pub(crate) async fn send(write: &mut Writing, bytes: &[u8]) -> std::io::Result<()> {
    write.write_all(bytes).await?;
    write.flush().await
}
