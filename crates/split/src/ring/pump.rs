//! Frames to the first worker and from the last one, each with a deadline.

use std::sync::{Arc, Mutex};

use mesh::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::patience::Patience;
use super::steps::StepClock;
use super::verdict::Evidence;
use crate::handover::{ROWS_MAX, Seat};
use crate::pace::Steps;
use crate::transport::{Duplex, Reading, Writing};
use crate::wire::{Frame, FrameFormat, FrameStreamError, Outcome, read_frame};
use crate::worker::{is_finite, send};

/// How long the first worker may take nothing. Frames in flight have deadlines of their own, which come
/// before; this is for when there are none yet.
const WRITE_MAX: Duration = Duration::from_secs(180);

/// A frame to send.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) number: u64,
    pub(super) rows: u32,
    /// Rows go round once more, and come back without values.
    pub(super) replays: bool,
    pub(super) bytes: Vec<u8>,
}

/// A frame under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    number: u64,
    rows: u32,
    replays: bool,
    sent: Instant,
}

/// Everything that the pump needs.
pub(super) struct Pump {
    pub(super) last: NodeId,
    pub(super) last_place: usize,
    pub(super) epoch: u32,
    pub(super) format: FrameFormat,
    pub(super) to: Duplex,
    pub(super) from: Duplex,
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    /// Has room for all frames that can be in flight, so it never blocks.
    pub(super) returned: mpsc::Sender<Frame>,
    /// The number of the frame that is waited for.
    pub(super) awaited: watch::Sender<u64>,
    pub(super) steps: Arc<Mutex<Steps>>,
    /// Where the thread sits that waits for frames.
    pub(super) seat: Arc<Seat>,
}

impl Pump {
    /// Runs until something breaks; no evidence when nobody wants the ring any more. The streams stay
    /// open until they are dropped: else the workers would tell of that, too.
    pub(super) async fn run(self, frames_max: usize) -> (Option<Evidence>, [Duplex; 2]) {
        let Self {
            mut to, mut from, ..
        } = self;
        let (flights, flying) = mpsc::channel(frames_max.max(1));
        let write = write(&mut to.write, self.outgoing, flights);
        let read = Reader {
            epoch: self.epoch,
            format: self.format,
            last: self.last,
            last_place: self.last_place,
            returned: self.returned,
            awaited: self.awaited,
            patience: Patience::default(),
            clock: StepClock::new(self.steps),
            seat: self.seat,
        };
        let ended = tokio::select! {
            ended = write => ended,
            evidence = read.run(&mut from.read, flying) => evidence,
        };
        (ended, [to, from])
    }
}

async fn write(
    write: &mut Writing,
    mut outgoing: mpsc::Receiver<Outgoing>,
    flights: mpsc::Sender<Flight>,
) -> Option<Evidence> {
    while let Some(out) = outgoing.recv().await {
        let flight = Flight {
            number: out.number,
            rows: out.rows,
            replays: out.replays,
            sent: Instant::now(),
        };
        flights.send(flight).await.ok()?;
        let problem = match timeout(WRITE_MAX, send(write, &out.bytes)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => format!("no frame can be sent: {error}"),
            Err(_) => "no frame can be sent".to_owned(),
        };
        return Some(Evidence::Broken(0, problem));
    }
    None
}

struct Reader {
    epoch: u32,
    format: FrameFormat,
    last: NodeId,
    last_place: usize,
    returned: mpsc::Sender<Frame>,
    awaited: watch::Sender<u64>,
    patience: Patience,
    clock: StepClock,
    seat: Arc<Seat>,
}

impl Reader {
    async fn run(
        mut self,
        read: &mut Reading,
        mut flying: mpsc::Receiver<Flight>,
    ) -> Option<Evidence> {
        // Frames come back in order, so each one's time begins when the one before is back.
        let mut before = Instant::now();
        while let Some(flight) = flying.recv().await {
            self.awaited.send_replace(flight.number);
            let began = flight.sent.max(before);
            let deadline = began + self.patience.limit(flight.rows);
            let frame = match timeout_at(deadline, self.next(read)).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(evidence)) => return Some(evidence),
                Err(_) => {
                    let waited = began.elapsed().as_secs();
                    let text = format!("frame {} is missing after {waited} s", flight.number);
                    return Some(Evidence::Missing(text));
                }
            };
            before = Instant::now();
            self.patience.observe(flight.rows, before - began);
            if let Err(text) = check(&frame, &flight) {
                tracing::warn!(worker = self.last.short(), %text, "a bad frame");
                return Some(Evidence::BadFrame(text));
            }
            self.clock.observe(&frame, flight.sent, before);
            if flying.is_empty() && flight.rows as usize <= ROWS_MAX {
                self.seat.call();
            }
            self.returned.send(frame).await.ok()?;
        }
        None
    }

    fn broken(&self, text: impl std::fmt::Display) -> Evidence {
        Evidence::Broken(self.last_place, text.to_string())
    }

    /// The next frame that is not of an old epoch.
    async fn next(&self, read: &mut Reading) -> Result<Frame, Evidence> {
        loop {
            let frame = read_frame(read, &self.format).await;
            let frame = frame.map_err(|error| match error {
                FrameStreamError::Broken(error) => self.broken(error),
                FrameStreamError::Wire(error) => Evidence::BadFrame(error.to_string()),
            })?;
            let frame = frame.ok_or_else(|| self.broken("it ended its stream"))?;
            if frame.epoch > self.epoch {
                let text = format!("a frame of epoch {}, not {}", frame.epoch, self.epoch);
                return Err(Evidence::BadFrame(text));
            }
            if frame.epoch == self.epoch {
                return Ok(frame);
            }
        }
    }
}

fn check(frame: &Frame, flight: &Flight) -> Result<(), String> {
    let (number, rows) = (flight.number, flight.rows as usize);
    if frame.number != number {
        return Err(format!(
            "frame {} came where {number} belongs",
            frame.number
        ));
    }
    if frame.outcome == Outcome::Rows && frame.positions.len() != rows {
        let came = frame.positions.len();
        return Err(format!("{came} rows came back instead of {rows}"));
    }
    if frame.is_bare() && !flight.replays {
        return Err("rows came back without their values".to_owned());
    }
    match is_finite(&frame.hidden) {
        true => Ok(()),
        false => Err("the rows hold values that are no numbers".to_owned()),
    }
}
