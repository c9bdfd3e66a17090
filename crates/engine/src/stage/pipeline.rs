//! The parts of a model, put together again: tokens in, logits out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use llama::{Batch, Model, Pos, SeqId};

use super::{EmbeddingTable, StageBatch, StageError, Tail};
use crate::local::{Forward, ForwardError};
use crate::scheduler::round::Pipe;

/// Whatever evaluates the layers before the tail: here, on other machines, or some of both. Each call
/// goes through all of it, in the order of the layers.
///
/// Calls may follow each other before the first is back, as many as [`depth`](Self::depth) says. They,
/// and what is done to sequences between them, happen everywhere in the order in which they were asked for.
pub trait Stages: Send {
    /// Calls that may be in flight at a time.
    fn depth(&self) -> usize {
        1
    }

    /// Parts that compute at the same time, the tail among them.
    fn parts(&self) -> usize {
        1
    }

    /// Sends a batch on its way, whose rows are the first layer's input.
    ///
    /// # Errors
    /// As [`StageRunner::run`](super::StageRunner::run), and then the call is not in flight. After
    /// [`StageError::NoRoom`] some layers may hold the rows and others not: the caller cuts them.
    fn submit(&mut self, batch: &StageBatch<'_>) -> Result<(), StageError>;

    /// Waits for the oldest call in flight. Replaces `hidden` by what the last of the layers made of its
    /// rows: as many, in the same order.
    ///
    /// # Errors
    /// As [`submit`](Self::submit). After [`StageError::NoRoom`] calls that have rows of the same sequences
    /// come to the same end, until the sequences are cut; after other errors all calls are lost.
    fn receive(&mut self, hidden: &mut Vec<f32>) -> Result<(), StageError>;

    /// How long the call that was received last was under way; `None` if all of that was computing.
    fn trip(&self) -> Option<Trip> {
        None
    }

    /// As [`StageRunner::copy`](super::StageRunner::copy), in all layers, behind what is in flight.
    ///
    /// # Errors
    /// As there, or [`StageError::Lost`].
    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError>;

    /// As [`StageRunner::cut`](super::StageRunner::cut), in all layers, behind what is in flight.
    ///
    /// # Errors
    /// As there, or [`StageError::Lost`].
    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError>;

    /// What is to be done after [`StageError::Waiting`]: reduces `held`, the positions of each sequence that the
    /// caller has any use for, to what all layers hold of them, and forgets the rest and all calls in flight.
    /// Where nothing is kept, that is all of it.
    ///
    /// # Errors
    /// [`StageError::Lost`].
    fn hold(&mut self, held: &mut [u32]) -> Result<(), StageError> {
        held.fill(0);
        self.clear()
    }

    /// Forgets all sequences, and all calls in flight.
    ///
    /// # Errors
    /// [`StageError::Lost`].
    fn clear(&mut self) -> Result<(), StageError>;
}

/// The way of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trip {
    /// From the moment it was submitted until it was back.
    pub total: Duration,
    /// Of that, what was spent computing, as those say who did.
    pub computing: Duration,
}

/// Token embedding, stages and tail. It stands where a whole model's context stands.
pub struct Pipeline {
    embedding: EmbeddingTable,
    stages: Box<dyn Stages>,
    tail: Tail,
    /// Rows of a step: the first layer's input, and the tail's.
    first: Vec<f32>,
    last: Vec<f32>,
    /// What is still to come at the tail, in the order of the stages.
    due: VecDeque<Due>,
    /// The tail had no room for some rows, so that those that were in flight then are refused unseen: they
    /// may follow them. So many are still to come.
    refused: usize,
    /// What went wrong between two steps; the next step tells it.
    failed: Option<StageError>,
    trip: Option<Trip>,
}

/// What the tail has to do once it is its turn.
#[derive(Debug, Clone, Copy)]
enum Due {
    /// To evaluate what comes back; how long looking up its rows took.
    Rows(Duration),
    Copy {
        from: u32,
        to: u32,
        tokens: u32,
    },
    Cut {
        sequence: u32,
        from: u32,
    },
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("embedding", &self.embedding)
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Puts the parts of one model together.
    ///
    /// # Errors
    /// [`StageError::Size`] if table and tail are not of models of one width.
    pub fn new(
        embedding: EmbeddingTable,
        stages: Box<dyn Stages>,
        tail: Tail,
    ) -> Result<Self, StageError> {
        if embedding.width() != tail.width() {
            return Err(StageError::Size {
                what: "elements of a token's row",
                got: embedding.width(),
                wanted: tail.width(),
            });
        }
        Ok(Self {
            embedding,
            stages,
            tail,
            first: Vec::new(),
            last: Vec::new(),
            due: VecDeque::new(),
            refused: 0,
            failed: None,
            trip: None,
        })
    }

    /// Evaluates rows of tokens when nothing else is in flight; `outputs` says which give logits.
    ///
    /// # Errors
    /// As [`StageRunner::run`](super::StageRunner::run), [`StageError::Token`], [`StageError::Embedding`],
    /// [`StageError::Lost`]; or what went wrong with a sequence since the last step. After
    /// [`StageError::NoRoom`] all parts hold what they held before.
    pub fn run(
        &mut self,
        tokens: &[i32],
        positions: &[i32],
        sequences: &[i32],
        outputs: &[bool],
    ) -> Result<(), StageError> {
        let submitted = self.submit(tokens, positions, sequences);
        let result = submitted.and_then(|()| self.receive(positions, sequences, outputs));
        if result == Err(StageError::NoRoom) {
            self.undo(positions, sequences)?;
        }
        result
    }

    /// Sends rows of tokens on their way.
    ///
    /// # Errors
    /// As [`run`](Self::run), but that after [`StageError::NoRoom`] some parts may hold the rows and
    /// others not.
    pub fn submit(
        &mut self,
        tokens: &[i32],
        positions: &[i32],
        sequences: &[i32],
    ) -> Result<(), StageError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let began = Instant::now();
        self.embedding.look_up(tokens, &mut self.first)?;
        let looked_up = began.elapsed();
        self.stages.submit(&StageBatch {
            hidden: &self.first,
            positions,
            sequences,
        })?;
        self.due.push_back(Due::Rows(looked_up));
        Ok(())
    }

    /// Waits for the oldest rows in flight, which were submitted with these positions and sequences;
    /// `outputs` says which give logits.
    ///
    /// # Errors
    /// As [`submit`](Self::submit). After [`StageError::NoRoom`] other rows in flight may come to the same end:
    /// receive them, then cut the sequences of those that did. After other errors everything is to be cleared.
    pub fn receive(
        &mut self,
        positions: &[i32],
        sequences: &[i32],
        outputs: &[bool],
    ) -> Result<(), StageError> {
        let Some(Due::Rows(looked_up)) = self.due.pop_front() else {
            return Err(StageError::Failed("no rows are in flight".to_owned()));
        };
        let received = self.stages.receive(&mut self.last);
        let began = Instant::now();
        let batch = StageBatch {
            hidden: &self.last,
            positions,
            sequences,
        };
        let result = match received {
            Ok(()) if self.refused == 0 => {
                let evaluated = self.tail.run(&batch, outputs);
                if evaluated == Err(StageError::NoRoom) {
                    let behind = self.due.iter().filter(|due| matches!(due, Due::Rows(_)));
                    // The next line counts this one.
                    self.refused = behind.count() + 1;
                }
                evaluated
            }
            Ok(()) => Err(StageError::NoRoom),
            Err(error) => Err(error),
        };
        self.refused = self.refused.saturating_sub(1);
        let here = looked_up + began.elapsed();
        self.trip = self.stages.trip().map(|trip| Trip {
            total: trip.total + here,
            computing: trip.computing + here,
        });
        self.catch_up()?;
        result
    }

    /// The logits of row `row` of the rows received last, as [`Tail::logits`].
    pub fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        self.tail.logits(row)
    }

    /// As [`StageRunner::copy`](super::StageRunner::copy), in all parts, behind what is in flight.
    ///
    /// # Errors
    /// As [`Stages::copy`].
    pub fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        self.stages.copy(from, to, tokens)?;
        self.due.push_back(Due::Copy { from, to, tokens });
        self.catch_up()
    }

    /// As [`StageRunner::cut`](super::StageRunner::cut), in all parts, behind what is in flight.
    ///
    /// # Errors
    /// As [`Stages::cut`].
    pub fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        self.stages.cut(sequence, from)?;
        self.due.push_back(Due::Cut { sequence, from });
        self.catch_up()
    }

    /// Forgets all sequences, what is in flight, and what went wrong.
    ///
    /// # Errors
    /// As [`Stages::clear`].
    pub fn clear(&mut self) -> Result<(), StageError> {
        self.failed = None;
        self.due.clear();
        self.refused = 0;
        self.tail.clear();
        self.stages.clear()
    }

    /// As [`Stages::hold`], in all parts.
    ///
    /// # Errors
    /// As there.
    pub fn hold(&mut self, held: &mut [u32]) -> Result<(), StageError> {
        self.failed = None;
        self.due.clear();
        self.refused = 0;
        self.stages.hold(held)?;
        for (sequence, held) in (0..).zip(held) {
            // The tail is as far as the last rows that came back, which is what all hold, or farther.
            if self.tail.cut(sequence, *held).is_err() {
                *held = 0;
                self.tail.cut(sequence, 0)?;
                self.stages.cut(sequence, 0)?;
            }
        }
        Ok(())
    }

    /// Does to the tail what is to be done before the next rows come back.
    fn catch_up(&mut self) -> Result<(), StageError> {
        while let Some(&due) = self.due.front() {
            match due {
                Due::Rows(_) => break,
                Due::Copy { from, to, tokens } => {
                    self.due.pop_front();
                    self.tail.copy(from, to, tokens)?;
                }
                Due::Cut { sequence, from } => {
                    self.due.pop_front();
                    self.tail.cut(sequence, from)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the rows of a batch out of the parts that have evaluated it: the first part that had no
    /// room stopped the rest.
    fn undo(&mut self, positions: &[i32], sequences: &[i32]) -> Result<(), StageError> {
        let rows = sequences.iter().zip(positions).enumerate();
        for (row, (&sequence, &position)) in rows {
            if sequences[..row].contains(&sequence) {
                continue;
            }
            self.cut(sequence.unsigned_abs(), position.unsigned_abs())?;
        }
        Ok(())
    }

    /// Keeps the first thing that goes wrong for the next step.
    fn keep(&mut self, result: Result<(), StageError>) -> bool {
        let failed = result.err();
        let is_done = failed.is_none();
        self.failed = self.failed.take().or(failed);
        is_done
    }
}

impl From<StageError> for ForwardError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::NoRoom => Self::NoRoom,
            StageError::Waiting => Self::Waiting,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Forward for Pipeline {
    fn model(&self) -> &Model {
        self.tail.model()
    }

    fn kv_tokens(&self) -> u32 {
        self.tail.kv_tokens()
    }

    fn pipe(&self) -> Pipe {
        Pipe {
            parts: self.stages.parts(),
            depth: self.stages.depth(),
            ..Pipe::WHOLE
        }
    }

    fn submit(&mut self, batch: &Batch) -> Result<(), ForwardError> {
        Ok(Self::submit(
            self,
            batch.tokens(),
            batch.positions(),
            batch.sequences(),
        )?)
    }

    fn receive(&mut self, batch: &mut Batch) -> Result<(), ForwardError> {
        Ok(Self::receive(
            self,
            batch.positions(),
            batch.sequences(),
            batch.outputs(),
        )?)
    }

    fn trip(&self) -> Option<Trip> {
        self.trip
    }

    fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        self.tail.logits(row)
    }

    fn copy(&mut self, from: SeqId, to: SeqId, tokens: Pos) {
        let (from, to) = (from.unsigned_abs(), to.unsigned_abs());
        let done = Self::copy(self, from, to, tokens.unsigned_abs());
        self.keep(done);
    }

    fn cut(&mut self, sequence: SeqId, from: Pos) -> bool {
        let done = Self::cut(self, sequence.unsigned_abs(), from.unsigned_abs());
        self.keep(done)
    }

    /// The parts' memory is not fetched: the scheduler gets no room for it.
    fn save(&mut self, _sequence: SeqId) -> Vec<u8> {
        Vec::new()
    }

    fn load(&mut self, _sequence: SeqId, _bytes: &[u8]) -> bool {
        false
    }

    fn hold(&mut self, held: &mut [u32]) {
        let done = Self::hold(self, held);
        if !self.keep(done) {
            held.fill(0);
        }
    }

    fn clear(&mut self) {
        let done = Self::clear(self);
        self.keep(done);
    }
}
